// Paths as Python gives them (str, also with surrogates for bytes that are no UTF-8; bytes; os.PathLike) → the bytes
// the system knows the file by, and back.
#pragma once

#include <pybind11/pybind11.h>

#include <string>

#include "base/error.h"

namespace onceover {

// Throws TypeError for what is no path, Error(kUsage) for what cannot be the name of a file: a NUL would end the name
// early, for another file than the one asked for.
inline std::string file_path(const pybind11::object& path, const char* what) {
  PyObject* encoded = nullptr;
  if (PyUnicode_FSConverter(path.ptr(), &encoded) != 0) return pybind11::reinterpret_steal<pybind11::bytes>(encoded);
  pybind11::error_already_set error;
  if (!error.matches(PyExc_ValueError)) throw error;
  fail(Status::kUsage, "%s %s cannot name a file: %s", what, std::string(pybind11::repr(path)).c_str(),
       std::string(pybind11::str(error.value())).c_str());
}

// A path, or a label that was one, as str: bytes that are no UTF-8 become surrogates, which file_path turns back.
inline pybind11::str path_text(const std::string& path) {
  PyObject* text = PyUnicode_DecodeUTF8(path.data(), static_cast<Py_ssize_t>(path.size()), "surrogateescape");
  if (text == nullptr) throw pybind11::error_already_set();
  return pybind11::reinterpret_steal<pybind11::str>(text);
}

}  // namespace onceover
