/* A network that an application runs itself: what the tests of sessions use in place of an engine, in C and C++. Float
 * additions and products in a fixed order, so that its features have the same bits on every machine. */
#ifndef HOST_NETWORK_H
#define HOST_NETWORK_H

#include <stddef.h>
#include <stdint.h>

enum {
  HOST_HEIGHT = 32, /* of the network input */
  HOST_WIDTH = 48,
  HOST_STRIDE = 8,
  HOST_ROWS = HOST_HEIGHT / HOST_STRIDE, /* of the patch grid */
  HOST_COLUMNS = HOST_WIDTH / HOST_STRIDE,
  HOST_PATCHES = HOST_ROWS * HOST_COLUMNS,
  HOST_DIM = 16
};

/* input (3, 32, 48) → output (24, 16): 16 weighted sums over each block of 8 x 8. `context`: the code to return. */
static inline int32_t host_network(void* context, const float* input, float* output) {
  for (size_t patch = 0; patch < HOST_PATCHES; ++patch) {
    const size_t top = patch / HOST_COLUMNS * HOST_STRIDE, left = patch % HOST_COLUMNS * HOST_STRIDE;
    for (size_t d = 0; d < HOST_DIM; ++d) {
      const float* plane = input + d % 3 * HOST_HEIGHT * HOST_WIDTH;
      float sum = 0;
      for (size_t y = 0; y < HOST_STRIDE; ++y) {
        for (size_t x = 0; x < HOST_STRIDE; ++x) {
          const float weight = (float)((int)((x * 5 + y * 3 + d * 7) % 11) - 5) * 0.015625f;
          sum += weight * plane[(top + y) * HOST_WIDTH + left + x];
        }
      }
      output[patch * HOST_DIM + d] = sum;
    }
  }
  return context == NULL ? 0 : *(const int32_t*)context;
}

/* A seeded texture (height, width, channels) of 8 bits; `defect`: with a bright square of 8 x 8 in the middle. */
static inline void host_image(uint32_t seed, int defect, size_t height, size_t width, size_t channels,
                              uint8_t* pixels) {
  uint32_t state = seed * 2654435761u + 1;
  for (size_t y = 0; y < height; ++y) {
    for (size_t x = 0; x < width; ++x) {
      const int inside = defect && y + 4 >= height / 2 && y < height / 2 + 4 && x + 4 >= width / 2 && x < width / 2 + 4;
      for (size_t c = 0; c < channels; ++c) {
        state = state * 1664525u + 1013904223u;
        *pixels++ = (uint8_t)(inside ? 250 : 90 + (x * 3 + y * 5 + c * 11 + seed % 7) % 48 + (state >> 29));
      }
    }
  }
}

#endif
