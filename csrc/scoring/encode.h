// Rows of the memory bank → the codes, refinements and error norms of their slots, computed in float64.
#pragma once

#include <vector>

#include "base/memory.h"
#include "kernels/kernel_table.h"
#include "scoring/search_index.h"

namespace onceover {

// Fills row_norms from row `first` on.
void write_row_norms(const SearchIndex& index, size_t first);

// Stores a projection (rank2, padded dims), row-major, in the tiled layout that dot_i8 reads.
void write_projection(const SearchIndex& index, const int8_t* rows);

// Chooses step, tail_mean and weights from up to 4096 of the given rows: the step that leaves the smallest errors when
// the farthest values are clamped. Writes the weights into the index, the rest into the header.
void choose_steps(const SearchIndex& index, IndexHeader& header, const uint32_t* ids, size_t count,
                  const KernelTable& table, Memory& memory);

// Codes all slots from `first_slot` on (a multiple of 32): ids[i] goes to slot first_slot + i, the last slots stay
// empty.
void encode_slots(const SearchIndex& index, size_t first_slot, const std::vector<uint32_t>& ids,
                  const KernelTable& table, Memory& memory);

}  // namespace onceover
