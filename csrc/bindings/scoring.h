// What the doors of scoring share.
#pragma once

#include <optional>
#include <string>

#include "kernels/dispatch.h"

namespace onceover {

using IsaName = std::optional<std::string>;

// Call it with the GIL, under which os.environ is written: the first call reads ONCEOVER_ISA.
inline const KernelTable& table_for(const IsaName& isa) { return isa ? kernels_named(isa->c_str()) : kernels(); }

}  // namespace onceover
