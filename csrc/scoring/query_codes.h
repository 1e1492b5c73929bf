// Queries as the screen sees them: centered, projected in whole numbers, coded, with a bound on everything lost.
#pragma once

#include "base/matrix_view.h"
#include "kernels/kernel_table.h"
#include "scoring/scratch.h"
#include "scoring/search_index.h"

namespace onceover {

enum class QueryKind : uint8_t {
  kCoded,      // screened
  kScan,       // to be scanned in float32: the screen gave up, or there are no codes
  kFloat64,    // finite, but outside the range of float32 arithmetic
  kNotFinite,  // holds a NaN or infinity: no neighbor at all
  kAbsent,     // a lane without a query
};

// Per query what its bounds need; EXACTNESS.md sections 3 to 5.
struct QueryBounds {
  QueryKind kind;
  float tail;               // norm of what the rank2 − 1 directions leave (kRank)
  double code_error;        // ≥ |what the codes stand for − the true coordinates|
  double refined_error;     // ≥ |z as computed − the true coordinates|
  double half_norm;         // |code|² · 4^shift / 2, in steps²
  double screen_half_norm;  // the same of the coordinates screened
};

// 16 queries (a group).
struct QueryGroup {
  const uint32_t* which;  // [count] its queries
  size_t count;           // 1 to 16
  int8_t* tile;           // [rank1 / 64][1024]
  int32_t* shifts;        // [16], beyond the table's unit_shift
  bool has_shifts;        // any not zero
  float* z;               // [16][rank2]
  QueryBounds* bounds;    // [16]
};

// Buffers that coding one group takes.
struct CodingBuffers {
  float* x;              // [padded] one centered query
  int8_t* planes[2];     // [16][padded] high and low codes
  int8_t* tiles[2];      // [plane tiles][1024]
  int32_t* products[2];  // [rank2][16]
  int32_t* offset_sums;  // [rank2]
  float* lanes;          // [rank2][16] z of all queries side by side
  CodingBuffers(Scratch& scratch, const SearchIndex& index);
};

// Fills tile, shifts, z and bounds of the group's queries.
void code_group(const SearchIndex& index, MatrixView<const float> queries, const KernelTable& table,
                CodingBuffers& buffers, QueryGroup& group) noexcept;

// Kind of a query, with the largest bit pattern that center_f32 gave for it.
QueryKind judge(const SearchIndex& index, const float* query, uint32_t largest_bits) noexcept;

}  // namespace onceover
