// The meaning of every kernel, in plain C++; the other instruction sets return the same bits, faster.
#include "kernels/kernel_table.h"

namespace onceover {
namespace {

#define ONCEOVER_VECTOR_BYTES 16  // what every 64-bit target has
#include "kernels/portable.inl"

int32_t dot(const int8_t* row, const int8_t* tile, size_t first, size_t tiles, size_t lane) {
  int32_t sum = 0;
  size_t j = first % kTileDims;
  for (size_t t = first / kTileDims; t < tiles; ++t, j = 0) {
    for (; j < kTileDims; ++j) {
      sum += row[t * kTileBytes + j] * tile[t * kTileBytes + (j / 4 * kQueryLanes + lane) * 4 + j % 4];
    }
  }
  return sum;
}

const int8_t* row_codes(const CodeBlocks& blocks, size_t slot) {  // its first 64; the next 1024 bytes on
  return blocks.codes + slot / 16 * blocks.tiles * kTileBytes + slot % 16 * kTileDims;
}

int32_t score(const CodeBlocks& blocks, const QueryTile& tile, size_t slot, size_t lane) {
  const int32_t product = dot(row_codes(blocks, slot), tile.codes, blocks.first, blocks.tiles, lane);
  return product * (int32_t{1} << (tile.shifts != nullptr ? tile.shifts[lane] : 0)) - blocks.norms[slot];
}

void screen_i8(const CodeBlocks& blocks, size_t block_count, const QueryTile* tiles, size_t tile_count,
               int32_t* const* maxima) {
  for (size_t t = 0; t < tile_count; ++t) {
    for (size_t block = 0; block < block_count; ++block) {
      for (size_t lane = 0; lane < kQueryLanes; ++lane) {
        int32_t best = INT32_MIN;
        for (size_t row = 0; row < kBlockRows; ++row) {
          const int32_t found = score(blocks, tiles[t], block * kBlockRows + row, lane);
          best = found > best ? found : best;
        }
        maxima[t][block * kQueryLanes + lane] = best;
      }
    }
  }
}

void hit_rows_i8(const CodeBlocks& blocks, const QueryTile& tile, const uint32_t* block_list, size_t count,
                 const int32_t* thresholds, uint16_t* hits) {
  for (size_t i = 0; i < count; ++i) {
    for (size_t row = 0; row < kBlockRows; ++row) {
      unsigned found = 0;
      for (size_t lane = 0; lane < kQueryLanes; ++lane) {
        if (score(blocks, tile, block_list[i] * kBlockRows + row, lane) >= thresholds[i * kQueryLanes + lane]) {
          found |= 1u << lane;
        }
      }
      hits[i * kBlockRows + row] = static_cast<uint16_t>(found);
    }
  }
}

void dot_i8(const int8_t* rows, size_t row_count, size_t tiles, const int8_t* high_tile, const int8_t* low_tile,
            int32_t* high, int32_t* low) {
  for (size_t row = 0; row < row_count; ++row) {
    const int8_t* codes = rows + row / 16 * tiles * kTileBytes + row % 16 * kTileDims;
    for (size_t lane = 0; lane < kQueryLanes; ++lane) {
      high[row * kQueryLanes + lane] = dot(codes, high_tile, 0, tiles, lane);
      low[row * kQueryLanes + lane] = dot(codes, low_tile, 0, tiles, lane);
    }
  }
}

}  // namespace

extern const KernelTable scalar_kernels;
const KernelTable scalar_kernels = {
    "scalar", 127, 0, 0, 4, 16, nullptr, screen_i8, hit_rows_i8, dot_i8, portable_scan_f32, ONCEOVER_PORTABLE_KERNELS};

}  // namespace onceover
