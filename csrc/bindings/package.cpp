// The package room for Python: zero-copy, read-only views of members; buffers stay alive as long as a view needs them.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <tuple>

#include "base/error.h"
#include "base/turn.h"
#include "bindings/arrays.h"
#include "bindings/bind.h"
#include "bindings/file_path.h"
#include "package/config.h"
#include "package/reader.h"
#include "package/writer.h"
#include "session/product.h"

namespace onceover {
namespace {

namespace py = pybind11;
using Triple = std::tuple<float, float, float>;

// A pointer and size into the bytes object, which must outlive them.
std::string_view contents(const py::bytes& data) { return static_cast<std::string_view>(data); }

const uint8_t* bytes_of(std::string_view text) { return reinterpret_cast<const uint8_t*>(text.data()); }

py::bytes to_python(const std::vector<uint8_t>& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

py::dtype dtype_of(DataType type) {
  switch (type) {
    case DataType::kFloat32:
      return py::dtype::of<float>();
    case DataType::kFloat64:
      return py::dtype::of<double>();
    case DataType::kInt8:
      return py::dtype::of<int8_t>();
    case DataType::kUint32:
      return py::dtype::of<uint32_t>();
    case DataType::kBytes:
    case DataType::kUint8:
      break;
  }
  return py::dtype::of<uint8_t>();
}

DataType type_of(const std::string& name, const py::array& array) {
  if (has_dtype<float>(array)) return DataType::kFloat32;
  if (has_dtype<double>(array)) return DataType::kFloat64;
  if (has_dtype<uint8_t>(array)) return DataType::kUint8;
  if (has_dtype<int8_t>(array)) return DataType::kInt8;
  if (has_dtype<uint32_t>(array)) return DataType::kUint32;
  fail(Status::kUsage, "member '%s' is %s; expected float32, float64, uint8, int8 or uint32", name.c_str(),
       describe_array(array).c_str());
}

// pybind11 holds non-const pointers; Python gets no way to change the package.
std::shared_ptr<Package> for_python(const std::shared_ptr<const Package>& package) {
  return std::const_pointer_cast<Package>(package);
}

std::shared_ptr<Package> open_package(const py::object& path, const std::string& verify_hashes, bool copy) {
  const std::string name = file_path(path, "path");
  if (verify_hashes != "all" && verify_hashes != "small") {
    fail(Status::kUsage, "verify_hashes is '%s', expected 'all' or 'small'", verify_hashes.c_str());
  }
  const OpenOptions options{verify_hashes == "all" ? HashedMembers::kAll : HashedMembers::kSmall, copy};
  py::gil_scoped_release unlocked;
  return for_python(Package::open(name, options));
}

// The package and the bytes it looks at live and die together, whoever holds the last pointer.
struct BorrowedPackage {
  std::shared_ptr<const Package> package;
  py::object bytes;
  ~BorrowedPackage() {
    package.reset();
    py::gil_scoped_acquire locked;
    bytes = py::object();
  }
};

std::shared_ptr<Package> view_package(const py::bytes& data, const std::string& label) {
  const std::string_view text = contents(data);
  const auto borrowed = std::make_shared<BorrowedPackage>();
  borrowed->bytes = data;
  {
    py::gil_scoped_release unlocked;
    borrowed->package = Package::view(bytes_of(text), text.size(), label);
  }
  return {borrowed, for_python(borrowed->package).get()};
}

py::dict describe_member(const MemberView& member) {
  py::tuple dimensions(member.dimension_count);
  for (uint32_t i = 0; i < member.dimension_count; ++i) dimensions[i] = member.dimensions[i];
  py::dict row;
  row["name"] = std::string(member.name);
  row["type"] = data_type_name(member.type);
  row["dimensions"] = dimensions;
  row["size_bytes"] = member.size_bytes;
  row["required"] = member.required;
  row["sha256"] = hex(member.sha256);
  return row;
}

// A read-only array in the mapped file, shaped; it keeps the package open.
py::array member_array(const py::object& self, const std::string& name) {
  const MemberView& member = self.cast<const Package&>().require(name);
  std::vector<py::ssize_t> shape;
  for (uint32_t i = 0; i < member.dimension_count; ++i) {
    shape.push_back(static_cast<py::ssize_t>(member.dimensions[i]));
  }
  py::array array(dtype_of(member.type), shape, {}, member.data, self);
  array.attr("setflags")(py::arg("write") = false);
  return array;
}

void bind_reader(py::module_& module) {
  py::class_<Package, std::shared_ptr<Package>>(module, "Package")
      .def_static("open", &open_package, py::arg("path"), py::arg("verify_hashes") = "all", py::arg("copy") = false)
      .def_static("view", &view_package, py::arg("data"), py::arg("label") = "package")
      .def_property_readonly("label", [](const Package& self) { return path_text(self.label()); })
      .def_property_readonly("id", [](const Package& self) { return hex(self.id()); })
      .def_property_readonly("verified_hashes",
                             [](const Package& self) { return self.hashed() == HashedMembers::kAll ? "all" : "small"; })
      .def_property_readonly("version",
                             [](const Package& self) { return py::make_tuple(kFormatMajor, self.minor_version()); })
      .def_property_readonly("members",
                             [](const Package& self) {
                               py::list rows;
                               for (const MemberView& member : self.members()) rows.append(describe_member(member));
                               return rows;
                             })
      .def(
          "read",
          [](const Package& self, const std::string& name) {
            const MemberView& member = self.require(name);
            return py::bytes(reinterpret_cast<const char*>(member.data), static_cast<size_t>(member.size_bytes));
          },
          py::arg("name"))
      .def("array", &member_array, py::arg("name"));
}

// A writer and the Python objects whose memory it will read, without the GIL: nothing may be added meanwhile.
class PythonWriter {
 public:
  void add_bytes(const std::string& name, const py::bytes& data, bool required) {
    const Turn turn(busy_, kWriter);
    const std::string_view text = contents(data);
    writer_.add(name, text.data(), text.size(), DataType::kBytes, {}, required);
    kept_.push_back(data);
  }

  void add_array(const std::string& name, const py::array& data, bool required) {
    const Turn turn(busy_, kWriter);
    const DataType type = type_of(name, data);
    if (data.ndim() < 1) fail(Status::kUsage, "member '%s' is a scalar; pass an array of one element", name.c_str());
    const py::array rows = py::array::ensure(data, py::array::c_style);  // null, with the reason cleared, when it fails
    if (!rows) {
      fail(Status::kMemory, "member '%s': no memory for a contiguous copy of %s, %zd bytes", name.c_str(),
           describe_array(data).c_str(), data.nbytes());
    }
    const std::vector<uint64_t> dimensions(rows.shape(), rows.shape() + rows.ndim());
    writer_.add(name, rows.data(), static_cast<size_t>(rows.nbytes()), type, dimensions, required);
    kept_.push_back(rows);
  }

  py::bytes bytes() {
    const Turn turn(busy_, kWriter);
    std::vector<uint8_t> out;
    {
      py::gil_scoped_release unlocked;
      out = writer_.bytes();
    }
    return to_python(out);
  }

  void save(const py::object& path) {
    const Turn turn(busy_, kWriter);
    const std::string name = file_path(path, "path");
    py::gil_scoped_release unlocked;
    writer_.save(name);
  }

 private:
  static constexpr char kWriter[] = "package writer";
  PackageWriter writer_;
  std::vector<py::object> kept_;
  std::atomic<bool> busy_{false};
};

void bind_writer(py::module_& module) {
  py::class_<PythonWriter>(module, "PackageWriter")
      .def(py::init<>())
      .def("add", &PythonWriter::add_bytes, py::arg("name"), py::arg("data"), py::arg("required") = true)
      .def("add", &PythonWriter::add_array, py::arg("name"), py::arg("data"), py::arg("required") = true)
      .def("bytes", &PythonWriter::bytes)
      .def("save", &PythonWriter::save, py::arg("path"));
  module.def(
      "save_atomically",
      [](const py::object& path, const py::bytes& data) {
        const std::string name = file_path(path, "path");
        const std::string_view text = contents(data);
        py::gil_scoped_release unlocked;
        save_atomically(name, bytes_of(text), text.size());
      },
      py::arg("path"), py::arg("data"));
}

// roi (h, w) uint8 of 0 and 1 → (n,) int64: the features, tile after tile, of cells that overlap it.
py::array_t<int64_t> features_inside_of(const Config& config, const py::array& roi) {
  Memory memory;
  const Buffer<uint32_t> found = features_inside(config, Roi(view_matrix<uint8_t>(roi, "roi")), memory);
  py::array_t<int64_t> out = new_array<int64_t>({found.size()});
  std::copy_n(found.data(), found.size(), out.mutable_data());
  return out;
}

// (n,) features, tile after tile → (n,) their cells in the patch grid of the image.
py::array_t<int64_t> cells_of(const Config& config, const py::array& features) {
  const auto* feature = view_elements<int64_t>(features, 1, "features");
  const TileGrid tiles = config.tiles();
  const auto count = static_cast<size_t>(features.size()), patches = config.patch_count();
  py::array_t<int64_t> out = new_array<int64_t>({count});
  int64_t* cell = out.mutable_data();
  for (size_t i = 0; i < count; ++i) {
    if (feature[i] < 0 || static_cast<size_t>(feature[i]) >= config.feature_count()) {
      fail(Status::kUsage, "feature %lld, expected 0 to %zu", static_cast<long long>(feature[i]),
           config.feature_count() - 1);
    }
    const auto at = static_cast<size_t>(feature[i]);
    cell[i] = static_cast<int64_t>(tiles.cell(at / patches, at % patches));
  }
  return out;
}

void bind_config(py::module_& module) {
  const auto triple = [](const float* values) { return Triple(values[0], values[1], values[2]); };
  py::class_<Config>(module, "Config")
      .def(py::init([](uint32_t height, uint32_t width, const Triple& mean, const Triple& std, uint32_t grid_height,
                       uint32_t grid_width, uint32_t embedding_dim, float blur_sigma,
                       const std::array<uint32_t, 4>& tiling) {
             Config config;
             config.preprocessing = {height,
                                     width,
                                     {std::get<0>(mean), std::get<1>(mean), std::get<2>(mean)},
                                     {std::get<0>(std), std::get<1>(std), std::get<2>(std)}};
             config.grid_height = grid_height;
             config.grid_width = grid_width;
             config.embedding_dim = embedding_dim;
             config.blur_sigma = blur_sigma;
             config.tiling = {tiling[0], tiling[1], tiling[2], tiling[3]};
             write_config(config);  // a config that cannot be written is refused here
             return config;
           }),
           py::kw_only(), py::arg("height"), py::arg("width"), py::arg("mean"), py::arg("std"), py::arg("grid_height"),
           py::arg("grid_width"), py::arg("embedding_dim"), py::arg("blur_sigma"),
           py::arg("tiling") = std::array<uint32_t, 4>{1, 1, 0, 0})
      .def_property_readonly("height", [](const Config& self) { return self.preprocessing.height; })
      .def_property_readonly("width", [](const Config& self) { return self.preprocessing.width; })
      .def_property_readonly("mean", [triple](const Config& self) { return triple(self.preprocessing.mean); })
      .def_property_readonly("std", [triple](const Config& self) { return triple(self.preprocessing.std); })
      .def_readonly("grid_height", &Config::grid_height)
      .def_readonly("grid_width", &Config::grid_width)
      .def_readonly("embedding_dim", &Config::embedding_dim)
      .def_readonly("blur_sigma", &Config::blur_sigma)
      .def_property_readonly("tiling",
                             [](const Config& self) {
                               const Tiling& tiling = self.tiling;
                               return py::make_tuple(tiling.rows, tiling.columns, tiling.overlap_rows,
                                                     tiling.overlap_columns);
                             })
      .def_property_readonly(
          "cells", [](const Config& self) { return py::make_tuple(self.tiles().height(), self.tiles().width()); })
      .def_property_readonly("map_size",
                             [](const Config& self) { return py::make_tuple(self.map_height(), self.map_width()); })
      .def_property_readonly("feature_count", &Config::feature_count)
      .def("features_inside", &features_inside_of, py::arg("roi"))
      .def("cells_of", &cells_of, py::arg("features"))
      .def("to_bytes", [](const Config& self) { return to_python(write_config(self)); });
}

py::bytes calibration_bytes(bool calibrated, double false_alarm_rate, float threshold, float map_threshold,
                            const py::array& scores, const py::array& map_maxima, uint32_t image_count,
                            bool cross_conformal, double confidence) {
  const auto* first_score = view_elements<float>(scores, 1, "scores");
  const auto* first_maximum = view_elements<float>(map_maxima, 1, "map_maxima");
  return to_python(write_calibration(
      calibrated, false_alarm_rate, threshold, map_threshold, {first_score, first_score + scores.size()},
      {first_maximum, first_maximum + map_maxima.size()}, image_count, {cross_conformal, confidence}));
}

// One reference image and what the session answered; holds the arrays that its views look at.
struct ParityItem {
  py::array image, patch_scores, anomaly_map;
  ImageView view;
  float score;
  uint32_t verdict;
};

MatrixView<const float> view_checked(const py::array& array, const char* what, size_t rows, size_t columns) {
  const MatrixView<const float> view = view_matrix<float>(array, what);
  if (view.rows != rows || view.columns != columns) {
    fail(Status::kUsage, "%s is (%zu, %zu), expected (%zu, %zu) as the config says", what, view.rows, view.columns,
         rows, columns);
  }
  return view;
}

py::bytes parity_bytes(const std::vector<ParityItem>& items, const Config& config, float relative_tolerance,
                       uint32_t map_step) {
  if (map_step < 1) fail(Status::kUsage, "map_step is 0, expected at least 1");
  Parity parity;
  parity.relative_tolerance = relative_tolerance;
  parity.map_step = map_step;
  std::vector<std::vector<float>> samples(items.size());
  for (size_t i = 0; i < items.size(); ++i) {
    const ParityItem& item = items[i];
    const auto patches =
        view_checked(item.patch_scores, "patch_scores", config.tiles().height(), config.tiles().width());
    const auto map = view_checked(item.anomaly_map, "anomaly_map", config.map_height(), config.map_width());
    for (size_t y = 0; y < map.rows; y += map_step) {
      for (size_t x = 0; x < map.columns; x += map_step) samples[i].push_back(map.row(y)[x]);
    }
    parity.images.push_back({item.view, item.score, item.verdict, patches.data, samples[i].data()});
  }
  return to_python(write_parity(parity, config));
}

void bind_fixed_members(py::module_& module) {
  module.def("calibration_bytes", &calibration_bytes, py::kw_only(), py::arg("calibrated"), py::arg("false_alarm_rate"),
             py::arg("threshold"), py::arg("map_threshold"), py::arg("scores"), py::arg("map_maxima"),
             py::arg("image_count"), py::arg("cross_conformal") = false, py::arg("confidence") = 0.0);
  py::class_<ParityItem>(module, "ParityItem")
      .def(py::init([](const py::array& image, const std::string& color, float score, uint32_t verdict,
                       const py::array& patch_scores, const py::array& anomaly_map) {
             return ParityItem{image, patch_scores, anomaly_map, view_image(image, color), score, verdict};
           }),
           py::arg("image"), py::arg("color"), py::arg("score"), py::arg("verdict"), py::arg("patch_scores"),
           py::arg("anomaly_map"));
  module.def("parity_bytes", &parity_bytes, py::arg("items"), py::arg("config"), py::arg("relative_tolerance"),
             py::arg("map_step"));
}

}  // namespace

void bind_package(py::module_& module) {
  bind_reader(module);
  bind_writer(module);
  bind_config(module);
  bind_fixed_members(module);
}

}  // namespace onceover
