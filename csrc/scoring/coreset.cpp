// One kernel call per selected row: lower every point's distance to the selection, and learn which is farthest.
#include "scoring/coreset.h"

#include <cmath>
#include <limits>

#include "base/error.h"
#include "scoring/nearest_neighbor.h"

namespace onceover {

GreedyCoreset::GreedyCoreset(MatrixView<const float> points, size_t first, const KernelTable& table, Memory& memory)
    : points_(points), table_(table), min_squared_(memory, points.rows, "coreset distances"), next_(first) {
  if (points.rows == 0 || points.columns == 0 || points.rows >= UINT32_MAX || points.stride != points.columns) {
    fail(Status::kInput, "coreset points are %zu x %zu (stride %zu); expected 1 to 2^32 - 2 contiguous rows",
         points.rows, points.columns, points.stride);
  }
  if (first >= points.rows) {
    fail(Status::kUsage, "coreset starts from row %zu, but there are %zu rows (0 to %zu)", first, points.rows,
         points.rows - 1);
  }
  check_finite_rows(points, "coreset points");  // a NaN would be the farthest row for ever
  for (float& squared : min_squared_) squared = std::numeric_limits<float>::infinity();
}

void GreedyCoreset::select(size_t count) {
  for (; count > 0 && min_squared_[next_] > 0; --count) {
    const size_t chosen = next_;
    selected_.push_back(static_cast<uint32_t>(chosen));
    next_ = table_.lower_to_center_f32(points_.data, points_.rows, points_.columns, points_.row(chosen),
                                       min_squared_.data());
  }
}

float GreedyCoreset::covering_radius() const { return std::sqrt(min_squared_[next_]); }

}  // namespace onceover
