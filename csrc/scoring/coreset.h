// Greedy k-center selection (farthest point), PatchCore's coreset (Roth et al. 2022, arXiv:2106.08265, algorithm 1).
//
// The plain algorithm: at every step lower each row's squared distance to the selection (lower_to_center_f32), then
// select the farthest row. This class selects the same rows, bit for bit, with a fraction of the work:
//
// - A distance to a growing selection only falls. So a row that was nearer when last looked at than the farthest row is
//   now cannot be selected next, however many centers it has not met since, and it is left alone. Only the
//   contenders, some of the farthest rows, meet each new center; when they have all fallen behind, new ones are found.
// - A candidate need not meet all the centers it missed: the first one that brings it below the contenders' bar will
//   do. Those in its own cell (the rows nearest to the same one of the first 64 centers) are tried first, latest first.
// - What is left meets all the centers it missed in blocks, out of the cache; a plain step reads all rows from memory.
//
// Nothing is estimated, so there is no rounding slack: rows are passed over by comparing distances the kernels gave,
// and what is selected has met every center. Why the bits are those of the plain algorithm: kernels give a pair of rows
// one distance (kernel_table.h; a − b and b − a differ in sign only), never NaN between finite rows, and the least of a
// set does not depend on the order in which it is met, nor on meeting an element twice.
#pragma once

#include <cstdint>
#include <vector>

#include "base/matrix_view.h"
#include "base/memory.h"
#include "kernels/kernel_table.h"
#include "scoring/packed_rows.h"

namespace onceover {

// Starts from `first`; each step adds the row farthest from the selection, lowest index on ties. Resumable, so that
// the caller can show progress and stop. Points (N, d) stay the caller's and must outlive the object, which holds 17
// bytes per row and copies of at most 2,048 rows.
class GreedyCoreset {
 public:
  GreedyCoreset(MatrixView<const float> points, size_t first, const KernelTable& table, Memory& memory);
  // Adds up to `count` rows; stops early when every remaining row coincides with the selection.
  void select(size_t count);
  const std::vector<uint32_t>& selected() const noexcept { return selected_; }
  // Distance of the farthest row to the selection: how well the selection covers the points.
  float covering_radius() const;

 private:
  void find_next();
  void find_contenders();
  void lower_bar();
  size_t collect_candidates();
  size_t try_cells(size_t count);
  size_t catch_up(size_t count);
  void pack_contenders(size_t count);
  void retire_contenders();
  void make_cells();
  void meet(const uint32_t* centers, size_t count, uint32_t met);
  size_t unpack_batch(size_t count);
  void add(PackedRows& to, uint32_t row) const;

  MatrixView<const float> points_;
  const KernelTable& table_;
  size_t next_;
  float next_squared_;
  std::vector<uint32_t> selected_;  // the centers in order; a center's number is its place here
  Buffer<float> squared_;           // of each row, to the nearest center it has met
  Buffer<uint32_t> met_;            // each row has met the centers numbered below met_[row], and perhaps later ones

  PackedRows contenders_;  // have met every center, by rising row; every other row ranks below the bar
  uint64_t bar_ = 0;       // a rank, see coreset.cpp
  size_t wanted_;          // about how many candidates to look for contenders among
  Buffer<uint32_t> candidates_;
  PackedRows batch_;  // of candidates

  Buffer<uint8_t> cell_;                             // of each row, once there are cells
  Buffer<uint32_t> rows_by_cell_;                    // 0 … N − 1 until then
  std::vector<std::vector<uint32_t>> cell_centers_;  // numbers of each cell's centers, rising; empty until then
};

}  // namespace onceover
