#include "image/roi.h"

#include <algorithm>
#include <limits>

#include "base/error.h"
#include "image/bit_runs.h"

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

// Which columns of the raster have something inside changes only from one row of the raster to the next. A run of them
// overlaps a run of cells, as the overlap of raster and cells goes both ways.
template <typename Use>
void Roi::each_run(size_t height, size_t width, const KernelTable& table, Use&& use) const noexcept {
  uint64_t inside[kMaxRoiSide / 64], more[kMaxRoiSide / 64];
  const size_t words = (raster_.columns + 63) / 64;
  Range seen = {0, 0};  // the rows of the raster that `inside` tells of; none yet
  for (size_t y = 0; y < height; ++y) {
    const Range down = overlapped(y, height, raster_.rows);
    if (down.first != seen.first || down.end != seen.end) {
      table.nonzero_bits(raster_.row(down.first), raster_.columns, inside);
      for (size_t i = down.first + 1; i < down.end; ++i) {
        table.nonzero_bits(raster_.row(i), raster_.columns, more);
        for (size_t word = 0; word < words; ++word) inside[word] |= more[word];
      }
      seen = down;
    }
    Range open = {0, 0};  // inside, and may still grow: runs of the raster may share a cell
    size_t told = 0;
    const auto tell = [&] {
      if (open.end == 0) return;
      if (told < open.first) use(y, told, open.first, false);
      use(y, open.first, open.end, true);
      told = open.end;
    };
    each_run_of_bits(inside, raster_.columns, [&](size_t first, size_t end) {
      const size_t from = overlapped(first, raster_.columns, width).first;
      if (open.end == 0 || from > open.end) {
        tell();
        open.first = from;
      }
      open.end = overlapped(end - 1, raster_.columns, width).end;
    });
    tell();
    if (told < width) use(y, told, width, false);
  }
}

void Roi::mark(MatrixView<uint8_t> cells, const KernelTable& table) const noexcept {
  if (whole()) {
    for (size_t y = 0; y < cells.rows; ++y) std::fill_n(cells.row(y), cells.columns, uint8_t{1});
    return;
  }
  each_run(cells.rows, cells.columns, table, [&](size_t y, size_t first, size_t end, bool inside) {
    std::fill(cells.row(y) + first, cells.row(y) + end, static_cast<uint8_t>(inside ? 1 : 0));
  });
}

void Roi::clear_outside(MatrixView<float> map, const KernelTable& table) const noexcept {
  if (whole()) return;
  each_run(map.rows, map.columns, table, [&](size_t y, size_t first, size_t end, bool inside) {
    if (!inside) std::fill(map.row(y) + first, map.row(y) + end, 0.0f);
  });
}

float Roi::largest_inside(MatrixView<const float> map, const KernelTable& table) const noexcept {
  float largest = -std::numeric_limits<float>::infinity();
  const auto take = [&](size_t y, size_t first, size_t end, bool inside) {
    if (inside) largest = std::max(largest, table.largest_f32(map.row(y) + first, end - first));
  };
  if (!whole()) {
    each_run(map.rows, map.columns, table, take);
  } else {
    for (size_t y = 0; y < map.rows; ++y) take(y, 0, map.columns, true);
  }
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
