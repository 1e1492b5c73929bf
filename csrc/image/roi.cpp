#include "image/roi.h"

#include <algorithm>
#include <limits>

#include "base/error.h"

namespace onceover {
namespace {

struct Range {  // of raster rows or columns that a cell overlaps
  size_t first, end;
};

Range overlapped(size_t cell, size_t cells, size_t raster) noexcept {
  return {cell * raster / cells, ((cell + 1) * raster + cells - 1) / cells};
}

}  // namespace

Roi::Roi(MatrixView<const uint8_t> raster) : raster_(raster) {
  if (raster.rows < 1 || raster.columns < 1 || raster.rows > kMaxRoiSide || raster.columns > kMaxRoiSide) {
    fail(Status::kUsage, "the region of interest is a raster of %zu x %zu, expected sides of 1 to %zu", raster.rows,
         raster.columns, kMaxRoiSide);
  }
  bool any = false;
  for (size_t y = 0; y < raster.rows; ++y) {
    for (size_t x = 0; x < raster.columns; ++x) {
      const uint8_t value = raster.row(y)[x];
      if (value > 1) fail(Status::kUsage, "the region of interest holds a %u, expected 0 or 1", unsigned{value});
      any = any || value == 1;
    }
  }
  if (!any) fail(Status::kUsage, "the region of interest is empty: nothing would be inspected");
}

template <typename Use>
void Roi::each_cell(size_t height, size_t width, Use&& use) const noexcept {
  constexpr size_t kBlock = 64;
  Range across[kBlock];
  for (size_t start = 0; start < width; start += kBlock) {
    const size_t n = std::min(kBlock, width - start);
    for (size_t x = 0; x < n; ++x) across[x] = overlapped(start + x, width, raster_.columns);
    for (size_t y = 0; y < height; ++y) {
      const Range down = overlapped(y, height, raster_.rows);
      for (size_t x = 0; x < n; ++x) {
        bool inside = false;
        for (size_t i = down.first; i < down.end && !inside; ++i) {
          const uint8_t* row = raster_.row(i);
          inside = std::find(row + across[x].first, row + across[x].end, 1) != row + across[x].end;
        }
        use(y, start + x, inside);
      }
    }
  }
}

void Roi::mark(MatrixView<uint8_t> cells) const noexcept {
  if (whole()) {
    for (size_t y = 0; y < cells.rows; ++y) std::fill_n(cells.row(y), cells.columns, uint8_t{1});
    return;
  }
  each_cell(cells.rows, cells.columns, [&](size_t y, size_t x, bool inside) { cells.row(y)[x] = inside ? 1 : 0; });
}

void Roi::clear_outside(MatrixView<float> map) const noexcept {
  if (whole()) return;
  each_cell(map.rows, map.columns, [&](size_t y, size_t x, bool inside) {
    if (!inside) map.row(y)[x] = 0;
  });
}

float Roi::largest_inside(MatrixView<const float> map) const noexcept {
  float largest = -std::numeric_limits<float>::infinity();
  if (whole()) {
    for (size_t y = 0; y < map.rows; ++y) {
      for (size_t x = 0; x < map.columns; ++x) largest = map.row(y)[x] > largest ? map.row(y)[x] : largest;
    }
    return largest;
  }
  each_cell(map.rows, map.columns, [&](size_t y, size_t x, bool inside) {
    if (inside && map.row(y)[x] > largest) largest = map.row(y)[x];
  });
  return largest;
}

Buffer<uint32_t> nearest_inside(MatrixView<const uint8_t> inside, Memory& memory) {
  const size_t cells = inside.rows * inside.columns;
  Buffer<uint32_t> source(memory, cells, "cells beyond the region of interest");
  Buffer<uint32_t> queue(memory, cells, "cells being visited");
  constexpr uint32_t kUnknown = UINT32_MAX;
  size_t end = 0;
  for (size_t cell = 0; cell < cells; ++cell) {
    const bool is_inside = inside.row(cell / inside.columns)[cell % inside.columns] != 0;
    source[cell] = is_inside ? static_cast<uint32_t>(cell) : kUnknown;
    if (is_inside) queue[end++] = static_cast<uint32_t>(cell);
  }
  for (size_t next = 0; next < end; ++next) {  // breadth first: every cell is reached from one of its nearest
    const size_t cell = queue[next], y = cell / inside.columns, x = cell % inside.columns;
    const auto reach = [&](size_t neighbor) {
      if (source[neighbor] != kUnknown) return;
      source[neighbor] = source[cell];
      queue[end++] = static_cast<uint32_t>(neighbor);
    };
    if (y > 0) reach(cell - inside.columns);
    if (x > 0) reach(cell - 1);
    if (x + 1 < inside.columns) reach(cell + 1);
    if (y + 1 < inside.rows) reach(cell + inside.columns);
  }
  return source;
}

}  // namespace onceover
