// The meaning of every kernel, in plain C++; the other instruction sets return the same bits, faster.
#include "kernels/kernel_table.h"

namespace onceover {
namespace {

constexpr size_t kPartials = 16;

float squared_distance(const float* a, const float* b, size_t dims) {
  float partial[kPartials] = {};
  size_t i = 0;
  for (; i + kPartials <= dims; i += kPartials) {
    for (size_t j = 0; j < kPartials; ++j) {
      const float difference = a[i + j] - b[i + j];
      partial[j] += difference * difference;
    }
  }
  for (size_t j = 0; i + j < dims; ++j) {
    const float difference = a[i + j] - b[i + j];
    partial[j] += difference * difference;
  }
  for (size_t width = kPartials / 2; width > 0; width /= 2) {
    for (size_t j = 0; j < width; ++j) partial[j] += partial[j + width];
  }
  return partial[0];
}

void nearest_row_f32(const float* queries, size_t query_count, const float* bank, size_t row_count, size_t dims,
                     uint32_t first_index, float* best_squared, uint32_t* best_index) {
  for (size_t q = 0; q < query_count; ++q) {
    for (size_t row = 0; row < row_count; ++row) {
      const float squared = squared_distance(queries + q * dims, bank + row * dims, dims);
      if (squared < best_squared[q]) {
        best_squared[q] = squared;
        best_index[q] = first_index + static_cast<uint32_t>(row);
      }
    }
  }
}

size_t lower_to_center_f32(const float* points, size_t row_count, size_t dims, const float* center,
                           float* min_squared) {
  size_t farthest = 0;
  for (size_t i = 0; i < row_count; ++i) {
    const float squared = squared_distance(points + i * dims, center, dims);
    if (squared < min_squared[i]) min_squared[i] = squared;
    if (min_squared[i] > min_squared[farthest]) farthest = i;
  }
  return farthest;
}

}  // namespace

extern const KernelTable scalar_kernels;
const KernelTable scalar_kernels = {"scalar", nearest_row_f32, lower_to_center_f32};

}  // namespace onceover
