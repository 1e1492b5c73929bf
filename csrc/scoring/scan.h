// The fallback: every row against every query in float32, fused (nothing of size Q × M is written), then exact
// distances of the few rows that its rounding cannot tell apart from the nearest. Reads no codes.
#pragma once

#include "scoring/neighbors.h"
#include "scoring/search.h"

namespace onceover {

inline constexpr size_t kScanLanes = 432;  // queries of one pass over the rows: 27 tiles, and 784 queries take two

size_t scan_scratch_bytes(const SearchIndex& index);

// Fills neighbors[i] (k entries at `entries` + i · k) of queries.row(which[i]), i < count, all finite. The caller has
// checked that the scales of bank and queries are safe (search.cpp).
void scan(const SearchIndex& index, MatrixView<const float> queries, const uint32_t* which, size_t count, size_t k,
          Neighbor* entries, const KernelTable& table, uint8_t* scratch, SearchStats& stats) noexcept;

// The same by float64 alone, for one query of any finite scale: the definition of the result.
void scan_float64(const SearchIndex& index, const float* query, Neighbors found, const KernelTable& table,
                  SearchStats& stats) noexcept;

}  // namespace onceover
