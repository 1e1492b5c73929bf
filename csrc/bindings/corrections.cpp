// Python door of csrc/corrections: the journal of a package. Files are read and written without the GIL.
#include "bindings/corrections.h"

#include <pybind11/functional.h>
#include <pybind11/stl.h>

#include <optional>

#include "base/turn.h"
#include "bindings/arrays.h"
#include "bindings/bind.h"
#include "bindings/file_path.h"
#include "compaction/compact.h"
#include "compaction/provenance.h"
#include "kernels/dispatch.h"

namespace py = pybind11;

namespace onceover {
namespace {

// Texts come from anywhere; what is no UTF-8 is shown with replacements.
py::str shown(const std::string& text) {
  PyObject* made = PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "replace");
  if (made == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::str>(made);
}

Digest digest_of(const py::bytes& bytes) {
  const std::string_view view = bytes;
  Digest digest{};
  if (view.size() != digest.size() && !view.empty()) {
    fail(Status::kUsage, "image_sha256 has %zu bytes, expected 32, or none for an unknown image", view.size());
  }
  std::copy(view.begin(), view.end(), digest.begin());
  return digest;
}

template <typename Body>
auto locked(BoundCorrections& self, const Body& body) {
  const Turn turn(self.busy, "journal");
  const py::gil_scoped_release release;
  return body(self.corrections);
}

void check_product(const Corrections& corrections, uint32_t product) {
  if (product < corrections.product_count()) return;
  fail(Status::kUsage, "there is no product number %u", product);
}

uint64_t propose(BoundCorrections& self, const py::dict& candidate, const std::string& name, const std::string& note,
                 const py::bytes& image_sha256, int64_t time) {
  Candidate made;
  made.name = name;
  made.note = note;
  made.image = digest_of(image_sha256);
  made.score = candidate["score"].cast<float>();
  made.threshold = candidate["threshold"].cast<float>();
  const py::array patches = candidate["patches"], values = candidate["rows"];
  const uint32_t* numbers = view_elements<uint32_t>(patches, 1, "patches");
  made.patches.assign(numbers, numbers + patches.size());
  const MatrixView<const float> rows = view_matrix<float>(values, "rows");
  const auto product = candidate["product"].cast<uint32_t>();
  return locked(self, [&](Corrections& own) { return own.propose(product, made, rows, time); });
}

py::list operations(BoundCorrections& self) {
  const Turn turn(self.busy, "journal");
  py::list all;
  for (const Operation& each : self.corrections.ledger().operations()) {
    py::dict row;
    row["sequence"] = each.sequence;
    row["type"] = name_of(each.type);
    row["product"] = each.product;
    row["time"] = each.time;
    row["text"] = shown(each.text);
    row["named"] = each.named;
    row["undone_by"] = each.undone_by;
    all.append(row);
  }
  return all;
}

py::list proposals(BoundCorrections& self) {
  const Turn turn(self.busy, "journal");
  py::list all;
  for (const Proposal& each : self.corrections.ledger().proposals()) {
    py::dict row;
    row["id"] = each.id;
    row["product"] = each.product;
    row["name"] = shown(each.name);
    row["note"] = shown(each.note);
    row["image_sha256"] = each.image == Digest{} ? "" : hex(each.image);
    row["score"] = each.score;
    row["threshold"] = each.threshold;
    row["patches"] = each.patches;
    row["first_row"] = self.corrections.fitted_rows(each.product) + each.first_row;
    row["standing"] = name_of(each.standing);
    row["confirmed_by"] = each.confirmed_by;
    row["evicted_by"] = each.evicted_by;
    all.append(row);
  }
  return all;
}

py::dict changes(BoundCorrections& self, uint32_t product) {
  const Turn turn(self.busy, "journal");
  check_product(self.corrections, product);
  const BankChanges& now = self.corrections.changes(product);
  const size_t count = now.numbers.size();
  py::array_t<float> added = new_array<float>({count, self.corrections.dims(product)});
  std::copy(now.added.begin(), now.added.end(), added.mutable_data());
  py::array_t<uint32_t> numbers = new_array<uint32_t>({count}), removed = new_array<uint32_t>({now.removed.size()});
  std::copy(now.numbers.begin(), now.numbers.end(), numbers.mutable_data());
  std::copy(now.removed.begin(), now.removed.end(), removed.mutable_data());
  py::dict result;
  result["removed"] = removed;
  result["numbers"] = numbers;
  result["added"] = added;
  return result;
}

using Progress = std::function<void(const std::string&, size_t, size_t)>;

std::string compacted(BoundCorrections& self, const py::object& output, const EngineOptions& engine,
                      const std::optional<Progress>& progress) {
  const std::string path = file_path(output, "output");
  CompactOptions options;
  options.open_session = [&](std::shared_ptr<const Package> package) {
    SessionOptions session;
    session.engine = engine;
    return std::make_unique<Session>(std::move(package), session);
  };
  if (progress) {
    options.progress = [&](const char* what, size_t done, size_t total) {
      const py::gil_scoped_acquire hold;
      (*progress)(what, done, total);
    };
  }
  kernels();  // reads the environment, for which the GIL is needed
  return hex(locked(self, [&](const Corrections& own) { return compact(own, path, options); }));
}

template <typename What>
auto read(What what) {
  return [what](BoundCorrections& self) {
    const Turn turn(self.busy, "journal");
    return what(static_cast<const Corrections&>(self.corrections));
  };
}

}  // namespace

void bind_corrections(py::module_& module) {
  using Ids = std::vector<uint64_t>;
  py::class_<BoundCorrections>(module, "Corrections")
      .def(py::init([](std::shared_ptr<Package> package, const py::object& path, uint32_t max_added_rows) {
             const std::string name = file_path(path, "journal");
             const py::gil_scoped_release release;
             return std::make_unique<BoundCorrections>(std::move(package), name, max_added_rows);
           }),
           py::arg("package"), py::arg("path"), py::arg("max_added_rows") = 0)
      .def("refresh", [](BoundCorrections& self) { locked(self, [](Corrections& own) { own.refresh(); }); })
      .def("propose", &propose, py::arg("candidate"), py::arg("name"), py::arg("note"), py::arg("image_sha256"),
           py::arg("time"))
      .def(
          "confirm",
          [](BoundCorrections& self, const Ids& ids, const std::string& text, int64_t time) {
            return locked(self, [&](Corrections& own) { return own.confirm(ids, text, time); });
          },
          py::arg("ids"), py::arg("text"), py::arg("time"))
      .def(
          "reject",
          [](BoundCorrections& self, const Ids& ids, const std::string& text, int64_t time) {
            return locked(self, [&](Corrections& own) { return own.reject(ids, text, time); });
          },
          py::arg("ids"), py::arg("text"), py::arg("time"))
      .def(
          "remove",
          [](BoundCorrections& self, uint32_t product, const Ids& rows, const std::string& text, int64_t time) {
            return locked(self, [&](Corrections& own) { return own.remove(product, rows, text, time); });
          },
          py::arg("product"), py::arg("rows"), py::arg("text"), py::arg("time"))
      .def(
          "undo",
          [](BoundCorrections& self, const std::string& text, int64_t time) {
            return locked(self, [&](Corrections& own) { return own.undo(text, time); });
          },
          py::arg("text"), py::arg("time"))
      .def("compact", &compacted, py::arg("output"), py::arg("engine"), py::arg("progress") = py::none())
      .def_property_readonly("operations", &operations)
      .def_property_readonly("proposals", &proposals)
      .def("changes", &changes, py::arg("product") = 0)
      .def_property_readonly("path", read([](const Corrections& own) { return path_text(own.path()); }))
      .def_property_readonly("exists", read([](const Corrections& own) { return own.state().exists; }))
      .def_property_readonly("head", read([](const Corrections& own) { return hex(own.state().head); }))
      .def_property_readonly("torn_bytes", read([](const Corrections& own) { return own.state().torn_bytes; }))
      .def_property_readonly("max_added_rows", read([](const Corrections& own) { return own.max_added_rows(); }));
}

}  // namespace onceover
