// Python door of csrc/metrics: SegmentationState over numpy maps and masks, connected components.
#include <pybind11/stl.h>

#include <atomic>
#include <optional>

#include "base/turn.h"
#include "bindings/arrays.h"
#include "bindings/bind.h"
#include "kernels/dispatch.h"
#include "metrics/compute.h"
#include "metrics/state_file.h"

namespace py = pybind11;

namespace onceover {
namespace {

constexpr char kStateName[] = "SegmentationState";

// (H, W) with the pixels of a row side by side; a copy where they are not.
py::array with_contiguous_rows(const py::array& array, const char* what) {
  if (array.ndim() != 2) fail(Status::kInput, "%s is %s, expected (H, W)", what, describe_array(array).c_str());
  const bool touch = array.shape(1) <= 1 || array.strides(1) == array.itemsize();
  const bool aligned = (array.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_) != 0;
  return touch && aligned ? array : py::array::ensure(array, py::array::c_style);
}

ScoreView view_scores(const py::array& map) {
  ScoreView view;
  const char kind = map.dtype().kind();
  const py::ssize_t bytes = map.itemsize();
  if (kind == 'f' && bytes == 4 && has_dtype<float>(map)) {
    view.type = ScoreType::kFloat32;
  } else if (kind == 'f' && bytes == 2 && map.dtype().byteorder() != '>') {
    view.type = ScoreType::kFloat16;
  } else if (has_dtype<uint8_t>(map)) {
    view.type = ScoreType::kUint8;
  } else if (has_dtype<uint16_t>(map)) {
    view.type = ScoreType::kUint16;
  } else {
    fail(Status::kInput, "anomaly map is %s, expected float32, float16, uint8 or uint16", describe_array(map).c_str());
  }
  view.data = map.data();
  view.height = static_cast<size_t>(map.shape(0));
  view.width = static_cast<size_t>(map.shape(1));
  view.stride_bytes = map.strides(0);
  return view;
}

MaskView view_mask(const py::array& mask) {
  if (!has_dtype<uint8_t>(mask) && !has_dtype<bool>(mask)) {
    fail(Status::kInput, "mask is %s, expected bool or uint8", describe_array(mask).c_str());
  }
  return {static_cast<const uint8_t*>(mask.data()), static_cast<size_t>(mask.shape(0)),
          static_cast<size_t>(mask.shape(1)), mask.strides(0)};
}

py::dict to_dict(const SegmentationMetrics& metrics, bool has_channels) {
  py::dict out;
  out["aupro"] = metrics.aupro;
  out["auspro"] = has_channels ? metrics.auspro : std::vector<double>();
  out["pixel_auroc"] = metrics.pixel_auroc;
  out["average_precision"] = metrics.average_precision;
  out["f1_max"] = metrics.f1_max;
  out["f1_max_threshold"] = metrics.f1_max_threshold;
  return out;
}

template <typename T>
py::array_t<T> to_array(const std::vector<T>& values) {
  return py::array_t<T>(static_cast<py::ssize_t>(values.size()), values.data());
}

class ArraySegmentationState {
 public:
  ArraySegmentationState(int connectivity, size_t page_budget_bytes)
      : state_(connectivity, page_budget_bytes, kernels()) {}
  explicit ArraySegmentationState(SegmentationState&& state) : state_(std::move(state)) {}

  size_t update(const py::array& anomaly_map, const std::optional<py::array>& mask, size_t group) {
    const Turn turn(busy_, kStateName);
    const py::array map = with_contiguous_rows(anomaly_map, "anomaly map");
    const ScoreView scores = view_scores(map);
    if (!mask) {
      py::gil_scoped_release release;
      return state_.update(scores, {}, group);
    }
    const py::array truth = with_contiguous_rows(*mask, "mask");
    const MaskView view = view_mask(truth);
    check_shape(scores, view, "mask");
    py::gil_scoped_release release;
    return state_.update(scores, view, group);
  }

  size_t update_channels(const py::array& anomaly_map, const std::vector<py::array>& channels,
                         const std::vector<uint32_t>& saturation_areas, size_t group) {
    const Turn turn(busy_, kStateName);
    const py::array map = with_contiguous_rows(anomaly_map, "anomaly map");
    const ScoreView scores = view_scores(map);
    std::vector<py::array> kept;
    std::vector<MaskView> views;
    for (const py::array& channel : channels) {
      kept.push_back(with_contiguous_rows(channel, "channel"));
      views.push_back(view_mask(kept.back()));
      check_shape(scores, views.back(), "channel");
    }
    py::gil_scoped_release release;
    return state_.update_channels(scores, views, saturation_areas, group);
  }

  void merge(ArraySegmentationState& other, const std::vector<size_t>& groups) {
    const Turn turn(busy_, kStateName);
    if (&other == this) {
      py::gil_scoped_release release;
      return state_.merge(state_, groups);
    }
    const Turn other_turn(other.busy_, kStateName);
    py::gil_scoped_release release;
    state_.merge(other.state_, groups);
  }

  py::dict compute(const std::vector<double>& fpr_limits, int group) {
    SegmentationResult result;
    {
      const Turn turn(busy_, kStateName);
      py::gil_scoped_release release;
      result = compute_metrics(state_, fpr_limits, group);
    }
    const bool has_channels = result.channels > 0;
    py::dict out = to_dict(result.value, has_channels);
    out["regions"] = result.regions;
    out["channels"] = result.channels;
    out["anomalous_pixels"] = result.anomalous_pixels;
    out["normal_pixels"] = result.normal_pixels;
    out["lower"] = result.certified ? py::object(to_dict(result.lower, has_channels)) : py::none();
    out["upper"] = result.certified ? py::object(to_dict(result.upper, has_channels)) : py::none();
    return out;
  }

  py::dict curve(int group) {
    SegmentationCurve curve;
    {
      const Turn turn(busy_, kStateName);
      py::gil_scoped_release release;
      curve = compute_curve(state_, group);
    }
    py::dict out;
    out["thresholds"] = to_array(curve.thresholds);
    out["fpr"] = to_array(curve.fpr);
    out["pro"] = to_array(curve.pro);
    out["spro"] = to_array(curve.spro);
    out["tpr"] = to_array(curve.tpr);
    out["precision"] = to_array(curve.precision);
    return out;
  }

  py::bytes to_bytes() {
    std::vector<uint8_t> bytes;
    {
      const Turn turn(busy_, kStateName);
      py::gil_scoped_release release;
      bytes = write_state(state_);
    }
    return py::bytes(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }

  template <typename What>
  auto read(What what) {
    const Turn turn(busy_, kStateName);
    return what(static_cast<const SegmentationState&>(state_));
  }

 private:
  void check_shape(const ScoreView& scores, const MaskView& mask, const char* what) const {
    if (mask.height == scores.height && mask.width == scores.width) return;
    fail(Status::kInput, "image %llu: %s has shape (%zu, %zu), its anomaly map (%zu, %zu); neither is resized here",
         static_cast<unsigned long long>(state_.images()), what, mask.height, mask.width, scores.height, scores.width);
  }

  SegmentationState state_;
  std::atomic<bool> busy_{false};
};

py::tuple connected_components(const py::array& mask, int connectivity) {
  const py::array rows = with_contiguous_rows(mask, "mask");
  const MaskView view = view_mask(rows);
  if (view.height > INT32_MAX || view.width > INT32_MAX) fail(Status::kInput, "mask: a side is beyond 2^31 − 1 pixels");
  RegionFinder finder(connectivity, kernels());
  std::vector<RegionBox> boxes;
  {
    py::gil_scoped_release release;
    finder.find(view);
    boxes = finder.boxes();
  }
  auto areas = new_array<int64_t>({finder.areas().size()});
  std::copy(finder.areas().begin(), finder.areas().end(), areas.mutable_data());
  const auto table = [](const auto& records) {  // four 32-bit numbers each, all below 2^31
    static_assert(sizeof(records[0]) == 4 * sizeof(int32_t));
    auto out = new_array<int32_t>({records.size(), 4});
    if (!records.empty()) std::memcpy(out.mutable_data(), records.data(), records.size() * sizeof(records[0]));
    return out;
  };
  return py::make_tuple(areas, table(boxes), table(finder.runs()));
}

}  // namespace

void bind_metrics(py::module_& module) {
  using State = ArraySegmentationState;
  const auto property = [](auto what) { return [what](State& state) { return state.read(what); }; };
  py::class_<State>(module, kStateName,
                    "What pixel metrics need of a test set; onceover.metrics.SegmentationMetrics is its face.")
      .def(py::init<int, size_t>(), py::arg("connectivity") = 8, py::arg("page_budget_bytes") = 0)
      .def("update", &State::update, py::arg("anomaly_map"), py::arg("mask"), py::arg("group") = 0)
      .def("update_channels", &State::update_channels, py::arg("anomaly_map"), py::arg("channels"),
           py::arg("saturation_areas"), py::arg("group") = 0)
      .def("merge", &State::merge, py::arg("other"), py::arg("groups") = std::vector<size_t>())
      .def("compute", &State::compute, py::arg("fpr_limits"), py::arg("group") = kAllGroups)
      .def("curve", &State::curve, py::arg("group") = kAllGroups)
      .def("to_bytes", &State::to_bytes)
      .def_static(
          "from_bytes",
          [](const py::bytes& data) {
            const std::string_view bytes = data;
            const auto* first = reinterpret_cast<const uint8_t*>(bytes.data());
            py::gil_scoped_release release;
            return std::make_unique<State>(read_state(first, bytes.size(), kernels()));
          },
          py::arg("data"))
      .def_property_readonly("connectivity", property([](const auto& state) { return state.connectivity(); }))
      .def_property_readonly("images", property([](const auto& state) { return state.images(); }))
      .def_property_readonly("normal_pixels", property([](const auto& state) { return state.normal_pixels(); }))
      .def_property_readonly("anomalous_pixels", property([](const auto& state) { return state.anomalous_pixels(); }))
      .def_property_readonly("regions", property([](const auto& state) {
                               uint64_t count = 0;
                               for (const DefectGroup& group : state.groups()) count += group.regions;
                               return count;
                             }))
      .def_property_readonly("channels", property([](const auto& state) {
                               uint64_t count = 0;
                               for (const DefectGroup& group : state.groups()) count += group.channels;
                               return count;
                             }))
      .def_property_readonly("groups", property([](const auto& state) { return state.groups().size(); }))
      .def_property_readonly("state_bytes", property([](const auto& state) { return state.size_bytes(); }))
      .def_property_readonly("dropped_key_bits", property([](const auto& state) { return state.dropped_bits(); }));
  module.def("connected_components", &connected_components, py::arg("mask"), py::arg("connectivity") = 8);
}

}  // namespace onceover
