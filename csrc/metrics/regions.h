// Connected components of a mask as runs, without a label image: rows become bits, bits become runs, runs are joined to
// those of the row above by union-find (Wu, Otoo and Suzuki 2009, "Optimizing two-pass connected-component labeling",
// with runs in place of pixels).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/kernel_table.h"

namespace onceover {

// Somebody else's mask of (height, width) bytes: every value but 0 belongs to a region.
struct MaskView {
  const uint8_t* data = nullptr;
  size_t height = 0;
  size_t width = 0;
  ptrdiff_t stride = 0;  // bytes from one row to the next, negative for a flipped image

  const uint8_t* row(size_t y) const { return data + static_cast<ptrdiff_t>(y) * stride; }
};

// Pixels [first, end) of one row, all of one region.
struct Run {
  uint32_t row, first, end, region;
};

struct RegionBox {
  uint32_t top, left, bottom, right;  // bottom and right exclusive
};

// Keeps its memory from one mask to the next.
class RegionFinder {
 public:
  // connectivity 4 or 8, else Error(kUsage).
  RegionFinder(int connectivity, const KernelTable& table);

  // Regions are numbered in the row-major order of their first pixels. Throws Error(kInput) from 2^32 pixels on.
  void find(const MaskView& mask);

  int connectivity() const { return reach_ == 1 ? 8 : 4; }
  const std::vector<Run>& runs() const { return runs_; }         // in row-major order
  const std::vector<uint32_t>& areas() const { return areas_; }  // one per region, in pixels
  std::vector<RegionBox> boxes() const;                          // one per region
  size_t size_bytes() const;                                     // of what it keeps
  void forget_much();                                            // gives memory back that an unusual mask took

 private:
  void add_runs(uint32_t row, size_t width);
  void join_rows(size_t above, size_t current);
  void number_regions();
  uint32_t root(uint32_t label);

  const KernelTable* table_;
  uint32_t reach_;  // columns that a run touches beyond its own ends: 1 with diagonals
  std::vector<uint64_t> bits_;
  std::vector<Run> runs_;
  std::vector<uint32_t> parents_;  // of provisional labels; a root is its own, and never larger than its children
  std::vector<uint32_t> areas_;
};

}  // namespace onceover
