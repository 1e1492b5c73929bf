#include "scoring/encode.h"

#include <algorithm>
#include <cmath>

#include "scoring/bounds.h"

namespace onceover {
namespace {

constexpr size_t kChunkRows = 256;
constexpr double kLargestCode = 127;

// z of many rows in float64: (count, rank2), with the norm of the rest in column rank1 − 1 (kRank), and tails.
class Coordinates {
 public:
  Coordinates(const SearchIndex& index, const KernelTable& table, Memory& memory)
      : index_(index),
        table_(table),
        x(memory, kChunkRows * index.padded_dims(), "centered rows"),
        z(memory, kChunkRows * index.rank2, "projected rows"),
        tails(memory, kChunkRows, "projected rows"),
        norms(memory, kChunkRows, "projected rows") {
    if (index.representation != Representation::kRank) return;
    columns_ = Buffer<double>(memory, index.padded_dims() * index.rank2, "projection");
    for (size_t row = 0; row < index.rank2; ++row) {
      for (size_t k = 0; k < index.padded_dims(); ++k) {
        const size_t at =
            (row / 16 * index.plane_tiles() + k / kTileDims) * kTileBytes + row % 16 * kTileDims + k % kTileDims;
        columns_[k * index.rank2 + row] = index.projection[at];
      }
    }
  }

  // A null id leaves zeros. tail_mean is taken off the coded tail coordinate.
  void compute(const uint32_t* ids, size_t count, double tail_mean) {
    const size_t padded = index_.padded_dims(), rank2 = index_.rank2;
    for (size_t i = 0; i < count; ++i) {
      double* to = x.data() + i * padded;
      std::fill_n(to, padded, 0.0);
      norms[i] = 0;
      if (ids[i] == kNoRow) continue;
      const float* row = index_.rows.row(ids[i]);
      for (size_t k = 0; k < index_.dims; ++k) to[k] = double{row[k]} - double{index_.mean[k]};
      for (size_t k = 0; k < index_.dims; ++k) norms[i] += to[k] * to[k];
    }
    if (index_.representation != Representation::kRank) {
      std::copy_n(x.data(), count * padded, z.data());
      std::fill_n(tails.data(), count, 0.0);
      return;
    }
    std::fill_n(z.data(), count * rank2, 0.0);
    table_.multiply_f64(x.data(), padded, columns_.data(), rank2, z.data(), rank2, count, padded, rank2);
    for (size_t i = 0; i < count; ++i) {
      double* to = z.data() + i * rank2;
      double head = 0;
      for (size_t j = 0; j < rank2; ++j) {
        if (j == index_.rank1) to[index_.tail_coordinate()] = std::sqrt(std::max(norms[i] - head, 0.0)) - tail_mean;
        to[j] *= index_.scale;
        head += to[j] * to[j];
      }
      tails[i] = std::sqrt(std::max(norms[i] - head, 0.0));
      if (index_.rank1 == rank2) to[index_.tail_coordinate()] = tails[i] - tail_mean;
    }
  }

 private:
  const SearchIndex& index_;
  const KernelTable& table_;
  Buffer<double> columns_;  // (padded, rank2) whole numbers

 public:
  Buffer<double> x, z, tails, norms;  // norms: |x|²
};

// The nearest whole number of |value| < 2^51, ties to even. std::rint of plain x86-64 is no instruction.
double nearest(double value) {
  constexpr double kRounder = 0x1.8p52;
  return value + kRounder - kRounder;
}

double nearest_code(double value) { return nearest(std::clamp(value, -kLargestCode, kLargestCode)); }

// What clamping and rounding lose of one row's first `rank` coordinates, a multiple of kTileDims.
double coding_error(const double* z, size_t rank, double step) {
  double sum = 0;
  for (size_t begin = 0; begin < rank; begin += kTileDims) {
    double squares[kTileDims];  // apart from the sum, whose order is fixed, compilers make vectors of them
    for (size_t j = 0; j < kTileDims; ++j) {
      const double missed = z[begin + j] - step * nearest_code(z[begin + j] / step);
      squares[j] = missed * missed;
    }
    for (const double square : squares) sum += square;
  }
  return std::sqrt(sum);
}

std::ptrdiff_t place_of(double share, size_t count) {
  return static_cast<std::ptrdiff_t>(share * static_cast<double>(count - 1));
}

double quantile(std::vector<double>& values, double share) {
  const auto at = values.begin() + place_of(share, values.size());
  std::nth_element(values.begin(), at, values.end());
  return *at;
}

// Of |z| in columns [begin, end) of (rows, columns): several quantiles of high shares, the least given at once.
class LargestOf {
 public:
  LargestOf(const std::vector<double>& z, size_t columns, size_t begin, size_t end, double least)
      : count_(z.size() / columns * (end - begin)) {
    values_.reserve(count_);
    for (size_t row = 0; row < z.size(); row += columns) {
      for (size_t j = begin; j < end; ++j) values_.push_back(std::fabs(z[row + j]));
    }
    if (values_.empty()) return;
    const auto from = values_.begin() + place_of(least, count_);
    std::nth_element(values_.begin(), from, values_.end());
    values_.erase(values_.begin(), from);  // what is below them all
  }

  double at(double share) {
    if (values_.empty()) return 0;
    const auto place = values_.end() - (static_cast<std::ptrdiff_t>(count_) - place_of(share, count_));
    std::nth_element(values_.begin(), place, values_.end());
    return *place;
  }

 private:
  std::vector<double> values_;
  size_t count_;
};

}  // namespace

void write_row_norms(const SearchIndex& index, size_t first) {
  for (size_t id = first; id < index.row_count; ++id) {
    const float* row = index.rows.row(id);
    double squares[4] = {};
    for (size_t k = 0; k < index.dims; ++k) {
      const double x = double{row[k]} - double{index.mean[k]};
      squares[k % 4] += x * x;
    }
    writable(index.row_norms)[id] =
        round_up(std::sqrt((squares[0] + squares[1]) + (squares[2] + squares[3])) * kStoredError);
  }
}

void write_projection(const SearchIndex& index, const int8_t* rows) {
  const size_t padded = index.padded_dims();
  for (size_t row = 0; row < index.rank2; ++row) {
    int32_t sum = 0;
    for (size_t k = 0; k < padded; ++k) {
      const size_t at =
          (row / 16 * index.plane_tiles() + k / kTileDims) * kTileBytes + row % 16 * kTileDims + k % kTileDims;
      writable(index.projection)[at] = rows[row * padded + k];
      sum += rows[row * padded + k];
    }
    writable(index.projection_sums)[row] = sum;
  }
}

void choose_steps(const SearchIndex& index, IndexHeader& header, const uint32_t* ids, size_t count,
                  const KernelTable& table, Memory& memory) {
  const size_t rank1 = index.rank1, rank2 = index.rank2, sample = std::min<size_t>(count, 4096);
  const bool is_rank = index.representation == Representation::kRank;
  std::vector<uint32_t> chosen(sample);
  for (size_t i = 0; i < sample; ++i) chosen[i] = ids[i * count / sample];
  Coordinates coordinates(index, table, memory);
  std::vector<double> z(sample * rank2);
  for (size_t begin = 0; begin < sample; begin += kChunkRows) {
    const size_t rows = std::min(kChunkRows, sample - begin);
    coordinates.compute(chosen.data() + begin, rows, 0);
    std::copy_n(coordinates.z.data(), rows * rank2, z.data() + begin * rank2);
  }
  if (is_rank) {
    double mean = 0;
    for (size_t i = 0; i < sample; ++i) mean += z[i * rank2 + index.tail_coordinate()] / static_cast<double>(sample);
    header.tail_mean = static_cast<float>(mean);
    for (size_t i = 0; i < sample; ++i) z[i * rank2 + index.tail_coordinate()] -= double{header.tail_mean};
  }
  const auto usable = [](double value) { return std::max(value, 1e-20); };  // a constant bank has no spread to code
  LargestOf largest(z, rank2, 0, rank1, 0.99);
  std::vector<double> errors(sample);
  double least = 0;
  for (const double share : {1.0, 0.99999, 0.9999, 0.9998, 0.9996, 0.9993, 0.999, 0.998, 0.996, 0.99}) {
    const double step = usable(largest.at(share) / kLargestCode);
    for (size_t i = 0; i < sample; ++i) errors[i] = coding_error(z.data() + i * rank2, rank1, step);
    const double cost = quantile(errors, 0.5) + quantile(errors, 0.97);
    if (share == 1.0 || cost < least) {
      least = cost;
      header.step = static_cast<float>(step);
    }
  }
  const auto fine = static_cast<float>(usable(LargestOf(z, rank2, rank1, rank2, 0.9999).at(0.9999) / kLargestCode));
  for (size_t j = 0; j < rank2; ++j) writable(index.weights)[j] = j < rank1 ? header.step / 256 : fine;
  if (is_rank) writable(index.weights)[index.tail_coordinate()] = 0;
}

void encode_slots(const SearchIndex& index, size_t first_slot, const std::vector<uint32_t>& ids,
                  const KernelTable& table, Memory& memory) {
  const size_t rank1 = index.rank1, rank2 = index.rank2;
  const double step = double{index.step};
  const double share = stored_share(index.padded_dims(), rank2);  // (B1)
  Coordinates coordinates(index, table, memory);
  static_assert(kChunkRows % kBlockRows == 0);
  for (size_t begin = first_slot; begin < index.slot_count; begin += kChunkRows) {
    const size_t count = std::min(kChunkRows, index.slot_count - begin);
    uint32_t chunk[kChunkRows];
    for (size_t i = 0; i < count; ++i)
      chunk[i] = begin + i < first_slot + ids.size() ? ids[begin + i - first_slot] : kNoRow;
    coordinates.compute(chunk, count, double{index.tail_mean});
    for (size_t i = 0; i < count; ++i) {
      const size_t slot = begin + i;
      const double* z = coordinates.z.data() + i * rank2;
      int8_t* codes = writable(index.blocks.codes) + slot / 16 * 16 * rank1 + slot % 16 * kTileDims;
      int8_t* refine = writable(index.refine) + slot * rank2;
      if (slot % kBlockRows == 0) writable(index.block_errors)[slot / kBlockRows] = 0;
      int64_t norm = 0, screen_norm = 0;
      int32_t sum = 0, screen_sum = 0;
      double code_error = 0, refined_error = 0;
      for (size_t j = 0; j < rank2; ++j) {
        int8_t& fine = refine[j];
        double back = 0;  // what the refined code stands for
        if (j < rank1) {
          const double code = nearest_code(z[j] / step);
          codes[j / kTileDims * kTileBytes + j % kTileDims] = static_cast<int8_t>(code);
          norm += static_cast<int64_t>(code * code);
          sum += static_cast<int32_t>(code);
          if (j >= rank1 - index.screened) {
            screen_norm += static_cast<int64_t>(code * code);
            screen_sum += static_cast<int32_t>(code);
          }
          code_error += (z[j] - step * code) * (z[j] - step * code);
          const double weight = double{index.weights[j]};
          fine = static_cast<int8_t>(weight > 0 ? nearest(std::clamp(z[j] / weight - 256 * code, -128.0, 127.0)) : 0);
          back = weight * (256 * code + static_cast<double>(fine));
        } else {
          const double weight = double{index.weights[j]};
          fine = static_cast<int8_t>(nearest_code(z[j] / weight));
          back = weight * static_cast<double>(fine);
        }
        const bool is_tail = index.representation == Representation::kRank && j == index.tail_coordinate();
        if (!is_tail) refined_error += (z[j] - back) * (z[j] - back);
      }
      const bool is_empty = chunk[i] == kNoRow;
      if (is_empty) {  // z is zero but for the mean of the tails
        for (size_t j = 0; j < rank1; ++j) codes[j / kTileDims * kTileBytes + j % kTileDims] = 0;
        norm = sum = screen_norm = screen_sum = 0;
      }
      const bool screens_all = index.screened == rank1;
      const uint32_t screen = screens_all ? 0 : pack_screen(static_cast<int32_t>(screen_norm / 4 * 2), screen_sum);
      const double slack = std::sqrt(coordinates.norms[i]) * share;
      writable(index.blocks.norms)[slot] = is_empty ? kEmptySlotNorm : static_cast<int32_t>(norm / 4 * 2);
      writable(index.blocks.sums)[slot] = sum;
      writable(index.facts)[slot] = {static_cast<float>(coordinates.tails[i]),
                                     round_up(std::sqrt(refined_error) * kStoredError + slack), chunk[i], screen};
      float& block_error = writable(index.block_errors)[slot / kBlockRows];
      if (!is_empty) block_error = std::max(block_error, round_up(std::sqrt(code_error) * kStoredError + slack));
    }
  }
}

}  // namespace onceover
