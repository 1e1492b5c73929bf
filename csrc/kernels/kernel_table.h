// The contract of every kernel: one table of function pointers per instruction set. Plain C types only, because ISA
// files include nothing but intrinsics and this header.
//
// All sums of squares are accumulated in 16 float32 partial sums (element i goes to partial i mod 16, multiply and
// add rounded separately, no FMA), reduced as ((p[j] + p[j+8]) for j < 8, then + 4, + 2, + 1), so that every
// instruction set returns the same bits. Tails are zero-padded: adding (0 − 0)² changes no partial sum.
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
  // returns the lowest index of the largest updated value.
  size_t (*lower_to_center_f32)(const float* points, size_t row_count, size_t dims, const float* center,
                                float* min_squared);
};

}  // namespace onceover
