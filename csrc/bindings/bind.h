// One function per room: what it adds to the module is listed in python/onceover/_core.pyi.
#pragma once

#include <pybind11/pybind11.h>

namespace onceover {

void bind_corrections(pybind11::module_& module);
void bind_image(pybind11::module_& module);
void bind_scoring(pybind11::module_& module);
void bind_memory_bank(pybind11::module_& module);
void bind_measuring(pybind11::module_& module);
void bind_metrics(pybind11::module_& module);
void bind_monitor(pybind11::module_& module);
void bind_package(pybind11::module_& module);
void bind_records(pybind11::module_& module);
void bind_session(pybind11::module_& module);

}  // namespace onceover
