// Where an anomaly map is above a threshold: its 8-connected regions, found in one pass over the rows, in memory that
// depends on the width alone. (metrics/regions.h numbers every pixel of a mask, and grows with what it finds.)
#pragma once

#include "base/matrix_view.h"
#include "base/memory.h"
#include "kernels/dispatch.h"

namespace onceover {

struct MapRegion {
  uint32_t top, left, bottom, right;  // bottom and right exclusive
  uint32_t area;                      // pixels
  uint32_t peak_row, peak_column;     // of its largest value; of equal ones the first, row by row
  float peak_value;
  float centroid_row, centroid_column;  // mean of its pixels, each counting alike; pixel centers are whole numbers
  uint32_t first_column;                // of its first pixel in row order, which lies in row `top`
};

class MapRegions {
 public:
  // About 120 bytes per column. Throws Error(kUsage) unless 1 ≤ max_width ≤ kMaxImageSide.
  MapRegions(size_t max_width, Memory& memory, const KernelTable& table = kernels());

  // How many regions map (H, W) has above `threshold`. The first `capacity` of them are written, those with the
  // largest peaks, largest first; of equal peaks the one whose box comes first (top, left, bottom, right). Allocates
  // nothing. Throws Error(kUsage) when the map is wider than max_width.
  size_t find(MatrixView<const float> map, float threshold, MapRegion* regions, size_t capacity);

  // Throws Error(kUsage) for more columns than max_width.
  void check_width(size_t columns) const;
  size_t max_width() const noexcept { return max_width_; }

 private:
  struct Run {  // pixels [first, end) of a row
    uint32_t first, end, label;
  };
  struct Open {  // a region that may still grow
    MapRegion region;
    uint64_t row_sum, column_sum;  // over its pixels: below 2^45, as maps have at most 2^30 pixels
  };
  struct Found {  // what find has written so far
    MapRegion* regions;
    size_t capacity, count;
  };
  static void merge(const Open& other, Open& into);
  static MapRegion closed(const Open& open);
  static void tell(const MapRegion& region, Found& found);
  size_t find_runs(const float* row, size_t width, float threshold);
  size_t peak_of(const float* row, size_t first, size_t end) const;
  uint32_t root(uint32_t label);
  uint32_t unite(uint32_t a, uint32_t b);
  void label_runs(size_t above, size_t current);
  void close_row(size_t current, Found& found);

  const KernelTable& table_;
  size_t max_width_;
  Buffer<Run> above_, runs_;  // of the row before and of this one
  // Labels of one row: those that the row before left open, then new ones.
  Buffer<uint32_t> parents_;  // a root is its own, and never larger than its children
  Buffer<uint32_t> renamed_;  // root → label in the next row
  Buffer<Open> regions_, next_;
  uint32_t open_ = 0, labels_ = 0;
};

}  // namespace onceover
