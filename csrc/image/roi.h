// The region of interest: which part of the field of view is inspected. It acts on scores and maps, never on pixels, so
// the network sees the same image with it and without.
#pragma once

#include "base/matrix_view.h"
#include "base/memory.h"
#include "kernels/dispatch.h"

namespace onceover {

inline constexpr size_t kMaxRoiSide = 4096;

// A raster (rows, columns) of 0 (outside) and 1 over the whole image, owned by somebody else. The one rule, for patches
// and for pixels: a cell is inside where it overlaps the region at all, so that nothing of the region goes uninspected.
class Roi {
 public:
  Roi() = default;  // the whole image
  // Throws Error(kUsage) unless both sides are 1 to kMaxRoiSide, every value is 0 or 1, and one is 1.
  explicit Roi(MatrixView<const uint8_t> raster);

  bool whole() const noexcept { return raster_.data == nullptr; }
  // cells (h, w) ← 1 where that cell of the image, cut into h x w, is inside, else 0.
  void mark(MatrixView<uint8_t> cells, const KernelTable& table = kernels()) const noexcept;
  // What lies outside becomes 0, in a map of the image at any size.
  void clear_outside(MatrixView<float> map, const KernelTable& table = kernels()) const noexcept;
  // The largest value inside; in a map without NaN.
  float largest_inside(MatrixView<const float> map, const KernelTable& table = kernels()) const noexcept;

 private:
  // Of the image cut into height x width cells, calls use(row, first, end, inside) for each run of columns [first, end)
  // that are all inside or all outside, row by row and from left to right.
  template <typename Use>
  void each_run(size_t height, size_t width, const KernelTable& table, Use&& use) const noexcept;
  MatrixView<const uint8_t> raster_;
};

// Continues a grid beyond the region: (h · w) → for each cell the inside cell that it takes its value from, itself when
// it is inside, else one of the nearest (in steps to the side, up and down). A map drawn from the continued scores does
// not fade towards the edge of the region. At least one cell must be inside.
Buffer<uint32_t> nearest_inside(MatrixView<const uint8_t> inside, Memory& memory);

}  // namespace onceover
