// Python doors of csrc/scoring and csrc/kernels: isa, available_isas, GreedyCoreset.
#include "bindings/scoring.h"

#include <pybind11/stl.h>

#include <atomic>
#include <optional>

#include "base/turn.h"
#include "bindings/arrays.h"
#include "bindings/bind.h"
#include "kernels/dispatch.h"
#include "scoring/coreset.h"

namespace py = pybind11;

namespace onceover {

namespace {

size_t checked_first(int64_t first) {
  if (first < 0) fail(Status::kUsage, "first is %lld; expected a row number, 0 or more", static_cast<long long>(first));
  return static_cast<size_t>(first);
}

// Row numbers as Python knows them: int64, −1 for "none" (UINT32_MAX).
py::array_t<int64_t> row_numbers(const uint32_t* rows, size_t count) {
  auto out = new_array<int64_t>({count});
  int64_t* to = out.mutable_data();
  for (size_t i = 0; i < count; ++i) to[i] = rows[i] == UINT32_MAX ? -1 : static_cast<int64_t>(rows[i]);
  return out;
}

// A GreedyCoreset that keeps the array it reads alive. `selected` may move in memory while select runs without the GIL.
class ArrayCoreset {
 public:
  ArrayCoreset(const py::array& points, int64_t first, const IsaName& isa) : points_(points) {
    const MatrixView<const float> rows = view_matrix<float>(points, "points");
    const size_t start = checked_first(first);
    const KernelTable& table = table_for(isa);
    py::gil_scoped_release release;
    coreset_.emplace(rows, start, table, memory_);
  }

  void select(int64_t count) {
    if (count < 0) fail(Status::kUsage, "count is %lld; expected 0 or more rows", static_cast<long long>(count));
    const Turn turn(busy_, "coreset");
    py::gil_scoped_release release;
    coreset_->select(static_cast<size_t>(count));
  }

  py::array_t<int64_t> selected() {
    const Turn turn(busy_, "coreset");
    return row_numbers(coreset_->selected().data(), coreset_->selected().size());
  }

  float covering_radius() {
    const Turn turn(busy_, "coreset");
    return coreset_->covering_radius();
  }

 private:
  py::array points_;
  Memory memory_;
  std::optional<GreedyCoreset> coreset_;  // filled by the constructor, without the GIL
  std::atomic<bool> busy_{false};
};

}  // namespace

void bind_scoring(py::module_& module) {
  module.def("isa", [] { return std::string(kernels().name); }, "The active instruction set.");
  module.def(
      "available_isas",
      [] {
        std::vector<std::string> names;
        for (const KernelTable* table : available_kernels()) names.emplace_back(table->name);
        return names;
      },
      "Every instruction set this machine can run, best first.");
  py::class_<ArrayCoreset>(module, "GreedyCoreset", "Greedy k-center selection over points (N, d) float32.")
      .def(py::init<const py::array&, int64_t, const IsaName&>(), py::arg("points"), py::arg("first"),
           py::arg("isa") = py::none())
      .def("select", &ArrayCoreset::select, py::arg("count"), "Adds up to `count` rows.")
      .def_property_readonly("selected", &ArrayCoreset::selected)
      .def_property_readonly("covering_radius", &ArrayCoreset::covering_radius);
}

}  // namespace onceover
