// The members "memory_bank" and "bank_index" of a package, checked and viewed in place.
#pragma once

#include "base/memory.h"
#include "kernels/kernel_table.h"
#include "package/config.h"
#include "scoring/search_index.h"

namespace onceover {

// The memory bank (M, D), read in place from the package. Throws Error(kPackage) for another D than the config's, no
// rows, or a value that is not finite.
MatrixView<const float> memory_bank_of(const Package& package, const Config& config, uint32_t product = 0);

// The bank's search index, read in place; without one, an index for scanning in `own`. Throws Error(kPackage) for one
// that is damaged or made for other rows.
SearchIndex index_of(const Package& package, MatrixView<const float> bank, const KernelTable& table, Memory& memory,
                     Buffer<uint8_t>& own, uint32_t product = 0);

}  // namespace onceover
