#include "image/tiling.h"

#include <algorithm>
#include <limits>

#include "base/error.h"

namespace onceover {
namespace {

struct Span {  // pixels of one axis
  size_t first, size;
};

// Tile `index` of `tiles`: every tile of an axis has the same size, so that all are resized alike, and the last one
// ends with the image.
Span span_of(size_t pixels, size_t index, size_t tiles, size_t tile, size_t whole, size_t multiple) {
  const size_t units = pixels / multiple;
  const size_t size = std::min(units, (2 * units * tile + whole) / (2 * whole));  // units · tile / whole, rounded
  const size_t steps = tiles - 1;
  const size_t first = steps == 0 ? 0 : (2 * index * (units - size) + steps) / (2 * steps);
  return {first * multiple, size * multiple};
}

}  // namespace

TileGrid::Axis::Axis(size_t tiles_, size_t overlap_, size_t tile_)
    : tiles(tiles_), overlap(overlap_), tile(tile_), whole(tile_ + (tiles_ - 1) * (tile_ - overlap_)) {}

TileGrid::TileGrid(const Tiling& tiling, size_t tile_height, size_t tile_width)
    : tiling_(tiling),
      down_(tiling.rows, tiling.overlap_rows, tile_height),
      across_(tiling.columns, tiling.overlap_columns, tile_width) {}

ImageView TileGrid::cut(const ImageView& image, size_t tile) const {
  if (tiles() == 1) return image;
  check_image(image);
  const size_t multiple = image.format == PixelFormat::kNv12 ? 2 : 1;
  const Span down = span_of(image.height, tile / across_.tiles, down_.tiles, down_.tile, down_.whole, multiple);
  const Span across = span_of(image.width, tile % across_.tiles, across_.tiles, across_.tile, across_.whole, multiple);
  if (down.size < kMinImageSide || across.size < kMinImageSide) {
    fail(Status::kInput, "image is %zu x %zu pixels (height x width), too small for %zu x %zu tiles of at least %zu",
         image.height, image.width, down_.tiles, across_.tiles, kMinImageSide);
  }
  return cut_out(image, down.first, across.first, down.size, across.size);
}

size_t TileGrid::cell(size_t tile, size_t patch) const noexcept {
  const size_t row = down_.offset(tile / across_.tiles) + patch / across_.tile;
  const size_t column = across_.offset(tile % across_.tiles) + patch % across_.tile;
  return row * across_.whole + column;
}

void TileGrid::merge(const float* scores, const uint32_t* rows, float* merged, uint32_t* merged_rows) const noexcept {
  for (size_t y = 0; y < height(); ++y) {
    // The tiles that hold row y: its last one, and the one before where both overlap. Columns alike.
    const size_t last_down = std::min(y / (down_.tile - down_.overlap), down_.tiles - 1);
    const size_t first_down = last_down > 0 && y < down_.offset(last_down - 1) + down_.tile ? last_down - 1 : last_down;
    for (size_t x = 0; x < width(); ++x) {
      const size_t last_across = std::min(x / (across_.tile - across_.overlap), across_.tiles - 1);
      const size_t first_across =
          last_across > 0 && x < across_.offset(last_across - 1) + across_.tile ? last_across - 1 : last_across;
      float least = std::numeric_limits<float>::infinity();
      uint32_t row = 0;
      for (size_t i = first_down; i <= last_down; ++i) {
        for (size_t j = first_across; j <= last_across; ++j) {
          const size_t patch = (y - down_.offset(i)) * across_.tile + x - across_.offset(j);
          const size_t at = (i * across_.tiles + j) * tile_patches() + patch;
          if (scores[at] < least) least = scores[at], row = rows[at];
        }
      }
      merged[y * width() + x] = least;
      merged_rows[y * width() + x] = row;
    }
  }
}

}  // namespace onceover
