// CPU and OS checks. GCC's and Clang's __builtin_cpu_supports reads XCR0 too: an OS that does not save the wide
// registers makes it answer no.
#include "base/cpu_features.h"

namespace onceover {

bool cpu_runs_scalar() noexcept { return true; }

#if defined(__x86_64__)
// __builtin_cpu_init: we may be called from a static constructor.
bool cpu_runs_avx2() noexcept { return __builtin_cpu_init(), __builtin_cpu_supports("avx2"); }
bool cpu_runs_avx512() noexcept { return __builtin_cpu_init(), __builtin_cpu_supports("avx512f"); }
#else
bool cpu_runs_avx2() noexcept { return false; }
bool cpu_runs_avx512() noexcept { return false; }
#endif

}  // namespace onceover
