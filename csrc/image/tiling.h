// A large image cut into overlapping tiles, each of which the network sees whole, and their patch scores put together.
#pragma once

#include "base/matrix_view.h"
#include "image/image_view.h"

namespace onceover {

// Tiles overlap by whole patches, so that a patch of one tile lies where a patch of its neighbor does.
struct Tiling {
  uint32_t rows = 1, columns = 1;                  // tiles
  uint32_t overlap_rows = 0, overlap_columns = 0;  // patches that neighbors share, at most half of a tile's
  size_t count() const noexcept { return size_t{rows} * columns; }
};

inline constexpr uint32_t kMaxTiles = 64;  // per axis

// The grid of all tiles: patches of the whole image. Sizes in patches; g of a tile, G = g + (tiles − 1)·(g − overlap).
class TileGrid {
 public:
  TileGrid(const Tiling& tiling, size_t tile_height, size_t tile_width);

  size_t tiles() const noexcept { return tiling_.count(); }
  size_t tile_patches() const noexcept { return down_.tile * across_.tile; }
  size_t height() const noexcept { return down_.whole; }
  size_t width() const noexcept { return across_.whole; }

  // Tile number `tile` (row by row) of an image, in place: g / G of its height and width, rounded to pixels (of kNv12
  // to pairs), from one edge of the image to the other. One tile is the image itself. Throws Error(kInput) for an image
  // whose tiles would be smaller than kMinImageSide.
  ImageView cut(const ImageView& image, size_t tile) const;

  // Where a patch of a tile lies in the grid of all, row-major.
  size_t cell(size_t tile, size_t patch) const noexcept;

  // Scores (tiles, tile_patches) → merged (height · width), nearest rows likewise. Where tiles overlap, the least score
  // counts, with its row; of equal ones the first tile's. So a score stays what it is: the distance to the nearest
  // normal patch, of all views of the place. A network sees nothing beyond a tile's cut edge, and its features near the
  // edge are rare ones; a mean of the views leaves a ridge of half a standard deviation along every seam, the least
  // score none (benchmarks/tile_study.py).
  void merge(const float* scores, const uint32_t* rows, float* merged, uint32_t* merged_rows) const noexcept;

 private:
  struct Axis {
    Axis(size_t tiles_, size_t overlap_, size_t tile_);
    size_t offset(size_t index) const noexcept { return index * (tile - overlap); }
    size_t tiles, overlap, tile, whole;
  };
  Tiling tiling_;
  Axis down_, across_;
};

}  // namespace onceover
