// Python doors of csrc/image: resize, prepare, draw_anomaly_map, resize_map, find_regions (python/onceover/_core.pyi).
#include <pybind11/stl.h>

#include <array>
#include <optional>

#include "base/finite.h"
#include "bindings/arrays.h"
#include "bindings/bind.h"
#include "image/anomaly_map.h"
#include "image/contour.h"
#include "image/map_regions.h"
#include "image/prepare.h"

namespace py = pybind11;

namespace onceover {

namespace {

using Triple = std::array<float, 3>;

uint32_t checked_side(int64_t side, const char* name) {
  if (side < 1 || side > static_cast<int64_t>(kMaxImageSide)) {
    fail(Status::kUsage, "%s is %lld; expected 1 to %zu", name, static_cast<long long>(side), kMaxImageSide);
  }
  return static_cast<uint32_t>(side);
}

Preprocessing preprocessing_of(int64_t height, int64_t width) {
  Preprocessing wanted;
  wanted.height = checked_side(height, "height");
  wanted.width = checked_side(width, "width");
  return wanted;
}

py::array_t<uint8_t> resize(const py::array& image, int64_t height, int64_t width, const std::string& color) {
  const ImageView view = view_image(image, color);
  const Preprocessing wanted = preprocessing_of(height, width);
  auto out = new_array<uint8_t>({wanted.height, wanted.width, 3});
  uint8_t* pixels = out.mutable_data();
  py::gil_scoped_release release;
  Memory memory;
  Preparer(wanted, memory).resize_u8(view, pixels);
  return out;
}

py::array_t<float> prepare(const py::array& image, int64_t height, int64_t width, const Triple& mean, const Triple& std,
                           const std::string& color) {
  const ImageView view = view_image(image, color);
  Preprocessing wanted = preprocessing_of(height, width);
  for (size_t c = 0; c < 3; ++c) {
    wanted.mean[c] = mean[c];
    wanted.std[c] = std[c];
  }
  auto out = new_array<float>({3, wanted.height, wanted.width});
  float* values = out.mutable_data();
  py::gil_scoped_release release;
  Memory memory;
  Preparer(wanted, memory).run(view, values);
  return out;
}

// (h, w), not empty. Callers check that it is finite, without the GIL: a NaN would spread over the whole map.
MatrixView<const float> view_scores(const py::array& array, const char* what) {
  const MatrixView<const float> scores = view_matrix<float>(array, what);
  if (scores.rows == 0 || scores.columns == 0) {
    fail(Status::kInput, "%s is %s; expected at least 1 x 1", what, describe_array(array).c_str());
  }
  return scores;
}

py::array_t<float> draw_anomaly_map(const py::array& patch_scores, int64_t height, int64_t width, float sigma) {
  const MatrixView<const float> scores = view_scores(patch_scores, "patch_scores");
  const uint32_t rows = checked_side(height, "height");
  auto out = new_array<float>({rows, checked_side(width, "width")});
  const MatrixView<float> drawn = mutable_view(out);
  py::gil_scoped_release release;
  check_finite_rows(scores, "patch_scores");
  Memory memory;
  MapDrawing(scores.rows, scores.columns, drawn.rows, drawn.columns, sigma, memory).run(scores, drawn);
  return out;
}

// into: drawn there and given back, so that no fresh pages are asked of the system.
py::array resize_map(const py::array& anomaly_map, int64_t height, int64_t width, std::optional<py::array> into) {
  const MatrixView<const float> map = view_scores(anomaly_map, "anomaly_map");
  const uint32_t rows = checked_side(height, "height"), columns = checked_side(width, "width");
  py::array out = into ? *into : new_array<float>({rows, columns});
  const MatrixView<float> resized = view_out(out, rows, columns, map.data, map.rows * map.columns * sizeof(float));
  py::gil_scoped_release release;
  check_finite_rows(map, "anomaly_map");
  Memory memory;
  MapResize(memory).run(map, resized);
  return out;
}

// As many as there are: found once to count them, and once more to write them where there are more than a few.
std::vector<MapRegion> find_all(MatrixView<const float> map, float threshold) {
  Memory memory;
  MapRegions finder(map.columns, memory);
  std::vector<MapRegion> regions(64);
  const size_t count = finder.find(map, threshold, regions.data(), regions.size());
  const bool too_many = count > regions.size();
  regions.resize(count);
  if (too_many) finder.find(map, threshold, regions.data(), count);
  return regions;
}

// Its points (n, 2): row, column.
py::array_t<int32_t> contour_of(MatrixView<const float> map, float threshold, const MapRegion& region) {
  std::vector<ContourPoint> points(2 * (region.bottom - region.top) + 2 * (region.right - region.left));
  {
    const py::gil_scoped_release release;
    const size_t count = trace_contour(map, threshold, region, points.data(), points.size());
    const bool longer = count > points.size();
    points.resize(count);
    if (longer) trace_contour(map, threshold, region, points.data(), count);
  }
  auto out = new_array<int32_t>({points.size(), 2});
  int32_t* to = out.mutable_data();
  for (const ContourPoint& point : points) {
    *to++ = static_cast<int32_t>(point.row);
    *to++ = static_cast<int32_t>(point.column);
  }
  return out;
}

py::list find_regions(const py::array& anomaly_map, float threshold) {
  const MatrixView<const float> map = view_scores(anomaly_map, "anomaly_map");
  std::vector<MapRegion> regions;
  {
    const py::gil_scoped_release release;
    regions = find_all(map, threshold);
  }
  py::list rows;
  for (const MapRegion& r : regions) {
    rows.append(py::make_tuple(py::make_tuple(r.top, r.left, r.bottom, r.right), r.area,
                               py::make_tuple(r.peak_row, r.peak_column), r.peak_value,
                               py::make_tuple(r.centroid_row, r.centroid_column), contour_of(map, threshold, r)));
  }
  return rows;
}

}  // namespace

void bind_image(py::module_& module) {
  module.def("resize", &resize, py::arg("image"), py::arg("height"), py::arg("width"), py::arg("color") = "rgb",
             "The one resize: (H, W[, C]) 8-bit -> (height, width, 3) uint8 RGB.");
  module.def("prepare", &prepare, py::arg("image"), py::arg("height"), py::arg("width"), py::arg("mean"),
             py::arg("std"), py::arg("color") = "rgb", "Image -> (3, height, width) float32 network input.");
  module.def("draw_anomaly_map", &draw_anomaly_map, py::arg("patch_scores"), py::arg("height"), py::arg("width"),
             py::arg("sigma"), "(h, w) -> (height, width): bilinear, then Gaussian blur.");
  module.def("resize_map", &resize_map, py::arg("anomaly_map"), py::arg("height"), py::arg("width"),
             py::arg("out").noconvert() = py::none(), "(h, w) -> (height, width), bilinear; into out, if given.");
  module.def("find_regions", &find_regions, py::arg("anomaly_map"), py::arg("threshold"),
             "8-connected regions above the threshold: (box, area, peak, peak_value, centroid, contour), largest "
             "peak first.");
}

}  // namespace onceover
