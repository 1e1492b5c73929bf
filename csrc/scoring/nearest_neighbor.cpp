// Walks the memory bank in tiles that stay in the first-level cache while every query passes over them.
#include "scoring/nearest_neighbor.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/finite.h"

namespace onceover {
namespace {

constexpr size_t kTileBytes = 16 * 1024;  // half of the smallest first-level data cache in use; the rest is queries

}  // namespace

void nearest_neighbor(MatrixView<const float> queries, MatrixView<const float> bank, float* distance, uint32_t* index,
                      const KernelTable& table) {
  const size_t dims = bank.columns;
  if (bank.rows == 0 || dims == 0 || bank.rows >= UINT32_MAX) {
    fail(Status::kInput, "memory bank is %zu x %zu; expected 1 to 2^32 - 2 rows of at least one value", bank.rows,
         dims);
  }
  if (queries.columns != dims || queries.stride != dims || bank.stride != dims) {
    fail(Status::kInput,
         "queries have %zu values per row (stride %zu), the memory bank %zu (stride %zu); all must agree",
         queries.columns, queries.stride, dims, bank.stride);
  }
  std::fill_n(distance, queries.rows, std::numeric_limits<float>::infinity());
  std::fill_n(index, queries.rows, UINT32_MAX);
  const size_t tile_rows = std::max<size_t>(4, kTileBytes / (dims * sizeof(float)));
  for (size_t row = 0; row < bank.rows; row += tile_rows) {
    table.nearest_row_f32(queries.data, queries.rows, bank.row(row), std::min(tile_rows, bank.rows - row), dims,
                          static_cast<uint32_t>(row), distance, index);
  }
  for (size_t q = 0; q < queries.rows; ++q) distance[q] = std::sqrt(distance[q]);
}

void check_finite_rows(MatrixView<const float> rows, const char* what) {
  for (size_t i = 0; i < rows.rows; ++i) {
    if (!all_finite(rows.row(i), rows.columns)) {
      fail(Status::kInput, "%s: row %zu of %zu holds a NaN or infinity; every value must be finite", what, i,
           rows.rows);
    }
  }
}

}  // namespace onceover
