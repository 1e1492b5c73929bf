// Sessions in C: session/session.h behind onceover.h.
#include "c_api/session.h"

#include <cmath>
#include <cstddef>

#include "base/turn.h"
#include "c_api/image.h"
#include "c_api/package.h"

namespace onceover {

template <>
inline constexpr size_t kFirstSize<onceover_session_info> =
    offsetof(onceover_session_info, map_threshold) + sizeof(float);
template <>
inline constexpr size_t kFirstSize<onceover_result> = offsetof(onceover_result, map_ns) + sizeof(uint64_t);

static_assert(ONCEOVER_NO_VERDICT == static_cast<int>(Decision::kUncalibrated) &&
              ONCEOVER_NORMAL == static_cast<int>(Decision::kNormal) &&
              ONCEOVER_ANOMALOUS == static_cast<int>(Decision::kAnomalous) &&
              ONCEOVER_WRONG_PART == static_cast<int>(Decision::kWrongPart) && ONCEOVER_AUTOMATIC == kAutomatic);
static_assert(sizeof(onceover_region) == sizeof(MapRegion) && alignof(onceover_region) == alignof(MapRegion) &&
              offsetof(onceover_region, area) == offsetof(MapRegion, area) &&
              offsetof(onceover_region, peak_value) == offsetof(MapRegion, peak_value) &&
              offsetof(onceover_region, first_column) == offsetof(MapRegion, first_column));
static_assert(sizeof(onceover_point) == sizeof(ContourPoint) && alignof(onceover_point) == alignof(ContourPoint) &&
              offsetof(onceover_point, column) == offsetof(ContourPoint, column));

namespace {

onceover_result result_of(const Session& session, const Result& got) noexcept {
  onceover_result told = {};
  told.verdict = static_cast<uint32_t>(got.decision);
  told.score = got.score;
  told.threshold = got.threshold;
  told.p_value = got.p_value;
  told.map_maximum = got.map_maximum;
  const auto columns = static_cast<uint32_t>(session.config().tiles().width());
  told.patch_row = got.worst_patch / columns;
  told.patch_column = got.worst_patch % columns;
  told.nearest_row = got.nearest_row;
  told.prepare_ns = got.timing.prepare_ns;
  told.engine_ns = got.timing.engine_ns;
  told.score_ns = got.timing.score_ns;
  told.map_ns = got.timing.map_ns;
  told.product = got.product;
  told.gate_ratio = got.gate_ratio;
  return told;
}

// A run: whatever fails from here on, no verdict of an earlier image is left in the result.
template <typename Run>
onceover_status run_into(const char* function, onceover_session* session, onceover_result* result,
                         const Run& run) noexcept {
  return guarded(function, [&] {
    check_struct_size(*required(result, "result"), "result");
    write_struct(onceover_result{}, *result);
    const Turn turn(required(session, "session")->busy, "session");
    write_struct(result_of(session->session, run(session->session)), *result);
  });
}

template <typename T>
MatrixView<T> view_map(T* map, size_t height, size_t width, size_t stride_floats) {
  if (height < 1 || width < 1 || height > kMaxImageSide || width > kMaxImageSide) {
    fail(Status::kUsage, "map is %zu x %zu (height x width), expected sides of 1 to %zu", height, width, kMaxImageSide);
  }
  if (stride_floats < width) {
    fail(Status::kUsage, "stride_floats is %zu, expected at least the %zu values of a row", stride_floats, width);
  }
  return {required(map, "map"), height, width, stride_floats};
}

}  // namespace
}  // namespace onceover

using namespace onceover;

onceover_status onceover_session_query_memory(const onceover_package* package, const onceover_session_options* options,
                                              size_t* bytes) {
  return guarded(__func__, [&] {
    required(package, "package");
    required(bytes, "bytes");
    onceover_session_options given = read_session_options(options);
    given.engine = given.engine_library = given.device = given.cache_dir = nullptr;
    given.engine_options = nullptr;
    given.arena = nullptr;
    given.allocate = nullptr;
    given.memory_limit_bytes = 0;
    given.touch_pages = 0;
    Arena none(nullptr, 0);
    const Session session(package->package, session_options(given, none));
    *bytes = session.peak_memory_bytes() + kAlignment;  // an arena may begin anywhere
  });
}

onceover_status onceover_session_create(const onceover_package* package, const onceover_session_options* options,
                                        onceover_session** session) {
  return guarded(__func__, [&] {
    *required(session, "session") = nullptr;
    const onceover_session_options given = read_session_options(options);
    *session = new onceover_session(*required(package, "package"), given);
  });
}

onceover_status onceover_session_describe(onceover_session* session, onceover_session_info* info) {
  return with_session(__func__, session, [&](const Session& own) {
    check_struct_size(*required(info, "info"), "info");
    onceover_session_info told = {};
    told.threads = static_cast<uint32_t>(own.threads());
    told.memory_bytes = own.memory_bytes();
    told.engine_version = session->engine_version.c_str();
    told.isa = own.isa();
    told.threshold = own.threshold();
    told.map_threshold = own.map_threshold();
    write_struct(told, *info);
  });
}

void onceover_session_free(onceover_session* session) { delete session; }

onceover_status onceover_session_run(onceover_session* session, const onceover_image* image, onceover_result* result) {
  return run_into(__func__, session, result,
                  [&](Session& own) -> const Result& { return own.run(view_image(*required(image, "image"))); });
}

onceover_status onceover_session_prepare(onceover_session* session, const onceover_image* image, float* input,
                                         size_t input_floats) {
  return with_session(__func__, session, [&](Session& own) {
    const Preprocessing& wanted = own.config().preprocessing;
    const size_t needed = own.config().tiling.count() * 3 * wanted.height * wanted.width;
    if (input_floats != needed) {
      fail(Status::kUsage, "input_floats is %zu, the network input of all tiles has %zu", input_floats, needed);
    }
    own.prepare(view_image(*required(image, "image")), required(input, "input"));
  });
}

onceover_status onceover_session_run_features(onceover_session* session, const float* features, size_t patches,
                                              size_t dims, size_t stride_floats, onceover_result* result) {
  return run_into(__func__, session, result, [&](Session& own) -> const Result& {
    if (stride_floats < dims) {
      fail(Status::kUsage, "stride_floats is %zu, expected at least the %zu values of a row", stride_floats, dims);
    }
    return own.run_features({required(features, "features"), patches, dims, stride_floats});
  });
}

onceover_status onceover_session_draw_map(onceover_session* session, float* map, size_t height, size_t width,
                                          size_t stride_floats) {
  return with_session(__func__, session,
                      [&](Session& own) { own.draw_map(view_map(map, height, width, stride_floats)); });
}

onceover_status onceover_session_find_regions(onceover_session* session, const float* map, size_t height, size_t width,
                                              size_t stride_floats, onceover_region* regions, size_t capacity,
                                              size_t* count) {
  return with_session(__func__, session, [&](Session& own) {
    required(count, "count");
    auto* to = reinterpret_cast<MapRegion*>(required_array(regions, capacity, "regions"));  // the same members
    *count = own.find_regions(view_map(map, height, width, stride_floats), to, capacity);
  });
}

onceover_status onceover_session_trace_contour(onceover_session* session, const float* map, size_t height, size_t width,
                                               size_t stride_floats, const onceover_region* region,
                                               onceover_point* points, size_t capacity, size_t* count) {
  return with_session(__func__, session, [&](const Session& own) {
    required(count, "count");
    const auto& of = *reinterpret_cast<const MapRegion*>(required(region, "region"));  // the same members
    auto* to = reinterpret_cast<ContourPoint*>(required_array(points, capacity, "points"));
    *count = own.trace_contour(view_map(map, height, width, stride_floats), of, to, capacity);
  });
}

onceover_status onceover_session_region_p_value(onceover_session* session, float peak_value, double* p_value) {
  return with_session(__func__, session, [&](const Session& own) {
    required(p_value, "p_value");
    if (std::isnan(peak_value)) fail(Status::kUsage, "peak_value is not a number; give the peak_value of a region");
    *p_value = own.calibration().map_p_value(peak_value);
  });
}

onceover_status onceover_session_patches(onceover_session* session, const float** scores,
                                         const uint32_t** nearest_rows) {
  return with_session(__func__, session, [&](const Session& own) {
    required(scores, "scores");
    required(nearest_rows, "nearest_rows");
    *scores = own.patch_scores();
    *nearest_rows = own.nearest_rows();
  });
}

onceover_status onceover_session_select_product(onceover_session* session, uint32_t product) {
  return with_session(__func__, session, [&](Session& own) { own.select(product); });
}

onceover_status onceover_session_set_threshold(onceover_session* session, float threshold) {
  return with_session(__func__, session, [&](Session& own) { own.set_threshold(threshold); });
}

onceover_status onceover_session_set_map_threshold(onceover_session* session, float map_threshold) {
  return with_session(__func__, session, [&](Session& own) { own.set_map_threshold(map_threshold); });
}

onceover_status onceover_session_self_test(onceover_session* session, uint32_t* images, double* largest_difference) {
  return with_session(__func__, session, [&](Session& own) {
    const Session::SelfTest report = own.self_test();
    if (images != nullptr) *images = report.images;
    if (largest_difference != nullptr) {
      *largest_difference = std::max(report.largest_relative_difference, report.largest_map_difference);
    }
  });
}
