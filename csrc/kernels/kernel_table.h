// The contract of every kernel: one table of function pointers per instruction set. Plain C types only, because ISA
// files include nothing but intrinsics and this header.
//
// All sums of squares are accumulated in 16 float32 partial sums (element i goes to partial i mod 16, multiply and
// add rounded separately, no FMA), reduced as ((p[j] + p[j+8]) for j < 8, then + 4, + 2, + 1), so that every
// instruction set returns the same bits. Tails are zero-padded: adding (0 − 0)² changes no partial sum.
//
// Error of a squared distance against exact arithmetic on the same float32 inputs, u = 2^-24: a difference is off by
// one rounding, so its square by three (two of the difference, one of the product); a partial sum takes
// ⌈D/16⌉ − 1 rounded additions (the first, to zero, is exact), the tree 4. All terms are ≥ 0, so the relative
// error of the sum is at most k·u / (1 − k·u) with k = ⌈D/16⌉ + 6: 8.3e-7 at D = 128. Products below 2^-126 add at
// most D·2^-150 (differences under 1e-19 lose digits, under 2.6e-23 count as 0); squares above 3.4e38 become +inf,
// which never wins: such a distance (over 1.8e19) is reported as infinite, not as small.
#pragma once

#include <cstddef>
#include <cstdint>

namespace onceover {

struct KernelTable {
  const char* name;

  // For each of `query_count` queries (row stride `dims`), the smallest squared L2 distance to bank rows
  // [0, row_count) and the lowest index that attains it. Replaces (best_squared, best_index) only when strictly
  // smaller, so that banks can be scanned in pieces with ascending first_index. NaN distances never win.
  void (*nearest_row_f32)(const float* queries, size_t query_count, const float* bank, size_t row_count, size_t dims,
                          uint32_t first_index, float* best_squared, uint32_t* best_index);

  // Greedy k-center step: min_squared[i] ← min(min_squared[i], |points[i] − center|²) for points (row_count, dims);
  // returns the lowest index of the largest updated value. min_squared holds no NaN; row_count < 2^32.
  size_t (*lower_to_center_f32)(const float* points, size_t row_count, size_t dims, const float* center,
                                float* min_squared);
};

}  // namespace onceover
