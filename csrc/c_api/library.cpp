// What the library is: its version, its ABI, the instruction set it uses.
#include "c_api/guard.h"
#include "kernels/dispatch.h"

const char* onceover_version(void) { return ONCEOVER_VERSION; }

uint32_t onceover_abi_version(void) { return ONCEOVER_ABI_VERSION; }

onceover_status onceover_isa(const char** name) {
  return onceover::guarded(__func__, [&] { *onceover::required(name, "name") = onceover::kernels().name; });
}
