// The meaning of the fixed members "config", "calibration" and "parity", validated once on open.
#pragma once

#include <vector>

#include "image/image_view.h"
#include "image/prepare.h"
#include "image/roi.h"
#include "image/tiling.h"
#include "package/reader.h"

namespace onceover {

struct Config {
  Preprocessing preprocessing;
  uint32_t grid_height = 0, grid_width = 0, embedding_dim = 0;  // what the graph answers, for one tile
  float blur_sigma = 0;
  Tiling tiling;
  size_t patch_count() const { return size_t{grid_height} * grid_width; }   // of one tile
  size_t feature_count() const { return tiling.count() * patch_count(); }   // of the image: tile after tile
  TileGrid tiles() const { return {tiling, grid_height, grid_width}; }      // the patch grid of the image
  size_t cell_count() const { return tiles().height() * tiles().width(); }  // its patch scores
  // Of the anomaly map: what one tile has at input size, times tiles; the input's for one tile.
  size_t map_height() const { return tiles().height() * preprocessing.height / grid_height; }
  size_t map_width() const { return tiles().width() * preprocessing.width / grid_width; }
};

struct Calibration {
  bool calibrated = false;
  bool cross_conformal = false;  // every part was scored by a bank without its fold: a weaker promise
  double confidence = 0;         // that the realised rate is at most false_alarm_rate; 0: it holds on average
  double false_alarm_rate = 0;
  float threshold = 0;                // +inf when uncalibrated
  float map_threshold = 0;            // +inf when uncalibrated
  const float* scores = nullptr;      // ascending, size n
  const float* map_maxima = nullptr;  // ascending, size n
  uint32_t n = 0;                     // independent parts
  uint32_t image_count = 0;           // images those parts had
  // (1 + #{calibration ≥ score}) / (n + 1); 1 when n is 0.
  double p_value(float score) const;
  // The same of a region's largest map value, among the largest map values of the calibration parts.
  double map_p_value(float peak) const;
};

struct ParityImage {
  ImageView image;
  float score;
  uint32_t verdict;
  const float* patch_scores;
  const float* map;  // every map_step-th row and column
};

struct Parity {
  float relative_tolerance = 0;
  uint32_t map_step = 1;
  std::vector<ParityImage> images;
};

// The members' bytes, from their meaning; the only code that fills the records of layout.h. Each throws Error(kUsage)
// for what its reader would refuse, naming member, field, value and what is allowed.
std::vector<uint8_t> write_config(const Config& config);
// What a calibration promises beyond its rate; not stored of an uncalibrated one.
struct Promise {
  bool cross_conformal = false;
  double confidence = 0;
};
// scores and map_maxima need not be sorted, but must be finite and of equal length. When not calibrated, the rate is
// stored as 0 and the thresholds as +inf, whatever was given.
std::vector<uint8_t> write_calibration(bool calibrated, double false_alarm_rate, float threshold, float map_threshold,
                                       std::vector<float> scores, std::vector<float> map_maxima, uint32_t image_count,
                                       const Promise& promise = {});
std::vector<uint8_t> write_parity(const Parity& parity, const Config& config);

// Each throws Error(kPackage) naming package, member, field, value and what is allowed; kUnsupported instead when the
// package has a newer minor version, which may have given the value a meaning.
Config read_config(const Package& package);
Calibration read_calibration(const Package& package, uint32_t product = 0);
Parity read_parity(const Package& package, const Config& config, uint32_t product = 0);
// Member "roi", read in place; without one the whole image.
Roi read_roi(const Package& package, uint32_t product = 0);

// Member "position_weights", viewed in place: (cell_count), by which the distance at each cell is multiplied to be its
// patch score. Null where there is no such member. Throws Error(kPackage) for another shape than the cells', or a
// weight that is not finite and above 0.
const float* read_position_weights(const Package& package, const Config& config, uint32_t product = 0);

}  // namespace onceover
