// Embedder and Session for Python. Everything heavy runs without the GIL; one object serves one thread at a time.
#include "session/session.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <atomic>

#include "base/turn.h"
#include "bindings/arrays.h"
#include "bindings/bind.h"
#include "bindings/corrections.h"
#include "bindings/file_path.h"
#include "kernels/dispatch.h"

namespace py = pybind11;

namespace onceover {
namespace {

struct BoundEmbedder {
  BoundEmbedder(const Config& config_, GraphView graph, const EngineOptions& options)
      : config(config_), embedder(config, graph, options, memory) {}

  py::array_t<float> embed(const py::array& image, const std::string& color) {
    const Turn turn(busy, "embedder");
    const ImageView view = view_image(image, color);
    py::array_t<float> out = new_array<float>({config.feature_count(), config.embedding_dim});
    float* to = out.mutable_data();
    const py::gil_scoped_release release;
    Timing timing;
    const float* embeddings = embedder.embed(view, timing);
    std::copy_n(embeddings, config.feature_count() * config.embedding_dim, to);
    return out;
  }

  Config config;
  Memory memory;
  Embedder embedder;
  std::atomic<bool> busy{false};
};

struct BoundSession {
  BoundSession(std::shared_ptr<const Package> package, const SessionOptions& options)
      : session(std::move(package), options) {}

  Result run(const py::array& image, const std::string& color) {
    const Turn turn(busy, "session");
    const ImageView view = view_image(image, color);
    const py::gil_scoped_release release;
    return session.run(view);
  }

  py::array_t<float> patch_scores() {
    const Turn turn(busy, "session");
    py::array_t<float> out = new_grid<float>();
    std::copy_n(session.patch_scores(), session.config().cell_count(), out.mutable_data());
    return out;
  }

  py::array_t<float> patch_distances() {
    const Turn turn(busy, "session");
    py::array_t<float> out = new_grid<float>();
    std::copy_n(session.patch_distances(), session.config().cell_count(), out.mutable_data());
    return out;
  }

  py::array_t<int64_t> nearest_rows() {
    const Turn turn(busy, "session");
    py::array_t<int64_t> out = new_grid<int64_t>();
    std::copy_n(session.nearest_rows(), session.config().cell_count(), out.mutable_data());
    return out;
  }

  py::array_t<int64_t> patch_features() {
    const Turn turn(busy, "session");
    py::array_t<int64_t> out = new_grid<int64_t>();
    const std::vector<uint32_t> features = session.patch_features();
    std::copy(features.begin(), features.end(), out.mutable_data());
    return out;
  }

  py::array anomaly_map(py::ssize_t height, py::ssize_t width, std::optional<py::array> into) {
    const Turn turn(busy, "session");
    if (height == 0 && width == 0) {
      height = static_cast<py::ssize_t>(session.config().map_height());
      width = static_cast<py::ssize_t>(session.config().map_width());
    }
    constexpr auto kSide = static_cast<py::ssize_t>(kMaxImageSide);
    constexpr auto kPixels = static_cast<py::ssize_t>(kMaxImagePixels);
    if (height < 1 || width < 1 || height > kSide || width > kSide || height * width > kPixels) {
      fail(Status::kUsage,
           "anomaly map of %zd x %zd: both sides must be 0 (its own size) or 1 to %zd, at most %zd pixels", height,
           width, kSide, kPixels);
    }
    const auto rows = static_cast<size_t>(height), columns = static_cast<size_t>(width);
    py::array out = into ? *into : new_array<float>({rows, columns});
    const MatrixView<float> view = view_out(out, rows, columns, nullptr, 0);
    const py::gil_scoped_release release;
    session.draw_map(view);
    return out;
  }

  // (height, width) of bool: what is inspected; None where that is the whole image.
  py::object inside(py::ssize_t height, py::ssize_t width) const {
    const Roi& roi = session.roi();
    if (roi.whole()) return py::none();
    auto out = new_array<bool>({static_cast<size_t>(height), static_cast<size_t>(width)});
    static_assert(sizeof(bool) == 1);
    roi.mark({reinterpret_cast<uint8_t*>(out.mutable_data()), static_cast<size_t>(height), static_cast<size_t>(width)});
    return out;
  }

  // Image → (tiles, 3, H, W), what the network is given.
  py::array_t<float> prepare(const py::array& image, const std::string& color) {
    const Turn turn(busy, "session");
    const ImageView view = view_image(image, color);
    const Config& config = session.config();
    py::array_t<float> out =
        new_array<float>({config.tiling.count(), 3, config.preprocessing.height, config.preprocessing.width});
    float* to = out.mutable_data();
    const py::gil_scoped_release release;
    session.prepare(view, to);
    return out;
  }

  py::dict self_test() {
    Session::SelfTest report;
    {
      const Turn turn(busy, "session");
      const py::gil_scoped_release release;
      report = session.self_test();
    }
    py::dict result;
    result["images"] = report.images;
    result["largest_relative_difference"] = report.largest_relative_difference;
    result["largest_map_difference"] = report.largest_map_difference;
    result["tolerance"] = report.tolerance;
    return result;
  }

  py::array_t<float> embeddings() {
    const Turn turn(busy, "session");
    py::array_t<float> out = new_array<float>({session.config().feature_count(), session.config().embedding_dim});
    std::copy_n(session.embeddings().data, out.size(), out.mutable_data());
    return out;
  }

  py::list apply(BoundCorrections& corrections) {
    {
      const Turn turn(busy, "session");
      const Turn reading(corrections.busy, "journal");
      const py::gil_scoped_release release;
      session.apply(corrections.corrections.changes(), corrections.corrections.max_added_rows());
    }
    return applied();
  }

  py::list applied() const {
    py::list products;
    for (size_t i = 0; i < session.product_count(); ++i) {
      const Product::Applied& now = session.product(i).applied();
      py::dict told;
      told["added_rows"] = now.added_rows;
      told["removed_rows"] = now.removed_rows;
      told["calibration"] = name_of(now.state);
      told["bounded_parts"] = now.bounded_parts;
      products.append(told);
    }
    return products;
  }

  py::dict candidate() {
    const Turn turn(busy, "session");
    std::vector<float> rows;
    Candidate found;
    {
      const py::gil_scoped_release release;
      found = session.candidate(rows);
    }
    const uint32_t product = session.last().product;
    const size_t count = found.patches.size();
    py::array_t<float> values = new_array<float>({count, session.config().embedding_dim});
    std::copy(rows.begin(), rows.end(), values.mutable_data());
    py::array_t<uint32_t> patches = new_array<uint32_t>({count});
    std::copy(found.patches.begin(), found.patches.end(), patches.mutable_data());
    py::dict result;
    result["product"] = product;
    result["score"] = found.score;
    result["threshold"] = found.threshold;
    result["patches"] = patches;
    result["rows"] = values;
    return result;
  }

  void select(const py::object& product) {
    const Turn turn(busy, "session");
    session.select(product.is_none() ? kAutomatic : product.cast<uint32_t>());
  }

  py::dict calibration(uint32_t product) const {
    if (product >= session.product_count()) fail(Status::kUsage, "there is no product number %u", product);
    const Calibration& calibration = session.product(product).calibration();
    py::dict result;
    result["calibrated"] = calibration.calibrated;
    result["cross_conformal"] = calibration.cross_conformal;
    result["confidence"] = calibration.confidence;
    result["false_alarm_rate"] = calibration.false_alarm_rate;
    result["threshold"] = calibration.threshold;
    result["map_threshold"] = calibration.map_threshold;
    result["n"] = calibration.n;
    result["image_count"] = calibration.image_count;
    result["scores"] = py::array_t<float>(static_cast<py::ssize_t>(calibration.n), calibration.scores);
    result["map_maxima"] = py::array_t<float>(static_cast<py::ssize_t>(calibration.n), calibration.map_maxima);
    return result;
  }

  template <typename T>
  py::array_t<T> new_grid() const {
    const TileGrid grid = session.config().tiles();
    return new_array<T>({grid.height(), grid.width()});
  }

  Session session;
  std::atomic<bool> busy{false};
};

using Options = std::vector<std::pair<std::string, std::string>>;

// A NUL would end the text early, for another device or option than the one asked for.
const std::string& checked_text(const std::string& text, const char* what) {
  if (text.find('\0') == std::string::npos) return text;
  fail(Status::kUsage, "%s '%s…' holds a NUL; leave it out", what, text.c_str());
}

EngineOptions make_engine_options(const std::string& name, const py::object& library_path, int64_t threads,
                                  const std::string& device, const Options& options, const py::object& cache_dir) {
  if (threads < 1 || threads > kMaxEngineThreads) {
    fail(Status::kUsage, "threads must be between 1 and %u, got %lld", kMaxEngineThreads,
         static_cast<long long>(threads));
  }
  EngineOptions result;
  result.name = name;
  result.library_path = file_path(library_path, "library_path");
  result.threads = static_cast<uint32_t>(threads);
  result.device = checked_text(device, "device");
  for (const auto& [key, value] : options) {
    result.options.emplace_back(checked_text(key, "option"), checked_text(value, "value of an option"));
  }
  if (!cache_dir.is_none()) result.cache_dir = file_path(cache_dir, "cache_dir");
  return result;
}

std::unique_ptr<BoundEmbedder> make_embedder(const Config& config, const py::bytes& graph,
                                             const EngineOptions& options) {
  const std::string_view bytes = graph;
  const GraphView view{reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()};
  const py::gil_scoped_release release;
  return std::make_unique<BoundEmbedder>(config, view, options);
}

void bind_engines(py::module_& m) {
  py::class_<EngineOptions>(m, "EngineOptions")
      .def(py::init(&make_engine_options), py::arg("name"), py::arg("library_path"), py::arg("threads") = 1,
           py::arg("device") = "", py::arg("options") = Options(), py::arg("cache_dir") = py::none());
  m.def(
      "describe_engine",
      [](const std::string& name, const py::object& library_path) {
        const std::string path = file_path(library_path, "library_path");
        EngineDescription description;
        {
          const py::gil_scoped_release release;
          description = describe_engine(name, path);
        }
        return py::make_tuple(description.version, description.devices);
      },
      py::arg("name"), py::arg("library_path"));
}

void bind_run_result(py::module_& m) {
  py::class_<Result>(m, "RunResult")
      .def_readonly("score", &Result::score)
      .def_readonly("p_value", &Result::p_value)
      .def_property_readonly("decision", [](const Result& r) { return name_of(r.decision); })
      .def_readonly("map_maximum", &Result::map_maximum)
      .def_readonly("worst_patch", &Result::worst_patch)
      .def_readonly("nearest_row", &Result::nearest_row)
      .def_readonly("product", &Result::product)
      .def_readonly("gate_ratio", &Result::gate_ratio)
      .def_property_readonly("prepare_ns", [](const Result& r) { return r.timing.prepare_ns; })
      .def_property_readonly("engine_ns", [](const Result& r) { return r.timing.engine_ns; })
      .def_property_readonly("score_ns", [](const Result& r) { return r.timing.score_ns; })
      .def_property_readonly("map_ns", [](const Result& r) { return r.timing.map_ns; });
}

// features (n, D) as a session adapts them.
py::array_t<float> adapt(const py::array& features, const py::array& matrix) {
  const auto rows = view_matrix<float>(features, "features");
  const auto by = view_matrix<float>(matrix, "matrix");
  if (by.rows != by.columns || by.rows != rows.columns) {
    fail(Status::kInput, "the matrix is %zu x %zu, expected %zu x %zu, as the features have columns", by.rows,
         by.columns, rows.columns, rows.columns);
  }
  py::array_t<float> out = new_array<float>({rows.rows, rows.columns});
  float* to = out.mutable_data();
  const KernelTable& table = kernels();  // the first call reads ONCEOVER_ISA; os.environ is written under the GIL
  const py::gil_scoped_release release;
  Memory memory;
  ThreadPool alone(1);
  Adaptation(by, memory).apply(alone, rows, to, table);
  return out;
}

}  // namespace

void bind_session(py::module_& m) {
  bind_engines(m);
  bind_run_result(m);
  py::class_<BoundEmbedder>(m, "Embedder")
      .def(py::init(&make_embedder), py::arg("config"), py::arg("graph"), py::arg("engine"))
      .def("embed", &BoundEmbedder::embed, py::arg("image"), py::arg("color") = "rgb")
      .def_property_readonly("engine_version", [](const BoundEmbedder& e) { return e.embedder.engine_version(); });

  m.def("adapt", &adapt, py::arg("features"), py::arg("matrix"));

  const auto make_session = [](std::shared_ptr<Package> package, const EngineOptions& engine,
                               uint64_t memory_limit_bytes) {
    SessionOptions options;
    options.engine = engine;
    options.memory_limit_bytes = memory_limit_bytes;
    kernels();  // the first call reads ONCEOVER_ISA; os.environ is written under the GIL, so read under it
    const py::gil_scoped_release release;
    return std::make_unique<BoundSession>(std::move(package), options);
  };
  py::class_<BoundSession>(m, "Session")
      .def(py::init(make_session), py::arg("package"), py::arg("engine"), py::arg("memory_limit_bytes") = 0)
      .def("run", &BoundSession::run, py::arg("image"), py::arg("color") = "rgb")
      .def("patch_scores", &BoundSession::patch_scores)
      .def("patch_distances", &BoundSession::patch_distances)
      .def("nearest_rows", &BoundSession::nearest_rows)
      .def("patch_features", &BoundSession::patch_features)
      .def("anomaly_map", &BoundSession::anomaly_map, py::arg("height") = 0, py::arg("width") = 0,
           py::arg("out").noconvert() = py::none())
      .def(
          "map_p_value", [](const BoundSession& s, float peak) { return s.session.calibration().map_p_value(peak); },
          py::arg("peak"))
      .def("inside", &BoundSession::inside, py::arg("height"), py::arg("width"))
      .def("prepare", &BoundSession::prepare, py::arg("image"), py::arg("color") = "rgb")
      .def("embeddings", &BoundSession::embeddings)
      .def("apply", &BoundSession::apply, py::arg("corrections"))
      .def("candidate", &BoundSession::candidate)
      .def_property_readonly("applied", &BoundSession::applied)
      .def("self_test", &BoundSession::self_test)
      .def_property_readonly("config", [](const BoundSession& s) { return s.session.config(); })
      .def_property_readonly("calibration", [](const BoundSession& s) { return s.calibration(0); })
      .def("calibration_of", &BoundSession::calibration, py::arg("product"))
      .def("select", &BoundSession::select, py::arg("product"))
      .def(
          "has_gate",
          [](const BoundSession& s, uint32_t product) {
            return product < s.session.product_count() && s.session.product(product).has_gate();
          },
          py::arg("product"))
      .def_property_readonly("engine_version", [](const BoundSession& s) { return s.session.engine_version(); })
      .def_property_readonly("memory_bytes", [](const BoundSession& s) { return s.session.memory_bytes(); })
      .def_property_readonly("bank_rows", [](const BoundSession& s) { return s.session.bank_rows(); });
}

}  // namespace onceover
