// Copies of some of a matrix's rows side by side, so that one kernel call compares them all, out of the cache.
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/memory.h"

namespace onceover {

struct PackedRows {
  PackedRows() noexcept = default;
  PackedRows(Memory& memory, size_t capacity, size_t columns, const char* purpose)
      : dims(columns),
        values(memory, capacity * columns, purpose),
        squared(memory, capacity, purpose),
        row(memory, capacity, purpose) {}

  size_t capacity() const noexcept { return row.size(); }

  // `from` is row `row_` of the matrix.
  void append(const float* from, float squared_, uint32_t row_) noexcept {
    std::copy_n(from, dims, values.data() + size * dims);
    squared[size] = squared_;
    row[size++] = row_;
  }

  void move(size_t from, size_t to) noexcept {
    if (from == to) return;
    std::copy_n(values.data() + from * dims, dims, values.data() + to * dims);
    squared[to] = squared[from];
    row[to] = row[from];
  }

  size_t dims = 0;
  size_t size = 0;
  Buffer<float> values;   // (capacity, dims)
  Buffer<float> squared;  // a distance of each
  Buffer<uint32_t> row;   // which row of the matrix each is
};

}  // namespace onceover
