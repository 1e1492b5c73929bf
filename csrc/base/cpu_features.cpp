// CPU and OS checks. GCC's and Clang's __builtin_cpu_supports reads XCR0 too: an OS that does not save the wide
// registers makes it answer no.
#include "base/cpu_features.h"

#if defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#ifndef HWCAP2_I8MM  // Linux headers before 5.10
#define HWCAP2_I8MM (1 << 13)
#endif
#endif
#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

namespace onceover {

bool cpu_runs_scalar() noexcept { return true; }

#if defined(__x86_64__)
namespace {
// Leaf 7, subleaf 1, EAX bit 4. GCC 12 has no name for it in __builtin_cpu_supports.
bool has_avx_vnni_bit() noexcept {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 && (eax >> 4 & 1) != 0;
}
}  // namespace

bool cpu_runs_avx2() noexcept {
  return __builtin_cpu_init(), __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
bool cpu_runs_amx() noexcept {
#if defined(__linux__)
  constexpr unsigned kTileBits = 1u << 24 | 1u << 25;          // leaf 7, EDX: AMX-TILE and AMX-INT8
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (!cpu_runs_avx512vnni() || __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return false;
  if ((edx & kTileBits) != kTileBits) return false;
  // Refused by old kernels, seccomp filters and some containers: then the tiles would fault.
  static const bool granted = syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return granted;
#else
  return false;
#endif
}
bool cpu_runs_avxvnni() noexcept { return cpu_runs_avx2() && has_avx_vnni_bit(); }
bool cpu_runs_avx512vnni() noexcept {
  return __builtin_cpu_init(), __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                                   __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                                   __builtin_cpu_supports("avx512vnni");
}
#else
bool cpu_runs_amx() noexcept { return false; }
bool cpu_runs_avx2() noexcept { return false; }
bool cpu_runs_avxvnni() noexcept { return false; }
bool cpu_runs_avx512vnni() noexcept { return false; }
#endif

#if defined(__aarch64__)
bool cpu_runs_neon() noexcept { return true; }  // part of the architecture
#if defined(__linux__)
bool cpu_runs_neon_dotprod() noexcept { return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0; }
bool cpu_runs_neon_i8mm() noexcept { return cpu_runs_neon_dotprod() && (getauxval(AT_HWCAP2) & HWCAP2_I8MM) != 0; }
#else
bool cpu_runs_neon_dotprod() noexcept { return false; }
bool cpu_runs_neon_i8mm() noexcept { return false; }
#endif
#else
bool cpu_runs_neon() noexcept { return false; }
bool cpu_runs_neon_dotprod() noexcept { return false; }
bool cpu_runs_neon_i8mm() noexcept { return false; }
#endif

}  // namespace onceover
