// The exact pixel metrics in C: metrics/compute.h, state_file.h and regions.h behind onceover_metrics.h.
#include <algorithm>
#include <cstddef>

#include "c_api/guard.h"
#include "kernels/dispatch.h"
#include "metrics/compute.h"
#include "metrics/state_file.h"
#include "onceover_metrics.h"

struct onceover_segmentation_metrics final {
  onceover::SegmentationState state;
};

namespace onceover {

template <>
inline constexpr size_t kFirstSize<onceover_segmentation_options> =
    offsetof(onceover_segmentation_options, page_budget_bytes) + sizeof(size_t);
template <>
inline constexpr size_t kFirstSize<onceover_segmentation_result> =
    offsetof(onceover_segmentation_result, state_bytes) + sizeof(size_t);

namespace {

static_assert(ONCEOVER_ALL_GROUPS == kAllGroups);

constexpr int kDefaultConnectivity = 8;

int connectivity_of(int32_t given) { return given == 0 ? kDefaultConnectivity : given; }

size_t group_of(int32_t group) {
  if (group < 0) fail(Status::kUsage, "group is %d, expected 0 to %zu", group, SegmentationState::kMaxGroups - 1);
  return static_cast<size_t>(group);
}

size_t score_bytes(ScoreType type) {
  return type == ScoreType::kFloat32 ? sizeof(float) : type == ScoreType::kUint8 ? sizeof(uint8_t) : sizeof(uint16_t);
}

ScoreType score_type_of(int32_t type) {
  switch (type) {
    case ONCEOVER_FLOAT32:
      return ScoreType::kFloat32;
    case ONCEOVER_FLOAT16:
      return ScoreType::kFloat16;
    case ONCEOVER_UINT8:
      return ScoreType::kUint8;
    case ONCEOVER_UINT16:
      return ScoreType::kUint16;
    default:
      fail(Status::kUsage, "score_type is %d, expected 0 to %d", type, ONCEOVER_UINT16);
  }
}

// Rows that overlap are a stride in the wrong unit.
void check_stride(ptrdiff_t stride, size_t height, size_t width, size_t pixel_bytes, const char* name) {
  const size_t magnitude = stride < 0 ? size_t{0} - static_cast<size_t>(stride) : static_cast<size_t>(stride);
  if (height > 1 && magnitude / pixel_bytes < width) {
    fail(Status::kUsage, "%s is %td, expected at least the %zu pixels of a row of %zu bytes each, or as much below 0",
         name, stride, width, pixel_bytes);
  }
}

ScoreView view_scores(const void* map, ptrdiff_t stride, int32_t type, size_t height, size_t width) {
  const ScoreView view = {required(map, "map"), score_type_of(type), height, width, stride};
  const size_t bytes = score_bytes(view.type);
  check_stride(stride, height, width, bytes, "map_stride_bytes");
  const uintptr_t starts = reinterpret_cast<uintptr_t>(map) | (height > 1 ? static_cast<uintptr_t>(stride) : 0);
  if (starts % bytes != 0) {
    fail(Status::kUsage, "map is at %p with a stride of %td bytes, expected multiples of %zu, the size of a score", map,
         stride, bytes);
  }
  return view;
}

MaskView view_mask(const uint8_t* mask, ptrdiff_t stride, size_t height, size_t width, const char* stride_name) {
  check_stride(stride, height, width, 1, stride_name);
  return {mask, height, width, stride};
}

onceover_metric bounded(const SegmentationResult& result, double SegmentationMetrics::* metric) {
  const double value = result.value.*metric;
  return {value, result.certified ? result.lower.*metric : value, result.certified ? result.upper.*metric : value};
}

void write_bounded(const SegmentationResult& result, std::vector<double> SegmentationMetrics::* metrics,
                   onceover_metric* to) {
  const SegmentationMetrics& lower = result.certified ? result.lower : result.value;
  const SegmentationMetrics& upper = result.certified ? result.upper : result.value;
  for (size_t i = 0; i < (result.value.*metrics).size(); ++i) {
    to[i] = {(result.value.*metrics)[i], (lower.*metrics)[i], (upper.*metrics)[i]};
  }
}

void check_capacity(size_t capacity, size_t count, const char* name, const char* what) {
  if (capacity != 0 && capacity < count) {
    fail(Status::kUsage, "%s is %zu, expected at least the %zu %s, or 0 to ask for their number", name, capacity, count,
         what);
  }
}

// To a caller who gave room and wants it.
template <typename T>
void write_array(const std::vector<T>& from, size_t capacity, T* to) {
  if (capacity != 0 && to != nullptr) std::copy(from.begin(), from.end(), to);
}

}  // namespace
}  // namespace onceover

using namespace onceover;

onceover_status onceover_segmentation_metrics_create(const onceover_segmentation_options* options,
                                                     onceover_segmentation_metrics** metrics) {
  return guarded(__func__, [&] {
    *required(metrics, "metrics") = nullptr;
    const onceover_segmentation_options given = read_struct(options, "options");
    *metrics = new onceover_segmentation_metrics{
        SegmentationState(connectivity_of(given.connectivity), given.page_budget_bytes, kernels())};
  });
}

onceover_status onceover_segmentation_metrics_update(onceover_segmentation_metrics* metrics, const void* map,
                                                     ptrdiff_t map_stride_bytes, int32_t score_type,
                                                     const uint8_t* mask, ptrdiff_t mask_stride_bytes, size_t height,
                                                     size_t width, int32_t group) {
  return guarded(__func__, [&] {
    required(metrics, "metrics");
    const ScoreView scores = view_scores(map, map_stride_bytes, score_type, height, width);
    MaskView truth;
    if (mask != nullptr) truth = view_mask(mask, mask_stride_bytes, height, width, "mask_stride_bytes");
    metrics->state.update(scores, truth, group_of(group));
  });
}

onceover_status onceover_segmentation_metrics_update_channels(onceover_segmentation_metrics* metrics, const void* map,
                                                              ptrdiff_t map_stride_bytes, int32_t score_type,
                                                              const uint8_t* const* masks, ptrdiff_t mask_stride_bytes,
                                                              const uint32_t* saturation_areas, size_t channel_count,
                                                              size_t height, size_t width, int32_t group) {
  return guarded(__func__, [&] {
    required(metrics, "metrics");
    const ScoreView scores = view_scores(map, map_stride_bytes, score_type, height, width);
    required_array(masks, channel_count, "masks");
    required_array(saturation_areas, channel_count, "saturation_areas");
    std::vector<MaskView> channels;
    for (size_t i = 0; i < channel_count; ++i) {
      if (masks[i] == nullptr) fail(Status::kUsage, "masks[%zu] of %zu is NULL", i, channel_count);
      channels.push_back(view_mask(masks[i], mask_stride_bytes, height, width, "mask_stride_bytes"));
    }
    metrics->state.update_channels(scores, channels, {saturation_areas, saturation_areas + channel_count},
                                   group_of(group));
  });
}

onceover_status onceover_segmentation_metrics_merge(onceover_segmentation_metrics* metrics,
                                                    const onceover_segmentation_metrics* from) {
  return guarded(__func__, [&] { required(metrics, "metrics")->state.merge(required(from, "from")->state); });
}

onceover_status onceover_segmentation_metrics_compute(onceover_segmentation_metrics* metrics, const double* limits,
                                                      size_t limit_count, int32_t group, onceover_metric* aupro,
                                                      onceover_metric* auspro, onceover_segmentation_result* result) {
  return guarded(__func__, [&] {
    SegmentationState& state = required(metrics, "metrics")->state;
    required_array(limits, limit_count, "limits");
    required_array(aupro, limit_count, "aupro");
    check_struct_size(*required(result, "result"), "result");
    const SegmentationResult found = compute_metrics(state, {limits, limits + limit_count}, group);
    write_bounded(found, &SegmentationMetrics::aupro, aupro);
    if (auspro != nullptr) write_bounded(found, &SegmentationMetrics::auspro, auspro);
    onceover_segmentation_result told = {};
    told.dropped_key_bits = static_cast<uint32_t>(state.dropped_bits());
    told.pixel_auroc = bounded(found, &SegmentationMetrics::pixel_auroc);
    told.average_precision = bounded(found, &SegmentationMetrics::average_precision);
    told.f1_max = bounded(found, &SegmentationMetrics::f1_max);
    told.f1_max_threshold = found.value.f1_max_threshold;
    told.images = state.images();
    told.groups = state.groups().size();
    told.regions = found.regions;
    told.channels = found.channels;
    told.anomalous_pixels = found.anomalous_pixels;
    told.normal_pixels = found.normal_pixels;
    told.state_bytes = state.size_bytes();
    write_struct(told, *result);
  });
}

onceover_status onceover_segmentation_metrics_curve(onceover_segmentation_metrics* metrics, int32_t group,
                                                    size_t capacity, size_t* count, float* thresholds, double* fpr,
                                                    double* pro, double* spro, double* tpr, double* precision) {
  return guarded(__func__, [&] {
    SegmentationState& state = required(metrics, "metrics")->state;
    required(count, "count");
    const SegmentationCurve curve = compute_curve(state, group);
    check_capacity(capacity, curve.fpr.size(), "capacity", "vertices of this curve");
    write_array(curve.thresholds, capacity, thresholds);
    write_array(curve.fpr, capacity, fpr);
    write_array(curve.pro, capacity, pro);
    write_array(curve.spro, capacity, spro);
    write_array(curve.tpr, capacity, tpr);
    write_array(curve.precision, capacity, precision);
    *count = curve.fpr.size();
  });
}

onceover_status onceover_segmentation_metrics_save(onceover_segmentation_metrics* metrics, void* buffer,
                                                   size_t capacity, size_t* size) {
  return guarded(__func__, [&] {
    SegmentationState& state = required(metrics, "metrics")->state;
    required(size, "size");
    const std::vector<uint8_t> bytes = write_state(state);
    check_capacity(buffer == nullptr ? 0 : capacity, bytes.size(), "capacity", "bytes to save");
    write_array(bytes, capacity, static_cast<uint8_t*>(buffer));
    *size = bytes.size();
  });
}

onceover_status onceover_segmentation_metrics_load(const void* bytes, size_t size,
                                                   onceover_segmentation_metrics** metrics) {
  return guarded(__func__, [&] {
    *required(metrics, "metrics") = nullptr;
    const auto* first = static_cast<const uint8_t*>(required_array(bytes, size, "bytes"));
    *metrics = new onceover_segmentation_metrics{read_state(first, size, kernels())};
  });
}

void onceover_segmentation_metrics_free(onceover_segmentation_metrics* metrics) { delete metrics; }

onceover_status onceover_connected_components(const uint8_t* mask, ptrdiff_t stride_bytes, size_t height, size_t width,
                                              int32_t connectivity, size_t run_capacity, size_t* run_count,
                                              onceover_run* runs, size_t region_capacity, size_t* region_count,
                                              uint32_t* areas, onceover_box* boxes) {
  return guarded(__func__, [&] {
    required(run_count, "run_count");
    required(region_count, "region_count");
    if (height > 0) required_array(mask, width, "mask");
    RegionFinder finder(connectivity_of(connectivity), kernels());
    finder.find(view_mask(mask, stride_bytes, height, width, "stride_bytes"));
    check_capacity(run_capacity, finder.runs().size(), "run_capacity", "runs of this mask");
    check_capacity(region_capacity, finder.areas().size(), "region_capacity", "regions of this mask");
    if (run_capacity != 0 && runs != nullptr) {
      for (const Run& run : finder.runs()) *runs++ = {run.row, run.first, run.end, run.region};
    }
    write_array(finder.areas(), region_capacity, areas);
    if (region_capacity != 0 && boxes != nullptr) {
      for (const RegionBox& box : finder.boxes()) *boxes++ = {box.top, box.left, box.bottom, box.right};
    }
    *run_count = finder.runs().size();
    *region_count = finder.areas().size();
  });
}
