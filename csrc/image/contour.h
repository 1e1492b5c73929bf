// The outline of a region of an anomaly map: a walk along its pixels, one after the other, without any memory.
#pragma once

#include "base/matrix_view.h"
#include "image/map_regions.h"

namespace onceover {

struct ContourPoint {
  uint32_t row, column;
};

// The outer border of a region that MapRegions::find told of this map (H, W) and threshold: its pixels that an
// 8-neighbor outside of the region touches from outside, clockwise as the picture is seen, from its first one in row
// order, closed (the last is a neighbor of the first, which is not repeated). A pixel of a one-pixel-wide part is told
// once for every time the walk passes it: a line goes there and back. Inner borders of a ring are not told. → how many
// points there are, at most 4 · area; the first `capacity` of them are written. Allocates nothing; takes at most 8
// steps per point. Throws Error(kUsage) when the region is not of this map and threshold.
size_t trace_contour(MatrixView<const float> map, float threshold, const MapRegion& region, ContourPoint* points,
                     size_t capacity);

}  // namespace onceover
