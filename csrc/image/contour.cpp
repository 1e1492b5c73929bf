// Moore's neighbor tracing for 8-connected regions, which visits the pixels that Suzuki and Abe's border following
// (Topological structural analysis of digitized binary images, CVGIP 1985) gives for an outer border, in reverse.
#include "image/contour.h"

#include "base/error.h"

namespace onceover {
namespace {

constexpr uint32_t kDirections = 8;  // clockwise with rows downwards, from east
constexpr int kRowStep[kDirections] = {0, 1, 1, 1, 0, -1, -1, -1};
constexpr int kColumnStep[kDirections] = {1, 1, 0, -1, -1, -1, 0, 1};
constexpr uint32_t kNorthwest = 5;

struct Walker {
  MatrixView<const float> map;
  float threshold;

  bool inside(ContourPoint at) const {  // a step over the upper or left edge wraps to a huge number
    return at.row < map.rows && at.column < map.columns && map.row(at.row)[at.column] > threshold;
  }
  static ContourPoint step(ContourPoint from, uint32_t direction) {
    return {from.row + static_cast<uint32_t>(kRowStep[direction]),
            from.column + static_cast<uint32_t>(kColumnStep[direction])};
  }
  // The first direction clockwise from `first` that stays inside; kDirections when none does.
  uint32_t next(ContourPoint from, uint32_t first) const {
    for (uint32_t turn = 0; turn < kDirections; ++turn) {
      const uint32_t direction = (first + turn) % kDirections;
      if (inside(step(from, direction))) return direction;
    }
    return kDirections;
  }
};

}  // namespace

size_t trace_contour(MatrixView<const float> map, float threshold, const MapRegion& region, ContourPoint* points,
                     size_t capacity) {
  const Walker walker = {map, threshold};
  const ContourPoint start = {region.top, region.first_column};
  const size_t most = size_t{4} * region.area;  // a pixel is passed once per gap among its neighbors, at most 4
  bool right = region.area > 0 && walker.inside(start) && !walker.inside({start.row, start.column - 1});
  size_t count = 0;
  if (right) {
    const uint32_t first = walker.next(start, kNorthwest);
    ContourPoint at = start;
    uint32_t direction = first;
    do {
      if (count < capacity) points[count] = at;
      ++count;
      if (first == kDirections) break;  // a single pixel
      at = Walker::step(at, direction);
      // What lies two turns back was seen to be outside, or is the first pixel not seen yet.
      direction = walker.next(at, (direction + 6) % kDirections);
    } while (count <= most && !(at.row == start.row && at.column == start.column && direction == first));
    right = count <= most;
  }
  if (!right) {
    fail(Status::kUsage,
         "the region with its first pixel at row %u, column %u and %u pixels is not one of this map and its map "
         "threshold; give a region that find_regions told of the same map",
         region.top, region.first_column, region.area);
  }
  return count;
}

}  // namespace onceover
