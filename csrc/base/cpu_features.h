// What this CPU and its operating system can run. One function per line of kernels/kernels.def, named after its symbol.
#pragma once

namespace onceover {

bool cpu_runs_scalar() noexcept;
// False on other architectures, and where the OS does not save the registers.
bool cpu_runs_avx2() noexcept;
bool cpu_runs_avx512() noexcept;  // the foundation, AVX512F

}  // namespace onceover
