// Where a memory bank varies most, as whole numbers: principal directions by subspace iteration, rotated at random so
// that every coordinate carries its share, rounded to int8, and scaled to a contraction, which is all that exactness
// needs of them (EXACTNESS.md section 2).
#pragma once

#include "base/matrix_view.h"
#include "base/memory.h"
#include "kernels/kernel_table.h"

namespace onceover {

// The `count` leading principal directions (count, padded) of rows − mean, float64, orthonormal up to rounding, most
// variance first; from at most max(4096, 2·D) rows, evenly spread over `which`. padded ≥ D is their stride.
Buffer<double> principal_directions(MatrixView<const float> rows, const uint32_t* which, size_t which_count,
                                    const float* mean, size_t count, size_t padded, const KernelTable& table,
                                    Memory& memory);

struct Projection {
  Buffer<int8_t> rows;  // (rank2, padded) row-major; row rank1 − 1 is zero
  double scale = 0;     // times `rows`: largest singular value ≤ 1
};

// directions: at least rank2 − 1 of them. Row rank1 − 1 is the last of those screened: the screened − 1 rows before it
// are the first directions, rotated among themselves; the rank1 − screened rows before these are the next ones, and the
// rows from rank1 on the others, both likewise.
Projection make_projection(const Buffer<double>& directions, size_t screened, size_t rank1, size_t rank2, size_t padded,
                           uint64_t seed, const KernelTable& table, Memory& memory);

// An upper bound on the largest eigenvalue of a symmetric positive semidefinite matrix (n, n), n a multiple of 16, at
// most 0.1 % above it for n ≤ 256.
double eigenvalue_bound(const double* matrix, size_t n, const KernelTable& table, Memory& memory);

}  // namespace onceover
