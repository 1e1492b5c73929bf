// Exact nearest neighbor in a memory bank by direct differences (float32 fused scan).
#pragma once

#include <cstdint>

#include "base/matrix_view.h"
#include "kernels/kernel_table.h"

namespace onceover {

// For each query row (Q, D): Euclidean distance (one sqrt at this edge) and lowest index of the nearest bank row
// (M, D), M ≥ 1. A query with a non-finite value gives distance +inf and index UINT32_MAX (−1), never a small score.
// Tiles so that bank rows stay in cache; allocates nothing. bank.stride and queries.stride must equal D.
void nearest_neighbor(MatrixView<const float> queries, MatrixView<const float> bank, float* distance, uint32_t* index,
                      const KernelTable& table);

// Throws Error(kInput) naming the first row with a NaN or infinity.
void check_finite_rows(MatrixView<const float> rows, const char* what);

}  // namespace onceover
