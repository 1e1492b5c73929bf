// Which kernels run: chosen once, the best this CPU and OS support, or what ONCEOVER_ISA names.
#pragma once

#include <vector>

#include "kernels/kernel_table.h"

namespace onceover {

// The active table. Throws Error(kUnknownName) when ONCEOVER_ISA names one that does not exist (with the known
// names) and Error(kUsage) when this machine cannot run it; never falls back silently.
const KernelTable& kernels();

// Every table this machine can run, best first.
std::vector<const KernelTable*> available_kernels();

// A named table of available_kernels(); throws as kernels() does. For tests and benchmarks.
const KernelTable& kernels_named(const char* name);

}  // namespace onceover
