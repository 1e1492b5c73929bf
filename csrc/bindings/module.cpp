// The module onceover._core: one function per room, and the translation of Status into the classes of onceover.errors.
#include <pybind11/pybind11.h>

#include <cstring>

#include "base/error.h"
#include "bindings/bind.h"

namespace py = pybind11;

namespace onceover {

namespace {

// The class whose `code` is this status (onceover/errors.py).
const char* class_of(Status status) {
  switch (status) {
    case Status::kInput:
      return "InputError";
    case Status::kUsage:
      return "UsageError";
    case Status::kUnknownName:
      return "UnknownNameError";
    case Status::kPackage:
      return "PackageError";
    case Status::kUnsupported:
      return "UnsupportedPackageError";
    case Status::kEngine:
      return "EngineError";
    case Status::kMemory:
      return "MemoryLimitError";
    case Status::kVerification:
      return "VerificationError";
    case Status::kOutput:
      return "OutputError";
    case Status::kInternal:
      break;
  }
  return "InternalError";
}

void translate(std::exception_ptr pointer) {
  try {
    if (pointer) std::rethrow_exception(pointer);
  } catch (const Error& error) {
    try {  // imported only when something is raised: the module itself needs nothing of the package
      const py::object type = py::module_::import("onceover.errors").attr(class_of(error.status()));
      // Messages quote paths and bytes of damaged files, which may be no UTF-8.
      PyObject* text =
          PyUnicode_DecodeUTF8(error.what(), static_cast<Py_ssize_t>(std::strlen(error.what())), "replace");
      if (text == nullptr) throw py::error_already_set();
      PyErr_SetObject(type.ptr(), py::reinterpret_steal<py::str>(text).ptr());
    } catch (py::error_already_set& failed) {
      failed.restore();
    }
  }
}

}  // namespace
}  // namespace onceover

PYBIND11_MODULE(_core, m) {
  m.doc() = "The compiled core of onceover; see _core.pyi.";
  m.attr("__version__") = ONCEOVER_VERSION;
  py::register_exception_translator(onceover::translate);
  onceover::bind_image(m);
  onceover::bind_scoring(m);
  onceover::bind_memory_bank(m);
  onceover::bind_measuring(m);
  onceover::bind_metrics(m);
  onceover::bind_monitor(m);
  onceover::bind_package(m);
  onceover::bind_records(m);
  onceover::bind_corrections(m);  // before the sessions that apply them
  onceover::bind_session(m);
}
