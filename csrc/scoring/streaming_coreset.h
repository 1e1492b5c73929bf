// k-center selection over rows that pass by once: memory for the selection, not for the rows.
//
// The greedy algorithm (coreset.h) needs all rows at every step. What it leaves behind is a net: no two selected rows
// nearer than its covering radius R, every row within R of one. A net of a given radius can be kept in one pass: take
// each row that no taken row is within the radius of. Which radius leaves `count` rows is known only at the end, so a
// ladder of nets is kept, each 5 % wider than the one before (guesses of the radius side by side, as in McCutchen &
// Khuller 2008, doi:10.1007/978-3-540-85363-3_14). A net that outgrows `count` is given up; the finest that has not is
// the selection, and its radius is no estimate: no row that passed is farther from it. The nets begin with the greedy
// selection of a sample, so that the ladder starts near the right radius and holds outliers first.
//
// One search asks all nets. Rows lie in the cells of the first 256 seeds, the pivots, which are far apart; each knows
// by a bit which nets it is in. By the triangle inequality most cells hold nothing near enough. Distances are those of
// the kernels, so every instruction set selects the same rows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/matrix_view.h"
#include "kernels/kernel_table.h"

namespace onceover {

class StreamingCoreset {
 public:
  // seeds (S, d): a greedy selection of a sample in its order, all finite, with an id of each; radius: how well it
  // covers the sample, which need not be added any more. Throws Error(kInput, kUsage).
  StreamingCoreset(MatrixView<const float> seeds, const uint64_t* ids, float radius, size_t count,
                   const KernelTable& table);
  // Rows (n, d) and an id of each; returns which of them were taken, rising: what the caller has beside a row is needed
  // for these.
  std::vector<uint32_t> add(MatrixView<const float> rows, const uint64_t* ids);
  // No row that passed is farther than this from the selection.
  float covering_radius() const;
  // Ids of the selection, rising: the finest net of at most `count` rows; what is left of `count` is filled with the
  // farthest rows of the other nets.
  std::vector<uint64_t> selected() const;
  // Ids of every row that may still be selected, rising.
  std::vector<uint64_t> held() const;

 private:
  using Nets = uint64_t;  // a set of nets, the finest is bit 0
  struct Net {
    float radius, squared_radius;
    size_t size = 0;
    size_t leading_pivots = 0;  // as many of the first pivots are all in it
  };
  struct Cell {
    float reach = 0;  // of its rows from the pivot
    std::vector<float> rows;
    std::vector<uint64_t> ids;
    std::vector<Nets> nets;  // that each row is in
  };
  struct Block;
  void make_ladder(float finest);
  void measure(MatrixView<const float> rows, Block& block) const;
  void ask_pivots(Block& block) const;
  Nets left_by_cells(const float* row, Block& block, size_t number) const;
  Nets left_by_cell(const Cell& cell, const float* row, Nets open) const;
  void take(const float* row, uint64_t id, Nets nets, size_t cell, float pivot_distance);
  void give_up_overgrown();
  size_t best() const;

  size_t count_, dims_;
  const KernelTable& table_;
  std::vector<float> pivots_;  // (P, d)
  std::vector<Net> ladder_;    // finest first
  Nets live_ = 0;
  std::vector<Cell> cells_;  // P
};

}  // namespace onceover
