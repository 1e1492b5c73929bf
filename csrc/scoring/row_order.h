// Near rows together: an order of the rows in which each block of 32 is compact, so that few blocks are hit.
#pragma once

#include <vector>

#include "base/matrix_view.h"
#include "base/memory.h"
#include "kernels/kernel_table.h"

namespace onceover {

// `ids` in a k-d tree's order (Bentley 1975) over their coordinates along `count` directions (rows of `padded` float64,
// most variance first): halves along the coordinate of largest spread, down to blocks. Without directions, as given.
std::vector<uint32_t> near_rows_together(MatrixView<const float> rows, const std::vector<uint32_t>& ids,
                                         const float* mean, const double* directions, size_t count, size_t padded,
                                         const KernelTable& table, Memory& memory);

}  // namespace onceover
