// Python doors of csrc/scoring and csrc/kernels: isa, available_isas, GreedyCoreset, StreamingCoreset.
#include "bindings/scoring.h"

#include <pybind11/stl.h>

#include <atomic>
#include <optional>

#include "base/turn.h"
#include "bindings/arrays.h"
#include "bindings/bind.h"
#include "kernels/dispatch.h"
#include "scoring/coreset.h"
#include "scoring/streaming_coreset.h"

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

// Ids of rows as Python has them: int64, one per row.
std::vector<uint64_t> checked_ids(const py::array& ids, size_t rows) {
  const int64_t* values = view_elements<int64_t>(ids, 1, "ids");
  if (static_cast<size_t>(ids.size()) != rows) {
    fail(Status::kInput, "got %zu ids for %zu rows; expected one of each", static_cast<size_t>(ids.size()), rows);
  }
  return std::vector<uint64_t>(values, values + rows);
}

py::array_t<int64_t> ids_array(const std::vector<uint64_t>& ids) {
  auto out = new_array<int64_t>({ids.size()});
  std::copy(ids.begin(), ids.end(), out.mutable_data());
  return out;
}

class ArrayStreamingCoreset {
 public:
  ArrayStreamingCoreset(const py::array& seeds, const py::array& ids, float radius, int64_t count, const IsaName& isa) {
    if (count < 1) fail(Status::kUsage, "count is %lld; expected 1 or more rows", static_cast<long long>(count));
    const MatrixView<const float> rows = view_matrix<float>(seeds, "seeds");
    const std::vector<uint64_t> numbers = checked_ids(ids, rows.rows);
    const KernelTable& table = table_for(isa);
    py::gil_scoped_release release;
    coreset_.emplace(rows, numbers.data(), radius, static_cast<size_t>(count), table);
  }

  py::array_t<int64_t> add(const py::array& added, const py::array& ids) {
    const MatrixView<const float> rows = view_matrix<float>(added, "rows");
    const std::vector<uint64_t> numbers = checked_ids(ids, rows.rows);
    const Turn turn(busy_, "coreset");
    std::vector<uint32_t> taken;
    {
      py::gil_scoped_release release;
      taken = coreset_->add(rows, numbers.data());
    }
    return row_numbers(taken.data(), taken.size());
  }

  py::array_t<int64_t> selected() {
    const Turn turn(busy_, "coreset");
    std::vector<uint64_t> ids;
    {
      py::gil_scoped_release release;
      ids = coreset_->selected();
    }
    return ids_array(ids);
  }

  py::array_t<int64_t> held() {
    const Turn turn(busy_, "coreset");
    return ids_array(coreset_->held());
  }

  float covering_radius() {
    const Turn turn(busy_, "coreset");
    return coreset_->covering_radius();
  }

 private:
  std::optional<StreamingCoreset> coreset_;  // filled by the constructor, without the GIL
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
  py::class_<ArrayStreamingCoreset>(module, "StreamingCoreset", "k-center selection over rows that pass by once.")
      .def(py::init<const py::array&, const py::array&, float, int64_t, const IsaName&>(), py::arg("seeds"),
           py::arg("ids"), py::arg("radius"), py::arg("count"), py::arg("isa") = py::none())
      .def("add", &ArrayStreamingCoreset::add, py::arg("rows"), py::arg("ids"), "Returns which rows were taken.")
      .def("selected", &ArrayStreamingCoreset::selected)
      .def("held", &ArrayStreamingCoreset::held)
      .def_property_readonly("covering_radius", &ArrayStreamingCoreset::covering_radius);
}

}  // namespace onceover
