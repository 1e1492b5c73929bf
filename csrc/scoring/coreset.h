// Greedy k-center selection (farthest point), PatchCore's coreset (Roth et al. 2022, arXiv:2106.08265, algorithm 1).
#pragma once

#include <cstdint>
#include <vector>

#include "base/matrix_view.h"
#include "base/memory.h"
#include "kernels/kernel_table.h"

namespace onceover {

// Starts from `first`; each step adds the row farthest from the selection, lowest index on ties. Resumable, so that
// the caller can show progress and stop. Points (N, d) stay the caller's and must outlive the object.
class GreedyCoreset {
 public:
  GreedyCoreset(MatrixView<const float> points, size_t first, const KernelTable& table, Memory& memory);
  // Adds up to `count` rows; stops early when every remaining row coincides with the selection.
  void select(size_t count);
  const std::vector<uint32_t>& selected() const noexcept { return selected_; }
  // Distance of the farthest row to the selection: how well the selection covers the points.
  float covering_radius() const;

 private:
  MatrixView<const float> points_;
  const KernelTable& table_;
  Buffer<float> min_squared_;
  size_t next_;
  std::vector<uint32_t> selected_;
};

}  // namespace onceover
