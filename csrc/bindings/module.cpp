// The module onceover._core: one function per room, and the translation of Status into the classes of onceover.errors.
#include <pybind11/pybind11.h>

#include "base/error.h"

namespace py = pybind11;

namespace onceover {

void bind_image(py::module_& m);
void bind_scoring(py::module_& m);
void bind_package(py::module_& m);
void bind_session(py::module_& m);

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
      PyErr_SetString(type.ptr(), error.what());
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
  onceover::bind_package(m);
  onceover::bind_session(m);
}
