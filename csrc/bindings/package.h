// Registers Package, PackageWriter, Config, ParityItem and the functions that make fixed members.
#pragma once

#include <pybind11/pybind11.h>

namespace onceover {

void bind_package(pybind11::module_& module);

}  // namespace onceover
