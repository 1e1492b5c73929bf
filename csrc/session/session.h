// Package + engine + scorer + map → verdict. The whole path on one screen; everything that scores goes through here.
#pragma once

#include <memory>
#include <vector>

#include "image/anomaly_map.h"
#include "image/contour.h"
#include "image/map_regions.h"
#include "kernels/kernel_table.h"
#include "session/embedder.h"
#include "session/patch_scorer.h"
#include "session/product.h"

namespace onceover {

struct Result {
  float score = 0;     // Euclidean distance of the worst patch to the memory bank; higher is more anomalous
  double p_value = 1;  // of the score among the calibration scores; 1 when there are none
  Decision decision = Decision::kUncalibrated;
  float threshold = 0;       // anomalous is a score above it; +inf when uncalibrated
  float map_maximum = 0;     // of the anomaly map at its own size, within the region of interest
  uint32_t worst_patch = 0;  // row-major in the patch grid of the image (all tiles)
  uint32_t nearest_row = 0;  // its nearest memory bank row; one of a correction is numbered as in its journal
  uint32_t product = 0;      // whose bank and thresholds these are
  double gate_ratio = 0;     // Product::gate_ratio; 0 where no gate was asked
  Timing timing;
};

// As a selection: the product whose gate the image is nearest to, and wrong part where none lets it in.
inline constexpr uint32_t kAutomatic = UINT32_MAX;

struct SessionOptions {
  EngineOptions engine;
  Allocator allocator = heap_allocator();
  size_t memory_limit_bytes = 0;  // 0: no limit. Our buffers; what the engine allocates is its own.
  size_t max_map_width = 0;       // of maps whose regions are asked for; 0: the map's own width
  uint64_t cpu_mask = 0;          // where our threads, but the caller's, may run; 0: anywhere (base/parallel.h)
  bool touch_pages = false;       // read every page of the package now, so that no run waits for one
};

class Session {
 public:
  Session(std::shared_ptr<const Package> package, const SessionOptions& options);

  // One image → result. Our code allocates nothing here. Throws Error(kInput | kEngine).
  const Result& run(const ImageView& image);
  const Result& last() const { return require_run(), result_; }

  // What follows the network, for its answer (feature_count, embedding_dim) that somebody else computed from an image
  // that prepare() gave, tile after tile. Throws Error(kUsage) for another shape, kEngine for a value that is not
  // finite.
  const Result& run_features(MatrixView<const float> embeddings);
  void prepare(const ImageView& image, float* out) { embedder_.prepare(image, out); }  // out (tiles, 3, H, W)

  // Which product the next runs inspect: its number, or kAutomatic. At first the only one, without a gate; of several,
  // kAutomatic. Throws Error(kUsage) for a number that there is not, and for kAutomatic where a product has no gate.
  void select(uint32_t product);
  uint32_t selected() const { return selected_; }
  size_t product_count() const { return products_.size(); }
  const Product& product(size_t number) const { return *products_[number]; }

  // Decide otherwise than the package says, from the next run on; finite, else Error(kUsage), as when no product is
  // selected of several. The self test is not affected.
  void set_threshold(float threshold) { own_product().set_threshold(threshold); }
  void set_map_threshold(float map_threshold) { own_product().set_map_threshold(map_threshold); }
  // Of the selected product; under kAutomatic that of the last run.
  float threshold() const { return active().threshold(); }          // +inf when there is none
  float map_threshold() const { return active().map_threshold(); }  // +inf when there is none

  // Score and decide with corrections (corrections/corrections.h), one entry for each product, in place of those
  // applied before, from the next run on. The first call takes memory for every journal of that bound, of every
  // product. A product whose entry is as before is left alone. The self test is not affected. Throws Error(kMemory |
  // kUsage | kPackage), and then nothing has changed, of no product.
  void apply(const std::vector<BankChanges>& changes, size_t max_added_rows);
  // Of the last run: what a correction of its result's product needs to know of it. rows (n, D), as the patches are
  // listed. Throws Error(kUsage) when there is no threshold, or the image is not above it.
  Candidate candidate(std::vector<float>& rows) const;

  // Of the last run; each throws Error(kUsage) before the first one, after one that failed, and after a self test:
  const float* patch_scores() const { return require_run(), scorer_.scores().data(); }  // (cell_count)
  // (cell_count): patch scores before they are weighed by position; outside a region they mean nothing.
  const float* patch_distances() const { return require_run(), scorer_.distances(); }
  const uint32_t* nearest_rows() const { return require_run(), scorer_.rows().data(); }       // (cell_count)
  std::vector<uint32_t> patch_features() const { return require_run(), scorer_.features(); }  // PatchScorer::features
  // (feature_count, D): what was searched for; the network's answer, or the active product's adaptation of it
  MatrixView<const float> embeddings() const { return require_run(), features_; }
  MatrixView<const float> map() const { return require_run(), map_.map(); }  // (map_height, map_width), not masked
  void draw_map(MatrixView<float> out);  // at any size; 0 outside the region of interest
  // Where a map that draw_map drew is above the map threshold (image/map_regions.h); none unless the last image was
  // anomalous, so that score and map never differ.
  size_t find_regions(MatrixView<const float> map, MapRegion* regions, size_t capacity);
  // The outline of one of them (image/contour.h).
  size_t trace_contour(MatrixView<const float> map, const MapRegion& region, ContourPoint* points,
                       size_t capacity) const {
    return onceover::trace_contour(map, map_threshold(), region, points, capacity);
  }

  // Replays the package's parity record. Throws Error(kVerification) with image, expected, got and tolerance.
  struct SelfTest {
    uint32_t images = 0;
    double largest_relative_difference = 0;  // of scores and patch scores
    double largest_map_difference = 0;       // relative to the largest expected patch score
    float tolerance = 0;
  };
  SelfTest self_test();

  const Config& config() const { return config_; }
  const Calibration& calibration() const { return active().calibration(); }
  const Roi& roi() const { return active().roi(); }
  const Package& package() const { return *package_; }
  std::string engine_version() const { return embedder_.engine_version(); }
  size_t memory_bytes() const { return memory_.used_bytes(); }
  size_t peak_memory_bytes() const { return memory_.peak_bytes(); }  // while it was created
  size_t threads() const { return pool_.threads(); }
  const char* isa() const { return kernels_.name; }
  size_t bank_rows() const { return active().index().row_count - active().index().removed_count; }
  const SearchIndex& search_index() const { return active().index(); }

 private:
  void require_run() const;
  void require_gate(const Product& product) const;
  Product& own_product();
  const Product& active() const { return *products_[active_]; }
  void choose(MatrixView<const float> embeddings);  // which product is active
  void score(MatrixView<const float> embeddings);   // fills result_ but its decision, and the buffers
  void score(const ImageView& image);
  const Result& decide();
  void replay(uint32_t product, SelfTest& report);

  std::shared_ptr<const Package> package_;
  Memory memory_;
  Config config_;
  const KernelTable& kernels_;
  std::vector<std::unique_ptr<Product>> products_;
  uint32_t selected_ = 0, active_ = 0;
  Buffer<float> pooled_;  // (D), where a product has a gate
  ThreadPool pool_;
  Embedder embedder_;
  Buffer<float> adapted_;             // (feature_count, D), where a product has an adaptation
  MatrixView<const float> features_;  // of the last run
  PatchScorer scorer_;
  AnomalyMap map_;
  MapRegions regions_;
  Result result_;
  bool has_run_ = false;  // false while the buffers may hold parts of two runs
};

// What Session::apply takes the first time, of a session of this package with so many threads.
size_t corrected_memory_bytes(const Package& package, size_t max_added_rows, size_t threads);

}  // namespace onceover
