#include "scoring/row_order.h"

#include <algorithm>
#include <cstddef>

namespace onceover {
namespace {

constexpr size_t kChunkRows = 256;

class Splitter {
 public:
  Splitter(const float* coordinates, size_t count) : coordinates_(coordinates), count_(count) {}

  void split(uint32_t* begin, size_t size) {
    while (size > kBlockRows) {
      const size_t axis = widest(begin, size);
      const size_t left = (size / kBlockRows + 1) / 2 * kBlockRows;  // whole blocks to the left
      if (left >= size) return;
      std::nth_element(begin, begin + left, begin + size, [&](uint32_t a, uint32_t b) {
        const float x = at(a, axis), y = at(b, axis);
        return x < y || (x == y && a < b);
      });
      split(begin, left);
      begin += left;
      size -= left;
    }
    std::sort(begin, begin + size);
  }

 private:
  float at(uint32_t row, size_t axis) const { return coordinates_[row * count_ + axis]; }

  size_t widest(const uint32_t* begin, size_t size) const {
    size_t best = 0;
    double largest = -1;
    for (size_t axis = 0; axis < count_; ++axis) {
      double sum = 0, squares = 0;
      for (size_t i = 0; i < size; ++i) {
        const double value = double{at(begin[i], axis)};
        sum += value;
        squares += value * value;
      }
      const double spread = squares - sum * sum / static_cast<double>(size);
      if (spread > largest) largest = spread, best = axis;
    }
    return best;
  }

  const float* coordinates_;
  size_t count_;
};

}  // namespace

std::vector<uint32_t> near_rows_together(MatrixView<const float> rows, const std::vector<uint32_t>& ids,
                                         const float* mean, const double* directions, size_t count, size_t padded,
                                         const KernelTable& table, Memory& memory) {
  if (count == 0) return ids;
  constexpr size_t kColumns = kQueryLanes;  // multiply_f64 takes multiples of 16
  Buffer<double> axes(memory, padded * kColumns, "directions");
  for (size_t c = 0; c < std::min(count, kColumns); ++c) {
    for (size_t k = 0; k < rows.columns; ++k) axes[k * kColumns + c] = directions[c * padded + k];
  }
  Buffer<double> x(memory, kChunkRows * padded, "centered rows"), z(memory, kChunkRows * kColumns, "projected rows");
  Buffer<float> coordinates(memory, ids.size() * kColumns, "projected rows");
  for (size_t begin = 0; begin < ids.size(); begin += kChunkRows) {
    const size_t chunk = std::min(kChunkRows, ids.size() - begin);
    for (size_t i = 0; i < chunk; ++i) {
      const float* row = rows.row(ids[begin + i]);
      for (size_t k = 0; k < rows.columns; ++k) x[i * padded + k] = double{row[k]} - double{mean[k]};
    }
    std::fill(z.begin(), z.end(), 0.0);
    table.multiply_f64(x.data(), padded, axes.data(), kColumns, z.data(), kColumns, chunk, rows.columns, kColumns);
    for (size_t i = 0; i < chunk * kColumns; ++i) coordinates[begin * kColumns + i] = static_cast<float>(z[i]);
  }
  std::vector<uint32_t> order(ids.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<uint32_t>(i);
  Splitter(coordinates.data(), kColumns).split(order.data(), order.size());
  for (uint32_t& at : order) at = ids[at];
  return order;
}

}  // namespace onceover
