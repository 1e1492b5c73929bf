// What this CPU and its operating system can run. One function per line of kernels/kernels.def, named after its symbol.
#pragma once

namespace onceover {

bool cpu_runs_scalar() noexcept;
bool cpu_runs_avx2() noexcept;  // instructions, and YMM registers saved by the OS; false on other architectures

}  // namespace onceover
