// Which queries share a group: near ones, because a block that one lane must look at again costs the same for all 16.
#pragma once

#include "base/matrix_view.h"
#include "kernels/kernel_table.h"
#include "scoring/scratch.h"
#include "scoring/search_index.h"

namespace onceover {

inline constexpr size_t kOrderWindow = 1024;  // queries put in order together

struct OrderedQuery {
  float along[kOrderAxes];
  uint32_t query;
};

// Fills order[0, count) with the numbers first … first + count − 1, count ≤ kOrderWindow: halves along the widest of
// four axes, down to groups of 16. Only speed depends on it.
void order_queries(const SearchIndex& index, MatrixView<const float> queries, size_t first, size_t count,
                   const KernelTable& table, OrderedQuery* buffer, uint32_t* order) noexcept;

}  // namespace onceover
