// What this CPU and its operating system can run. One function per line of kernels/kernels.def, named after its symbol.
#pragma once

namespace onceover {

bool cpu_runs_scalar() noexcept;
// False on other architectures, and where the OS does not save the registers.
bool cpu_runs_avx2() noexcept;  // and FMA, as every such CPU has
bool cpu_runs_avxvnni() noexcept;
bool cpu_runs_avx512vnni() noexcept;  // with BW, DQ and VL
bool cpu_runs_amx() noexcept;         // int8 tiles; asks the OS for them, once for the process
bool cpu_runs_neon() noexcept;
bool cpu_runs_neon_dotprod() noexcept;
bool cpu_runs_neon_i8mm() noexcept;

}  // namespace onceover
