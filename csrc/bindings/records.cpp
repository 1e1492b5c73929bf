// The fixed members of a package for Python, read without an engine: what `onceover unpack` shows.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <vector>

#include "bindings/arrays.h"
#include "bindings/bind.h"
#include "package/config.h"
#include "package/products.h"
#include "package/reader.h"

namespace onceover {
namespace {

namespace py = pybind11;

py::dict calibration_of(const Package& package) {
  const Calibration calibration = read_calibration(package);
  py::dict fields;
  fields["calibrated"] = calibration.calibrated;
  fields["cross_conformal"] = calibration.cross_conformal;
  fields["confidence"] = calibration.confidence;
  fields["false_alarm_rate"] = calibration.false_alarm_rate;
  fields["threshold"] = calibration.threshold;
  fields["map_threshold"] = calibration.map_threshold;
  fields["image_count"] = calibration.image_count;
  fields["scores"] = py::array_t<float>(static_cast<py::ssize_t>(calibration.n), calibration.scores);
  fields["map_maxima"] = py::array_t<float>(static_cast<py::ssize_t>(calibration.n), calibration.map_maxima);
  return fields;
}

struct Samples {  // of one pixel, as numpy shapes it
  py::ssize_t channels;
  bool wide, rgb;
};

Samples samples_of(PixelFormat format) {
  switch (format) {
    case PixelFormat::kGray8:
      return {1, false, true};
    case PixelFormat::kRgb8:
      return {3, false, true};
    case PixelFormat::kBgr8:
      return {3, false, false};
    case PixelFormat::kRgba8:
      return {4, false, true};
    case PixelFormat::kBgra8:
      return {4, false, false};
    case PixelFormat::kGray16:
      return {1, true, true};
    case PixelFormat::kRgb16:
      return {3, true, true};
    case PixelFormat::kBgr16:
      return {3, true, false};
    case PixelFormat::kRgba16:
      return {4, true, true};
    case PixelFormat::kBgra16:
    case PixelFormat::kNv12:  // never in a record
      break;
  }
  return {4, true, false};
}

// A copy: (H, W) or (H, W, C), uint8 or uint16.
py::array pixels_of(const ImageView& image) {
  const Samples samples = samples_of(image.format);
  std::vector<py::ssize_t> shape = {static_cast<py::ssize_t>(image.height), static_cast<py::ssize_t>(image.width)};
  if (samples.channels > 1) shape.push_back(samples.channels);
  if (samples.wide) return py::array(py::dtype::of<uint16_t>(), shape, {}, image.data);
  return py::array(py::dtype::of<uint8_t>(), shape, {}, image.data);
}

py::dict parity_of(const Package& package) {
  const Config config = read_config(package);
  const Parity parity = read_parity(package, config);
  const auto steps = [&parity](size_t side) {
    return static_cast<py::ssize_t>((side + parity.map_step - 1) / parity.map_step);
  };
  const py::ssize_t map_height = steps(config.map_height()), map_width = steps(config.map_width());
  const auto grid_height = static_cast<py::ssize_t>(config.tiles().height());
  const auto grid_width = static_cast<py::ssize_t>(config.tiles().width());
  py::list images;
  for (const ParityImage& each : parity.images) {
    py::dict row;
    row["image"] = pixels_of(each.image);
    row["color"] = samples_of(each.image.format).rgb ? "rgb" : "bgr";
    row["score"] = each.score;
    row["verdict"] = each.verdict;
    row["patch_scores"] = py::array_t<float>({grid_height, grid_width}, each.patch_scores);
    row["map"] = py::array_t<float>({map_height, map_width}, each.map);
    images.append(row);
  }
  py::dict record;
  record["relative_tolerance"] = parity.relative_tolerance;
  record["map_step"] = parity.map_step;
  record["images"] = images;
  return record;
}

}  // namespace

// The member "gate": arrays float32 mean (D), weights (r), axes (r, D).
py::bytes gate_bytes(const py::array& mean, const py::array& weights, const py::array& axes, float isotropic,
                     float threshold, uint32_t part_count) {
  GateModel gate;
  gate.mean = view_elements<float>(mean, 1, "mean");
  gate.dims = static_cast<uint32_t>(mean.size());
  gate.weights = view_elements<float>(weights, 1, "weights");
  gate.rank = static_cast<uint32_t>(weights.size());
  const MatrixView<const float> rows = view_matrix<float>(axes, "axes");
  if (rows.rows != gate.rank || rows.columns != gate.dims) {
    fail(Status::kUsage, "axes is (%zu, %zu), expected (%u, %u)", rows.rows, rows.columns, gate.rank, gate.dims);
  }
  gate.axes = rows.data;
  gate.isotropic = isotropic;
  gate.threshold = threshold;
  gate.part_count = part_count;
  const std::vector<uint8_t> bytes = write_gate(gate);
  return py::bytes(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

py::bytes products_bytes(const std::vector<std::string>& names) {
  const std::vector<uint8_t> bytes = write_products(names);
  return py::bytes(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

void bind_records(py::module_& module) {
  module.def(
      "read_products",
      [](const Package& package) {
        py::list names;
        for (const std::string& name : read_products(package)) {
          const auto size = static_cast<Py_ssize_t>(name.size());
          names.append(py::reinterpret_steal<py::str>(PyUnicode_DecodeUTF8(name.data(), size, "replace")));
        }
        return names;
      },
      py::arg("package"));
  module.def("products_bytes", &products_bytes, py::arg("names"));
  module.def("gate_bytes", &gate_bytes, py::kw_only(), py::arg("mean"), py::arg("weights"), py::arg("axes"),
             py::arg("isotropic"), py::arg("threshold"), py::arg("part_count"));
  module.def("read_config", [](const Package& package) { return read_config(package); }, py::arg("package"));
  module.def("read_calibration", &calibration_of, py::arg("package"));
  module.def("read_parity", &parity_of, py::arg("package"));
}

}  // namespace onceover
