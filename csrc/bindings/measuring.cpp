// The experiments of onceover bench for Python: subjects are callables that return a RunResult, summaries are JSON.
#include <pybind11/functional.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cmath>

#include "base/error.h"
#include "bindings/arrays.h"
#include "bindings/bind.h"
#include "measuring/summary.h"
#include "session/session.h"

namespace py = pybind11;

namespace onceover {
namespace {

Subject subject_of(py::function run) {
  return [run = std::move(run)] {
    const py::object result = run();
    const Timing& timing = result.cast<const Result&>().timing;
    return Stages{timing.prepare_ns, timing.engine_ns, timing.score_ns, timing.map_ns};
  };
}

std::vector<Subject> subjects_of(const std::vector<py::function>& runs) {
  std::vector<Subject> subjects;
  for (const py::function& run : runs) subjects.push_back(subject_of(run));
  return subjects;
}

double positive(double value, const char* name) {
  if (!(value > 0 && std::isfinite(value))) fail(Status::kUsage, "%s is %g; expected a positive number", name, value);
  return value;
}

// (n, 8) uint64: start, wall, CPU, wait, prepare, engine, score, map; nanoseconds.
py::array_t<uint64_t> table_of(const std::vector<TimedRun>& runs) {
  py::array_t<uint64_t> table = new_array<uint64_t>({runs.size(), 8});
  uint64_t* to = table.mutable_data();
  for (const TimedRun& run : runs) {
    for (const uint64_t value : {run.start_ns, run.wall_ns, run.cpu_ns, run.wait_ns, run.stages.prepare_ns,
                                 run.stages.engine_ns, run.stages.score_ns, run.stages.map_ns}) {
      *to++ = value;
    }
  }
  return table;
}

}  // namespace

void bind_measuring(py::module_& m) {
  // → [(runs (n, 8) uint64 ns, summary JSON)] of each subject
  m.def(
      "measure_in_turn",
      [](const std::vector<py::function>& runs, double seconds, size_t turn, size_t max_runs) {
        if (runs.empty()) fail(Status::kUsage, "nothing to measure: no subjects");
        const Measurement found = measure_in_turn(subjects_of(runs), positive(seconds, "seconds"),
                                                  std::max<size_t>(turn, 1), std::max<size_t>(max_runs, 1));
        py::list all;
        for (const std::vector<TimedRun>& each : found.runs) {
          all.append(py::make_tuple(table_of(each), summary_json(each, found.disturbance)));
        }
        return all;
      },
      py::arg("subjects"), py::arg("seconds"), py::arg("turn") = 1, py::arg("max_runs") = kMaxRuns);
  m.def(
      "measure_after_idle",
      [](const py::function& run, double idle_seconds, size_t count) {
        const Measurement found =
            measure_after_idle(subject_of(run), positive(idle_seconds, "idle_seconds"), std::max<size_t>(count, 1));
        return py::make_tuple(table_of(found.runs[0]), summary_json(found.runs[0], found.disturbance));
      },
      py::arg("subject"), py::arg("idle_seconds"), py::arg("count"));
  m.def(
      "measure_at_rate",
      [](const py::function& run, double rate_hz, double seconds, size_t max_queue) {
        const OpenLoop found =
            measure_at_rate(subject_of(run), positive(rate_hz, "rate_hz"), positive(seconds, "seconds"), max_queue);
        return py::make_tuple(table_of(found.runs[0]), open_loop_json(found, rate_hz));
      },
      py::arg("subject"), py::arg("rate_hz"), py::arg("seconds"), py::arg("max_queue") = 1000);
  m.def("describe_machine", [] { return machine_json(describe_machine()); });
  m.def("describe_memory", [] { return memory_json(process_memory()); });
}

}  // namespace onceover
