// Exact k nearest rows of a memory bank: screen all rows by integer codes, prove that almost none can be near enough,
// measure the rest in float64. EXACTNESS.md proves every bound.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

#include "base/matrix_view.h"
#include "kernels/kernel_table.h"
#include "scoring/search_index.h"

namespace onceover {

inline constexpr size_t kMaxNeighbors = 32;

// What a search did, so that slow inputs can be seen. All counts over the queries of the call.
struct SearchStats {
  uint64_t queries = 0;
  uint64_t coarse_queries = 0;   // far out: coded on a coarser step
  uint64_t hit_blocks = 0;       // blocks of 32 rows looked at again, per 16 queries
  uint64_t refined_rows = 0;     // rows that took the second bound
  uint64_t measured_rows = 0;    // float rows read, in float32
  uint64_t exact_rows = 0;       // float rows measured in float64
  uint64_t scanned_queries = 0;  // fallbacks: the screen did not prune, all rows were scanned in float32
  uint64_t float64_queries = 0;  // outside the range of float32 arithmetic: all rows measured in float64
};
void add_to(SearchStats& total, const SearchStats& part) noexcept;

// Bytes of scratch that one call needs; 64-byte aligned.
size_t search_scratch_bytes(const SearchIndex& index, size_t k);

// For every query row (Q, D) the k rows with the smallest squared_f64, lowest index first on ties, ascending:
// distances (Q, k) = float32(sqrt(squared_f64)), indices (Q, k). Fewer than k rows, or a query with a NaN or infinity:
// distance +inf and index kNoRow. Allocates nothing, throws nothing; the same bits for every table and every split of
// the queries. 1 ≤ k ≤ kMaxNeighbors; queries.columns must equal index.dims, any stride.
void search(const SearchIndex& index, MatrixView<const float> queries, size_t k, float* distances, uint32_t* indices,
            const KernelTable& table, uint8_t* scratch, SearchStats& stats) noexcept;

// Only counts what `search` would do, but for scans of which `needless`, given all counts but theirs, says that they
// would tell nothing more: scans take longest, and where many are needed it is soon known that this is no way to
// search.
void count_search(const SearchIndex& index, MatrixView<const float> queries, size_t k, const KernelTable& table,
                  const std::function<bool(const SearchStats&)>& needless, Memory& memory, SearchStats& stats);

}  // namespace onceover
