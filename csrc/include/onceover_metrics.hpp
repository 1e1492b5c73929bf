// onceover_metrics.h for C++17: a handle that frees itself, vectors, and MetricsError where a call fails; what is said
// there holds here. Header only, over the C ABI: its user's compiler need not be the library's.
//
//   onceover::SegmentationAccumulator metrics;
//   metrics.update(onceover::PixelView(scores, height, width), onceover::PixelView(mask, height, width));
//   metrics.update(onceover::PixelView(scores_of_a_good_image, height, width));
//   const double aupro = metrics.compute({0.3}).aupro[0].value;
#pragma once

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "onceover_metrics.h"

namespace onceover {

class MetricsError : public std::runtime_error {
 public:
  MetricsError(onceover_status status, const std::string& message) : std::runtime_error(message), status_(status) {}
  onceover_status status() const noexcept { return status_; }
  static void check(onceover_status status) {
    if (status != ONCEOVER_OK) throw MetricsError(status, onceover_last_error());
  }

 private:
  onceover_status status_;
};

// An IEEE 754 binary16.
struct HalfScore {
  uint16_t bits;
};

// Somebody else's map of (height, width) scores, or mask of as many uint8_t.
template <typename Pixel>
struct PixelView {
  PixelView() = default;
  PixelView(const Pixel* pixels, size_t rows, size_t columns, ptrdiff_t stride)
      : data(pixels), height(rows), width(columns), stride_bytes(stride) {}
  PixelView(const Pixel* pixels, size_t rows, size_t columns)
      : PixelView(pixels, rows, columns, static_cast<ptrdiff_t>(columns * sizeof(Pixel))) {}
  PixelView(const std::vector<Pixel>& pixels, size_t rows, size_t columns) : PixelView(pixels.data(), rows, columns) {
    if (columns == 0 ? !pixels.empty() : pixels.size() / columns != rows || pixels.size() % columns != 0) {
      throw MetricsError(ONCEOVER_USAGE, std::to_string(pixels.size()) + " pixels are not " + text());
    }
  }
  std::string text() const { return std::to_string(height) + " x " + std::to_string(width); }

  const Pixel* data = nullptr;
  size_t height = 0, width = 0;
  ptrdiff_t stride_bytes = 0;  // negative where rows are stored from the last to the first
};

struct SegmentationSummary : onceover_segmentation_result {
  std::vector<onceover_metric> aupro, auspro;  // for each limit
};

struct SegmentationVertices {
  std::vector<float> thresholds;
  std::vector<double> fpr, pro, spro, tpr, precision;
};

class SegmentationAccumulator {
 public:
  using Mask = PixelView<uint8_t>;

  explicit SegmentationAccumulator(int32_t connectivity = 8, size_t page_budget_bytes = 0) {
    onceover_segmentation_options options = {};
    options.struct_size = sizeof options;
    options.connectivity = connectivity;
    options.page_budget_bytes = page_budget_bytes;
    onceover_segmentation_metrics* created = nullptr;
    MetricsError::check(onceover_segmentation_metrics_create(&options, &created));
    handle_.reset(created);
  }

  static SegmentationAccumulator load(const std::vector<uint8_t>& bytes) {
    onceover_segmentation_metrics* loaded = nullptr;
    MetricsError::check(onceover_segmentation_metrics_load(bytes.data(), bytes.size(), &loaded));
    return SegmentationAccumulator(loaded);
  }

  std::vector<uint8_t> save() {
    size_t size = 0;
    MetricsError::check(onceover_segmentation_metrics_save(handle_.get(), nullptr, 0, &size));
    std::vector<uint8_t> bytes(size);
    MetricsError::check(onceover_segmentation_metrics_save(handle_.get(), bytes.data(), size, &size));
    return bytes;
  }

  // Scores: float, HalfScore, uint8_t or uint16_t. No mask: a good image.
  template <typename Score>
  void update(const PixelView<Score>& map, const Mask& mask = {}, int32_t group = 0) {
    if (mask.data != nullptr) check_mask(mask, map.height, map.width);
    MetricsError::check(onceover_segmentation_metrics_update(handle_.get(), map.data, map.stride_bytes, type_of(map),
                                                             mask.data, mask.stride_bytes, map.height, map.width,
                                                             group));
  }

  // A mask for each channel, all of one stride.
  template <typename Score>
  void update_channels(const PixelView<Score>& map, const std::vector<Mask>& channels,
                       const std::vector<uint32_t>& saturation_areas, int32_t group = 0) {
    if (channels.size() != saturation_areas.size()) {
      throw MetricsError(ONCEOVER_USAGE, std::to_string(channels.size()) + " channels and " +
                                             std::to_string(saturation_areas.size()) + " saturation areas");
    }
    std::vector<const uint8_t*> masks;
    for (const Mask& channel : channels) {
      check_mask(channel, map.height, map.width);
      if (channel.stride_bytes != channels[0].stride_bytes) throw MetricsError(ONCEOVER_USAGE, "channels: two strides");
      masks.push_back(channel.data);
    }
    MetricsError::check(onceover_segmentation_metrics_update_channels(
        handle_.get(), map.data, map.stride_bytes, type_of(map), masks.data(),
        channels.empty() ? 0 : channels[0].stride_bytes, saturation_areas.data(), channels.size(), map.height,
        map.width, group));
  }

  SegmentationAccumulator& operator+=(const SegmentationAccumulator& other) {
    MetricsError::check(onceover_segmentation_metrics_merge(handle_.get(), other.handle_.get()));
    return *this;
  }

  SegmentationSummary compute(const std::vector<double>& limits = {0.3}, int32_t group = ONCEOVER_ALL_GROUPS) {
    SegmentationSummary summary = {};
    summary.struct_size = sizeof(onceover_segmentation_result);
    summary.aupro.resize(limits.size());
    summary.auspro.resize(limits.size());
    MetricsError::check(onceover_segmentation_metrics_compute(handle_.get(), limits.data(), limits.size(), group,
                                                              summary.aupro.data(), summary.auspro.data(), &summary));
    return summary;
  }

  SegmentationVertices curve(int32_t group = ONCEOVER_ALL_GROUPS) {
    size_t count = 0;
    MetricsError::check(onceover_segmentation_metrics_curve(handle_.get(), group, 0, &count, nullptr, nullptr, nullptr,
                                                            nullptr, nullptr, nullptr));
    SegmentationVertices curve;
    curve.thresholds.resize(count);
    for (auto* each : {&curve.fpr, &curve.pro, &curve.spro, &curve.tpr, &curve.precision}) each->resize(count);
    MetricsError::check(onceover_segmentation_metrics_curve(
        handle_.get(), group, count, &count, curve.thresholds.data(), curve.fpr.data(), curve.pro.data(),
        curve.spro.data(), curve.tpr.data(), curve.precision.data()));
    return curve;
  }

 private:
  struct Free {
    void operator()(onceover_segmentation_metrics* metrics) const { onceover_segmentation_metrics_free(metrics); }
  };

  explicit SegmentationAccumulator(onceover_segmentation_metrics* owned) : handle_(owned) {}

  static onceover_score_type type_of(const PixelView<float>&) { return ONCEOVER_FLOAT32; }
  static onceover_score_type type_of(const PixelView<HalfScore>&) { return ONCEOVER_FLOAT16; }
  static onceover_score_type type_of(const PixelView<uint8_t>&) { return ONCEOVER_UINT8; }
  static onceover_score_type type_of(const PixelView<uint16_t>&) { return ONCEOVER_UINT16; }

  static void check_mask(const Mask& mask, size_t height, size_t width) {
    if (mask.height == height && mask.width == width) return;
    throw MetricsError(ONCEOVER_INPUT, "a mask is " + mask.text() + ", its map " + std::to_string(height) + " x " +
                                           std::to_string(width) + "; neither is resized here");
  }

  std::unique_ptr<onceover_segmentation_metrics, Free> handle_;
};

struct MaskComponents {
  std::vector<onceover_run> runs;
  std::vector<uint32_t> areas;      // of each region
  std::vector<onceover_box> boxes;  // of each region
};

inline MaskComponents connected_components(const PixelView<uint8_t>& mask, int32_t connectivity = 8) {
  MaskComponents found;
  size_t runs = 0, regions = 0;
  const auto call = [&] {
    MetricsError::check(onceover_connected_components(mask.data, mask.stride_bytes, mask.height, mask.width,
                                                      connectivity, runs, &runs, found.runs.data(), regions, &regions,
                                                      found.areas.data(), found.boxes.data()));
  };
  call();  // asks for the numbers
  found.runs.resize(runs);
  found.areas.resize(regions);
  found.boxes.resize(regions);
  call();
  return found;
}

}  // namespace onceover
