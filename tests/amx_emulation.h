// The tile instructions that csrc/kernels/amx.cpp uses, spelled out in plain C++ after Intel's reference (Architecture
// Instruction Set Extensions, chapter AMX), for 16 rows × 64 bytes: a build with ONCEOVER_AMX_EMULATION runs anywhere
// with AVX-512. Includes nothing but what the ISA file has already.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

namespace amx_emulation {

struct Tile {
  unsigned char bytes[16][64];
};
static thread_local Tile tiles[8];  // as every thread has its own registers
static thread_local bool configured = false;

inline __attribute__((always_inline)) void load(int tile, const void* from, long stride) {
  if (!configured) __builtin_trap();
  for (int row = 0; row < 16; ++row) {
    memcpy(tiles[tile].bytes[row], static_cast<const unsigned char*>(from) + row * stride, 64);
  }
}
inline __attribute__((always_inline)) void store(int tile, void* to, long stride) {
  if (!configured) __builtin_trap();
  for (int row = 0; row < 16; ++row) {
    memcpy(static_cast<unsigned char*>(to) + row * stride, tiles[tile].bytes[row], 64);
  }
}
// TDPBSSD: c[m][n] += Σ a[m][4k + i] · b[k][4n + i], signed bytes, 32-bit sums.
inline __attribute__((always_inline)) void multiply(int c, int a, int b) {
  if (!configured) __builtin_trap();
  for (int m = 0; m < 16; ++m) {
    for (int n = 0; n < 16; ++n) {
      int32_t sum;
      memcpy(&sum, tiles[c].bytes[m] + 4 * n, 4);
      for (int k = 0; k < 16; ++k) {
        for (int i = 0; i < 4; ++i) {
          sum += static_cast<int8_t>(tiles[a].bytes[m][4 * k + i]) * static_cast<int8_t>(tiles[b].bytes[k][4 * n + i]);
        }
      }
      memcpy(tiles[c].bytes[m] + 4 * n, &sum, 4);
    }
  }
}

}  // namespace amx_emulation

#define _tile_loadconfig(shapes) (amx_emulation::configured = *reinterpret_cast<const unsigned char*>(shapes) == 1)
#define _tile_release() (amx_emulation::configured = false)
#undef _tile_zero
#define _tile_zero(tile) memset(&amx_emulation::tiles[tile], 0, sizeof(amx_emulation::Tile))
#undef _tile_loadd
#define _tile_loadd(tile, from, stride) amx_emulation::load(tile, from, stride)
#undef _tile_stored
#define _tile_stored(tile, to, stride) amx_emulation::store(tile, to, stride)
#undef _tile_dpbssd
#define _tile_dpbssd(c, a, b) amx_emulation::multiply(c, a, b)
