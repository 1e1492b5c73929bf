// Python door of csrc/monitor and of image/statistics.h (python/onceover/_core.pyi).
#include "monitor/monitor.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <limits>
#include <optional>
#include <string>

#include "bindings/arrays.h"
#include "bindings/bind.h"
#include "image/statistics.h"
#include "monitor/monitored_package.h"

namespace py = pybind11;

namespace onceover {
namespace {

constexpr const char* kChartNames[kCharts] = {"score_ewma", "score_cusum", "p_values",
                                              "brightness", "sharpness",   "rejected"};

std::array<uint8_t, 32> id_of(const std::string& hex) {
  std::array<uint8_t, 32> id = {};
  if (hex.empty()) return id;
  const bool is_hex = hex.find_first_not_of("0123456789abcdef") == std::string::npos;
  if (hex.size() != 64 || !is_hex) fail(Status::kInput, "a package id is 64 hex digits, got '%s'", hex.c_str());
  for (size_t i = 0; i < 32; ++i) id[i] = static_cast<uint8_t>(std::stoul(hex.substr(2 * i, 2), nullptr, 16));
  return id;
}

Outcome outcome_of(const std::string& decision) {
  if (decision == "normal") return Outcome::kAccepted;
  if (decision == "anomalous" || decision == "wrong_part") return Outcome::kRejected;
  if (decision == "uncalibrated") return Outcome::kUndecided;
  fail(Status::kInput, "decision is '%s', expected normal, anomalous or uncalibrated", decision.c_str());
}

py::list names_of(uint32_t charts) {
  py::list names;
  for (uint32_t i = 0; i < kCharts; ++i) {
    if ((charts >> i & 1) != 0) names.append(kChartNames[i]);
  }
  return names;
}

py::list update(Monitor& monitor, const std::string& decision, float score, double p_value,
                std::optional<float> brightness, std::optional<float> sharpness) {
  InspectedPart part;
  part.outcome = outcome_of(decision);
  part.score = score;
  part.p_value = p_value;
  part.brightness = brightness.value_or(std::numeric_limits<float>::quiet_NaN());
  part.sharpness = sharpness.value_or(std::numeric_limits<float>::quiet_NaN());
  return names_of(monitor.update(part));
}

py::dict states(const Monitor& monitor) {
  py::dict all;
  for (uint32_t i = 0; i < kCharts; ++i) {
    const ChartState state = monitor.state(static_cast<Chart>(i));
    all[kChartNames[i]] = py::make_tuple(state.parts, state.alarm_part, state.value, state.lower, state.upper);
  }
  return all;
}

}  // namespace

void bind_monitor(py::module_& module) {
  module.def(
      "measure_image",
      [](const py::array& image, const std::string& color) {
        const ImageView view = view_image(image, color);
        ImageStatistics told;
        {
          const py::gil_scoped_release release;
          told = measure_image(view);
        }
        return py::make_tuple(told.brightness, told.sharpness);
      },
      py::arg("image"), py::arg("color") = "rgb", "Brightness (0 … 1) and sharpness of an image.");
  module.def(
      "monitored_package",
      [](const Package& package) {
        const MonitoredPackage told = monitored(package);
        return py::make_tuple(told.calibration_parts, told.accepted_cells);
      },
      py::arg("package"), "Calibration parts, and how many ranks among them an accepted score can have.");
  py::class_<Monitor>(module, "Monitor", "csrc/monitor; onceover.DriftMonitor is its face.")
      .def(py::init([](const std::string& package_id, uint32_t calibration_parts, uint32_t accepted_cells,
                       double run_length, uint32_t batch, double reject_rate) {
             return Monitor({id_of(package_id), calibration_parts, accepted_cells}, {run_length, batch, reject_rate});
           }),
           py::kw_only(), py::arg("package_id"), py::arg("calibration_parts"), py::arg("accepted_cells"),
           py::arg("run_length"), py::arg("batch"), py::arg("reject_rate"))
      .def("update", &update, py::arg("decision"), py::arg("score"), py::arg("p_value"),
           py::arg("brightness") = py::none(), py::arg("sharpness") = py::none())
      .def("states", &states)
      .def("restart", &Monitor::restart, py::arg("keep_baseline"))
      .def("to_bytes",
           [](const Monitor& monitor) {
             std::string bytes(Monitor::state_bytes(), '\0');
             monitor.write(reinterpret_cast<uint8_t*>(bytes.data()));
             return py::bytes(bytes);
           })
      .def_static(
          "from_bytes",
          [](const py::bytes& data) {
            const std::string_view bytes = data;
            return Monitor::read(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
          },
          py::arg("data"))
      .def_property_readonly("alarms", [](const Monitor& monitor) { return names_of(monitor.alarms()); })
      .def_property_readonly("parts", &Monitor::parts)
      .def_property_readonly("package_id", [](const Monitor& monitor) { return hex(monitor.package().id); })
      .def_property_readonly("run_length", [](const Monitor& monitor) { return monitor.options().run_length; });
}

}  // namespace onceover
