// The fixed members "config", "calibration" and "parity": each field is judged once, by the same check when it is
// written and when it is read, so that the session never meets a value it has no meaning for.
#include "package/config.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/error.h"
#include "package/fields.h"

namespace onceover {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr uint32_t kUncalibrated = 0, kSplitConformal = 1, kCrossConformal = 2;  // CalibrationRecord::state
constexpr uint32_t kMaxInputSide = 4096;
constexpr uint32_t kMaxEmbeddingDim = 65536;
constexpr uint64_t kMaxEmbeddingFloats = uint64_t{1} << 28;  // of one image: 1 GiB
constexpr double kMaxBlurSigma = 256;
constexpr uint32_t kMaxParityImages = 1024;
constexpr uint32_t kMaxMapStep = kMaxInputSide;
constexpr uint64_t kMaxMapSide = 8192;
constexpr float kMaxTolerance = 0.1f;  // beyond it, replaying the record proves nothing

// Tiling in the record: all zero means one tile.
Tiling tiling_of(const ConfigRecord& record) {
  if (record.tile_rows == 0 && record.tile_columns == 0) return {};
  return {record.tile_rows, record.tile_columns, record.overlap_rows, record.overlap_columns};
}

Config geometry_of(const ConfigRecord& record) {
  Config config;
  config.preprocessing.height = record.input_height;
  config.preprocessing.width = record.input_width;
  config.grid_height = record.grid_height;
  config.grid_width = record.grid_width;
  config.embedding_dim = record.embedding_dim;
  config.tiling = tiling_of(record);
  return config;
}

// After the sizes of one tile.
void check_tiling(const ConfigRecord& record, const Fields& fields) {
  if (record.tile_rows == 0 && record.tile_columns == 0) {
    fields.equal("overlap_rows", record.overlap_rows, 0u);
    fields.equal("overlap_columns", record.overlap_columns, 0u);
    return;
  }
  fields.within("tile_rows", record.tile_rows, 1u, kMaxTiles);
  fields.within("tile_columns", record.tile_columns, 1u, kMaxTiles);
  fields.within("tile_rows * tile_columns", record.tile_rows * record.tile_columns, 2u, kMaxTiles * kMaxTiles);
  fields.within("overlap_rows", record.overlap_rows, 0u, record.tile_rows == 1 ? 0u : record.grid_height / 2);
  fields.within("overlap_columns", record.overlap_columns, 0u, record.tile_columns == 1 ? 0u : record.grid_width / 2);
  const Config config = geometry_of(record);
  fields.within("map height", uint64_t{config.map_height()}, uint64_t{1}, kMaxMapSide);
  fields.within("map width", uint64_t{config.map_width()}, uint64_t{1}, kMaxMapSide);
  fields.within("tile_rows * tile_columns * grid_height * grid_width * embedding_dim",
                uint64_t{config.feature_count()} * record.embedding_dim, uint64_t{1}, kMaxEmbeddingFloats);
}

void check_config(const ConfigRecord& record, const Fields& fields) {
  fields.equal("scorer", record.scorer, 1u);
  fields.within("input_height", record.input_height, 1u, kMaxInputSide);
  fields.within("input_width", record.input_width, 1u, kMaxInputSide);
  fields.equal("color", record.color, 1u);
  fields.equal("resize", record.resize, 1u);
  fields.finite("mean", record.mean, 3);
  fields.finite("std", record.std, 3);
  for (size_t c = 0; c < 3; ++c) {
    const float mean = record.mean[c], std = record.std[c];
    if (!(std > 0)) fields.refuse("std", text_of(double{std}), "a positive number");
    if (!is_finite_normalization(mean, std)) {
      fields.refuse("mean, std", text_of(double{mean}) + ", " + text_of(double{std}),
                    "finite (0 - mean) / std and (1 - mean) / std");
    }
  }
  fields.within("grid_height", record.grid_height, 1u, record.input_height);
  fields.within("grid_width", record.grid_width, 1u, record.input_width);
  fields.within("embedding_dim", record.embedding_dim, 1u, kMaxEmbeddingDim);
  const uint64_t embedding_floats = uint64_t{record.grid_height} * record.grid_width * record.embedding_dim;  // ≤ 2^40
  fields.within("grid_height * grid_width * embedding_dim", embedding_floats, uint64_t{1}, kMaxEmbeddingFloats);
  fields.equal("neighbors", record.neighbors, 1u);
  fields.equal("image_score", record.image_score, 1u);
  fields.within("blur_sigma", double{record.blur_sigma}, 0.0, kMaxBlurSigma);
  fields.equal("graph_format", record.graph_format, 1u);
  check_tiling(record, fields);
  fields.zeros(record.zeros, sizeof record.zeros);
}

void check_calibration(const CalibrationRecord& record, const float* scores, const float* map_maxima,
                       const Fields& fields) {
  fields.within("state", record.state, kUncalibrated, kCrossConformal);
  if (record.state != kUncalibrated) {
    if (!(record.false_alarm_rate > 0 && record.false_alarm_rate < 1)) {
      fields.refuse("false_alarm_rate", text_of(record.false_alarm_rate), "above 0 and below 1");
    }
    fields.finite("threshold", &record.threshold, 1);
    fields.finite("map_threshold", &record.map_threshold, 1);
    fields.within("score_count", record.score_count, 1u, UINT32_MAX);
    if (!(record.confidence >= 0 && record.confidence < 1)) {
      fields.refuse("confidence", text_of(record.confidence), "0 to below 1");
    }
    if (record.state == kCrossConformal) fields.equal("confidence", record.confidence, 0.0);  // no such bound is known
  } else {
    fields.equal("confidence", record.confidence, 0.0);
    fields.equal("false_alarm_rate", record.false_alarm_rate, 0.0);
    fields.equal("threshold", double{record.threshold}, kInfinity);
    fields.equal("map_threshold", double{record.map_threshold}, kInfinity);
  }
  fields.within("image_count", record.image_count, record.score_count, UINT32_MAX);
  fields.zeros(record.zeros, sizeof record.zeros);
  for (const auto& [name, values] : {std::pair{"scores", scores}, std::pair{"map_maxima", map_maxima}}) {
    fields.finite(name, values, record.score_count);
    for (uint32_t i = 1; i < record.score_count; ++i) {
      if (values[i] < values[i - 1]) fields.refuse(name, "not sorted at " + std::to_string(i), "ascending");
    }
  }
}

size_t map_floats(const Config& config, uint32_t map_step) {
  const auto steps = [map_step](size_t side) { return (side + map_step - 1) / map_step; };
  return steps(config.map_height()) * steps(config.map_width());
}

void check_parity_header(const ParityHeader& header, const Fields& fields) {
  fields.within("image_count", header.image_count, 0u, kMaxParityImages);
  if (!(header.relative_tolerance > 0 && header.relative_tolerance <= kMaxTolerance)) {
    fields.refuse("relative_tolerance", text_of(double{header.relative_tolerance}), "above 0 and at most 0.1");
  }
  fields.within("map_step", header.map_step, 1u, kMaxMapStep);
  fields.zeros(header.zeros, sizeof header.zeros);
}

struct ParityShape {
  size_t patch_floats, map_floats;
  uint64_t data_begin;  // after the records
};

ParityImage read_parity_image(const MemberView& member, const ParityRecord& record, const ParityShape& shape,
                              const Fields& fields) {
  constexpr auto kSide = [](size_t side) { return static_cast<uint32_t>(side); };
  fields.within("height", record.height, kSide(kMinImageSide), kSide(kMaxImageSide));
  fields.within("width", record.width, kSide(kMinImageSide), kSide(kMaxImageSide));
  fields.within("pixels", uint64_t{record.height} * record.width, uint64_t{1}, uint64_t{kMaxImagePixels});
  fields.within("pixel_format", record.pixel_format, static_cast<uint32_t>(PixelFormat::kGray8),
                static_cast<uint32_t>(PixelFormat::kBgra16));
  fields.within("verdict", record.verdict, 0u, 2u);
  fields.equal("zero", record.zero, 0u);
  fields.zeros(record.zeros, sizeof record.zeros);
  const auto format = static_cast<PixelFormat>(record.pixel_format);
  const size_t row_bytes = size_t{record.width} * pixel_bytes(format);
  fields.equal("pixels_bytes", record.pixels_bytes, uint64_t{record.height} * row_bytes);
  const auto inside = [&](const char* field, uint64_t offset, uint64_t bytes) {
    fields.inside(field, offset, bytes, shape.data_begin, member.size_bytes);
    return member.data + offset;
  };
  ParityImage image{};
  image.image.data = inside("pixels_offset", record.pixels_offset, record.pixels_bytes);
  image.image.height = record.height;
  image.image.width = record.width;
  image.image.stride_bytes = static_cast<ptrdiff_t>(row_bytes);
  image.image.format = format;
  image.score = record.score;
  image.verdict = record.verdict;
  image.patch_scores = reinterpret_cast<const float*>(
      inside("patch_scores_offset", record.patch_scores_offset, shape.patch_floats * sizeof(float)));
  image.map = reinterpret_cast<const float*>(inside("map_offset", record.map_offset, shape.map_floats * sizeof(float)));
  fields.finite("score", &image.score, 1);
  fields.finite("patch_scores", image.patch_scores, shape.patch_floats);
  fields.finite("map", image.map, shape.map_floats);
  return image;
}

template <typename Record>
Record first_record(const MemberView& member, const Fields& fields) {
  fields.within("size in bytes", member.size_bytes, uint64_t{sizeof(Record)}, UINT64_MAX);
  Record record;
  std::memcpy(&record, member.data, sizeof record);
  return record;
}

template <typename T>
size_t append(std::vector<uint8_t>& out, const T* values, size_t count) {
  const size_t offset = (out.size() + kMemberAlignment - 1) / kMemberAlignment * kMemberAlignment;
  out.resize(offset + count * sizeof(T));
  std::memcpy(out.data() + offset, values, count * sizeof(T));
  return offset;
}

// (1 + #{of n ascending values ≥ value}) / (n + 1).
double conformal_p_value(const float* values, uint32_t n, float value) {
  const auto at_least = static_cast<double>(values + n - std::lower_bound(values, values + n, value));
  return (1.0 + at_least) / (double{1} + n);
}

}  // namespace

double Calibration::p_value(float score) const { return conformal_p_value(scores, n, score); }

double Calibration::map_p_value(float peak) const { return conformal_p_value(map_maxima, n, peak); }

std::vector<uint8_t> write_config(const Config& config) {
  ConfigRecord record{};
  record.record_bytes = sizeof record;
  record.scorer = record.color = record.resize = record.neighbors = record.image_score = record.graph_format = 1;
  record.input_height = config.preprocessing.height;
  record.input_width = config.preprocessing.width;
  std::memcpy(record.mean, config.preprocessing.mean, sizeof record.mean);
  std::memcpy(record.std, config.preprocessing.std, sizeof record.std);
  record.grid_height = config.grid_height;
  record.grid_width = config.grid_width;
  record.embedding_dim = config.embedding_dim;
  record.blur_sigma = config.blur_sigma;
  const Tiling& tiling = config.tiling;
  if (tiling.rows != 1 || tiling.columns != 1 || (tiling.overlap_rows | tiling.overlap_columns) != 0) {
    record.tile_rows = tiling.rows;
    record.tile_columns = tiling.columns;
    record.overlap_rows = tiling.overlap_rows;
    record.overlap_columns = tiling.overlap_columns;
  }
  check_config(record, Fields("config"));
  const auto* bytes = reinterpret_cast<const uint8_t*>(&record);
  return {bytes, bytes + sizeof record};
}

Config read_config(const Package& package) {
  const MemberView& member = package.require("config");
  const Fields fields(package, "config");
  const auto record = first_record<ConfigRecord>(member, fields);
  fields.record_size(record.record_bytes, sizeof record, UINT32_MAX);
  fields.equal("record_bytes", uint64_t{record.record_bytes}, member.size_bytes);
  check_config(record, fields);
  Config config = geometry_of(record);
  std::memcpy(config.preprocessing.mean, record.mean, sizeof record.mean);
  std::memcpy(config.preprocessing.std, record.std, sizeof record.std);
  config.blur_sigma = record.blur_sigma;
  return config;
}

std::vector<uint8_t> write_calibration(bool calibrated, double false_alarm_rate, float threshold, float map_threshold,
                                       std::vector<float> scores, std::vector<float> map_maxima, uint32_t image_count,
                                       const Promise& promise) {
  const Fields fields("calibration");
  fields.equal("map_maxima count", uint64_t{map_maxima.size()}, uint64_t{scores.size()});
  fields.within("score_count", uint64_t{scores.size()}, uint64_t{0}, uint64_t{UINT32_MAX});
  fields.finite("scores", scores.data(), scores.size());  // before sorting, which a NaN would confuse
  fields.finite("map_maxima", map_maxima.data(), map_maxima.size());
  std::sort(scores.begin(), scores.end());
  std::sort(map_maxima.begin(), map_maxima.end());
  CalibrationRecord record{};
  record.record_bytes = sizeof record;
  record.state = !calibrated ? kUncalibrated : promise.cross_conformal ? kCrossConformal : kSplitConformal;
  record.confidence = calibrated ? promise.confidence : 0;
  record.false_alarm_rate = calibrated ? false_alarm_rate : 0;
  record.threshold = calibrated ? threshold : static_cast<float>(kInfinity);
  record.map_threshold = calibrated ? map_threshold : static_cast<float>(kInfinity);
  record.score_count = static_cast<uint32_t>(scores.size());
  record.image_count = image_count;
  check_calibration(record, scores.data(), map_maxima.data(), fields);
  std::vector<uint8_t> out(sizeof record + 2 * scores.size() * sizeof(float));
  std::memcpy(out.data(), &record, sizeof record);
  if (!scores.empty()) {
    std::memcpy(out.data() + sizeof record, scores.data(), scores.size() * sizeof(float));
    std::memcpy(out.data() + sizeof record + scores.size() * sizeof(float), map_maxima.data(),
                scores.size() * sizeof(float));
  }
  return out;
}

Calibration read_calibration(const Package& package, uint32_t product) {
  const std::string name = member_name("calibration", product);
  const MemberView& member = package.require(name);
  const Fields fields(package, name.c_str());
  const auto record = first_record<CalibrationRecord>(member, fields);
  fields.record_size(record.record_bytes, sizeof record, UINT32_MAX);
  const uint64_t values = 2 * uint64_t{record.score_count} * sizeof(float);  // at most 2^35
  if (record.record_bytes % 4 != 0 || record.record_bytes + values != member.size_bytes) {
    fields.refuse("record_bytes, score_count",
                  std::to_string(record.record_bytes) + ", " + std::to_string(record.score_count),
                  "record_bytes + 8 * score_count = " + std::to_string(member.size_bytes));
  }
  const auto* scores = reinterpret_cast<const float*>(member.data + record.record_bytes);
  check_calibration(record, scores, scores + record.score_count, fields);
  Calibration calibration;
  calibration.calibrated = record.state != kUncalibrated;
  calibration.cross_conformal = record.state == kCrossConformal;
  calibration.confidence = record.confidence;
  calibration.false_alarm_rate = record.false_alarm_rate;
  calibration.threshold = record.threshold;
  calibration.map_threshold = record.map_threshold;
  calibration.scores = scores;
  calibration.map_maxima = scores + record.score_count;
  calibration.n = record.score_count;
  calibration.image_count = record.image_count;
  return calibration;
}

std::vector<uint8_t> write_parity(const Parity& parity, const Config& config) {
  const Fields fields("parity");
  ParityHeader header{};
  header.record_bytes = sizeof(ParityRecord);
  header.image_count = static_cast<uint32_t>(std::min<size_t>(parity.images.size(), UINT32_MAX));
  header.relative_tolerance = parity.relative_tolerance;
  header.map_step = parity.map_step;
  check_parity_header(header, fields);
  std::vector<uint8_t> out(sizeof header + parity.images.size() * sizeof(ParityRecord));
  std::memcpy(out.data(), &header, sizeof header);
  for (size_t i = 0; i < parity.images.size(); ++i) {
    const ParityImage& image = parity.images[i];
    check_image(image.image);
    fields.within("verdict", image.verdict, 0u, 2u);
    fields.finite("score", &image.score, 1);
    fields.finite("patch_scores", image.patch_scores, config.cell_count());
    fields.finite("map", image.map, map_floats(config, parity.map_step));
    ParityRecord record{};
    record.height = static_cast<uint32_t>(image.image.height);
    record.width = static_cast<uint32_t>(image.image.width);
    record.pixel_format = static_cast<uint32_t>(image.image.format);
    record.score = image.score;
    record.verdict = image.verdict;
    const size_t row_bytes = image.image.width * pixel_bytes(image.image.format);
    std::vector<uint8_t> pixels(image.image.height * row_bytes);
    for (size_t y = 0; y < image.image.height; ++y) {
      std::memcpy(pixels.data() + y * row_bytes,
                  image.image.data + static_cast<ptrdiff_t>(y) * image.image.stride_bytes, row_bytes);
    }
    record.pixels_bytes = pixels.size();
    record.pixels_offset = append(out, pixels.data(), pixels.size());
    record.patch_scores_offset = append(out, image.patch_scores, config.cell_count());
    record.map_offset = append(out, image.map, map_floats(config, parity.map_step));
    std::memcpy(out.data() + sizeof header + i * sizeof record, &record, sizeof record);
  }
  return out;
}

Parity read_parity(const Package& package, const Config& config, uint32_t product) {
  const std::string name = member_name("parity", product);
  const MemberView& member = package.require(name);
  const Fields fields(package, name.c_str());
  const auto header = first_record<ParityHeader>(member, fields);
  check_parity_header(header, fields);
  fields.record_size(header.record_bytes, sizeof(ParityRecord), kMaxEntryBytes);
  const uint64_t records_end = sizeof header + uint64_t{header.image_count} * header.record_bytes;
  fields.within("size in bytes", member.size_bytes, records_end, UINT64_MAX);
  const ParityShape shape{config.cell_count(), map_floats(config, header.map_step), records_end};
  Parity parity;
  parity.relative_tolerance = header.relative_tolerance;
  parity.map_step = header.map_step;
  parity.images.reserve(header.image_count);
  for (uint32_t i = 0; i < header.image_count; ++i) {
    ParityRecord record;
    std::memcpy(&record, member.data + sizeof header + uint64_t{i} * header.record_bytes, sizeof record);
    parity.images.push_back(read_parity_image(member, record, shape, fields));
  }
  return parity;
}

Roi read_roi(const Package& package, uint32_t product) {
  const std::string name = member_name("roi", product);
  const MemberView* member = package.find(name);
  if (member == nullptr) return {};
  const auto* cells = member->as<uint8_t>(2);
  try {
    return Roi({cells, static_cast<size_t>(member->dimensions[0]), static_cast<size_t>(member->dimensions[1])});
  } catch (const Error& error) {  // a user's input there, a damaged package here
    fail(Status::kPackage, "%s: member '%s': %s; fit again", package.label().c_str(), name.c_str(), error.what());
  }
}

const float* read_position_weights(const Package& package, const Config& config, uint32_t product) {
  const std::string name = member_name("position_weights", product);
  const MemberView* member = package.find(name);
  if (member == nullptr) return nullptr;
  const auto* weights = member->as<float>(2);
  const TileGrid cells = config.tiles();
  if (member->dimensions[0] != cells.height() || member->dimensions[1] != cells.width()) {
    fail(Status::kPackage, "%s: member '%s' is %llu x %llu, the patch grid is %zu x %zu; fit again",
         package.label().c_str(), name.c_str(), static_cast<unsigned long long>(member->dimensions[0]),
         static_cast<unsigned long long>(member->dimensions[1]), cells.height(), cells.width());
  }
  for (size_t cell = 0; cell < config.cell_count(); ++cell) {
    if (std::isfinite(weights[cell]) && weights[cell] > 0) continue;
    fail(Status::kPackage, "%s: member '%s' holds %g for cell %zu, expected a finite weight above 0; fit again",
         package.label().c_str(), name.c_str(), double{weights[cell]}, cell);
  }
  return weights;
}

}  // namespace onceover
