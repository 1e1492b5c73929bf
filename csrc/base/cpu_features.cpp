// CPU and OS checks. GCC's and Clang's __builtin_cpu_supports reads XCR0 too: an OS that does not save the wide
// registers makes it answer no.
#include "base/cpu_features.h"

namespace onceover {

bool cpu_runs_scalar() noexcept { return true; }

bool cpu_runs_avx2() noexcept {
#if defined(__x86_64__)
  __builtin_cpu_init();  // we may be called from a static constructor
  return __builtin_cpu_supports("avx2");
#else
  return false;
#endif
}

}  // namespace onceover
