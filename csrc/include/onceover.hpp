// onceover.h for C++11 and later: handles that free themselves, and StatusError where a call fails; what is said there
// holds here. Header only, over the C ABI: its user's compiler need not be the library's, and no name is one that the
// library has inside, so that the static library fits, too. Beside it: onceover_corrections.hpp, onceover_monitor.hpp.
//
//   onceover::InspectionOptions options("onnxruntime", "/opt/onnxruntime/lib/libonnxruntime.so.1");
//   options.other.max_map_width = 640;  // of the maps whose regions are asked for
//   onceover::InspectionSession session(onceover::PackageFile::open("part.onceover"), options);
//   const onceover_result result = session.run(onceover::image(ONCEOVER_BGR8, frame.data, 480, 640));
//   if (result.verdict == ONCEOVER_ANOMALOUS) { … session.map(480, 640) … }
#pragma once

#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "onceover.h"

namespace onceover {

class StatusError : public std::runtime_error {
 public:
  StatusError(onceover_status status, const std::string& message) : std::runtime_error(message), status_(status) {}
  onceover_status status() const noexcept { return status_; }
  static void check(onceover_status status) {
    if (status != ONCEOVER_OK) throw StatusError(status, onceover_last_error());
  }

 private:
  onceover_status status_;
};

// A struct of the C ABI that knows its size, all else zero.
template <typename Struct>
Struct sized() {
  Struct made;
  std::memset(&made, 0, sizeof made);
  made.struct_size = sizeof made;
  return made;
}

// Somebody else's pixels, row by row; stride 0: rows without gaps. For NV12 set chroma, its stride and yuv_matrix.
inline onceover_image image(onceover_pixel_format format, const void* data, uint32_t height, uint32_t width,
                            ptrdiff_t stride_bytes = 0) {
  static const uint8_t kPixelBytes[] = {0, 1, 3, 3, 4, 4, 2, 6, 6, 8, 8, 1};
  onceover_image made = sized<onceover_image>();
  made.format = format;
  made.data = data;
  made.height = height;
  made.width = width;
  const size_t pixel = static_cast<size_t>(format) < sizeof kPixelBytes ? kPixelBytes[format] : 0;
  made.stride_bytes = stride_bytes != 0 ? stride_bytes : static_cast<ptrdiff_t>(width * pixel);
  return made;
}

class PackageFile {
 public:
  static PackageFile open(const std::string& path, bool copy = false) {
    onceover_package_options options = sized<onceover_package_options>();
    options.copy = copy ? 1 : 0;
    onceover_package* opened = nullptr;
    StatusError::check(onceover_package_open(path.c_str(), &options, &opened));
    return PackageFile(opened);
  }
  // Of bytes that stay where they are as long as the package and its sessions live.
  static PackageFile view(const void* data, size_t bytes) {
    onceover_package* opened = nullptr;
    StatusError::check(onceover_package_view(data, bytes, &opened));
    return PackageFile(opened);
  }

  onceover_package_info info() const {
    onceover_package_info told = sized<onceover_package_info>();
    StatusError::check(onceover_package_describe(get(), &told));
    return told;
  }
  onceover_product_info product(uint32_t number) const {
    onceover_product_info told = sized<onceover_product_info>();
    StatusError::check(onceover_package_product(get(), number, &told));
    return told;
  }
  void verify() const { StatusError::check(onceover_package_verify(get())); }
  // A member's bytes, which are the package's; nullptr and 0 when there is none of this name.
  std::pair<const void*, size_t> member(const std::string& name) const {
    std::pair<const void*, size_t> found(nullptr, 0);
    StatusError::check(onceover_package_find_member(get(), name.c_str(), &found.first, &found.second));
    return found;
  }
  const onceover_package* get() const noexcept { return handle_.get(); }

 private:
  explicit PackageFile(onceover_package* handle) : handle_(handle, onceover_package_free) {}
  std::shared_ptr<onceover_package> handle_;
};

// The C struct, with the texts it points to. Without an engine the session takes features, or images for host_run.
struct InspectionOptions {
  InspectionOptions() = default;
  explicit InspectionOptions(std::string engine_name, std::string library = "", uint32_t threads = 1)
      : engine(std::move(engine_name)), engine_library(std::move(library)) {
    other.threads = threads;
  }

  std::string engine, engine_library, device, cache_dir;
  std::vector<std::string> engine_options;  // key, value, key, value, …
  onceover_session_options other = sized<onceover_session_options>();

  // Calls use(options) while the pointers in them are good.
  template <typename Use>
  void pass_to(const Use& use) const {
    onceover_session_options passed = other;
    std::vector<const char*> texts;
    for (const std::string& text : engine_options) texts.push_back(text.c_str());
    texts.push_back(nullptr);
    passed.engine = pointer(engine);
    passed.engine_library = pointer(engine_library);
    passed.device = pointer(device);
    passed.cache_dir = pointer(cache_dir);
    passed.engine_options = texts.data();
    StatusError::check(use(passed));
  }

 private:
  static const char* pointer(const std::string& text) { return text.empty() ? nullptr : text.c_str(); }
};

inline size_t session_memory(const PackageFile& package, const InspectionOptions& options) {
  size_t bytes = 0;
  options.pass_to([&](const onceover_session_options& passed) {
    return onceover_session_query_memory(package.get(), &passed, &bytes);
  });
  return bytes;
}

class InspectionSession {
 public:
  explicit InspectionSession(const PackageFile& package, const InspectionOptions& options = InspectionOptions()) {
    onceover_session* created = nullptr;
    options.pass_to([&](const onceover_session_options& passed) {
      return onceover_session_create(package.get(), &passed, &created);
    });
    handle_.reset(created);
  }

  onceover_result run(const onceover_image& seen) {
    onceover_result result = sized<onceover_result>();
    StatusError::check(onceover_session_run(get(), &seen, &result));
    return result;
  }
  // The two halves around a network that runs elsewhere; input: of all tiles, input_floats values.
  void prepare(const onceover_image& seen, float* input, size_t input_floats) {
    StatusError::check(onceover_session_prepare(get(), &seen, input, input_floats));
  }
  onceover_result run_features(const float* features, size_t patches, size_t dims) {
    return run_features(features, patches, dims, dims);
  }
  onceover_result run_features(const float* features, size_t patches, size_t dims, size_t stride_floats) {
    onceover_result result = sized<onceover_result>();
    StatusError::check(onceover_session_run_features(get(), features, patches, dims, stride_floats, &result));
    return result;
  }
  // The session's, (score_height, score_width) each, until the next run: patch scores, nearest memory bank rows.
  std::pair<const float*, const uint32_t*> patches() {
    std::pair<const float*, const uint32_t*> told(nullptr, nullptr);
    StatusError::check(onceover_session_patches(get(), &told.first, &told.second));
    return told;
  }
  std::vector<float> map(size_t height, size_t width) {
    std::vector<float> drawn(height * width);
    draw_map(drawn.data(), height, width);
    return drawn;
  }
  // Into memory that is there; stride 0: rows without gaps.
  void draw_map(float* map, size_t height, size_t width, size_t stride_floats = 0) {
    StatusError::check(
        onceover_session_draw_map(get(), map, height, width, stride_floats == 0 ? width : stride_floats));
  }
  // Of a map that map() gave, the `most` with the largest peaks.
  std::vector<onceover_region> regions(const std::vector<float>& map, size_t height, size_t width, size_t most = 64) {
    if (map.size() != height * width) throw StatusError(ONCEOVER_USAGE, "the map has another size than height x width");
    std::vector<onceover_region> found(most);
    size_t count = 0;
    StatusError::check(
        onceover_session_find_regions(get(), map.data(), height, width, width, found.data(), most, &count));
    found.resize(count < most ? count : most);
    return found;
  }
  // The outline of one of them, of the same map.
  std::vector<onceover_point> contour(const std::vector<float>& map, size_t height, size_t width,
                                      const onceover_region& region) {
    if (map.size() != height * width) throw StatusError(ONCEOVER_USAGE, "the map has another size than height x width");
    std::vector<onceover_point> points(2 * (region.bottom - region.top) + 2 * (region.right - region.left));
    size_t count = 0;
    const auto trace = [&] {
      StatusError::check(onceover_session_trace_contour(get(), map.data(), height, width, width, &region, points.data(),
                                                        points.size(), &count));
    };
    trace();
    const bool longer = count > points.size();  // than most outlines, which are near their box's
    points.resize(count);
    if (longer) trace();
    return points;
  }
  double p_value(const onceover_region& region) {
    double value = 1;
    StatusError::check(onceover_session_region_p_value(get(), region.peak_value, &value));
    return value;
  }
  void select_product(uint32_t product) { StatusError::check(onceover_session_select_product(get(), product)); }
  void set_threshold(float threshold) { StatusError::check(onceover_session_set_threshold(get(), threshold)); }
  void set_map_threshold(float threshold) { StatusError::check(onceover_session_set_map_threshold(get(), threshold)); }
  uint32_t self_test() {  // → how many images were compared
    uint32_t images = 0;
    StatusError::check(onceover_session_self_test(get(), &images, nullptr));
    return images;
  }
  onceover_session_info info() {
    onceover_session_info told = sized<onceover_session_info>();
    StatusError::check(onceover_session_describe(get(), &told));
    return told;
  }
  onceover_session* get() noexcept { return handle_.get(); }

 private:
  struct Free {
    void operator()(onceover_session* session) const { onceover_session_free(session); }
  };
  std::unique_ptr<onceover_session, Free> handle_;
};

}  // namespace onceover
