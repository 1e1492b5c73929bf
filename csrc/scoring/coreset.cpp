// Contenders meet every new center; all other rows wait below a bar. Why this is the plain algorithm: coreset.h.
#include "scoring/coreset.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <numeric>
#include <utility>

#include "base/error.h"
#include "base/finite.h"

namespace onceover {
namespace {

// None of these changes what is selected; halved or doubled, they cost up to a fifth more or nothing.
constexpr size_t kPlainSteps = 4;        // in which every row may come closer; at least 1
constexpr size_t kContenders = 1024;     // at most
constexpr size_t kBatchBytes = 1 << 17;  // a batch stays in a core's second-level cache …
constexpr size_t kLeastBatch = 64;       // … has rows enough to be worth fetching a center for …
constexpr size_t kMostBatch = 1024;      // … and so few that they have missed about the same centers
constexpr size_t kMeeting = 16;          // centers that a batch meets between looks at the bar
constexpr size_t kSamples = 1024;
constexpr size_t kStepsPerRetirement = 16;
constexpr size_t kCells = 64;              // at most 256, for uint8_t
constexpr size_t kCellsFrom = 4 * kCells;  // centers, so that making cells is little work beside finding these
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// What is selected first: the larger distance, then the lower row. Floats ≥ 0 compare as their bits do.
uint64_t rank_of(float squared, size_t row) {
  uint32_t bits;
  std::memcpy(&bits, &squared, sizeof bits);
  return (uint64_t{bits} << 32) | (UINT32_MAX - row);
}

}  // namespace

GreedyCoreset::GreedyCoreset(MatrixView<const float> points, size_t first, const KernelTable& table, Memory& memory)
    : points_(points), table_(table), next_(first), next_squared_(kInfinity), wanted_(kContenders) {
  if (points.rows == 0 || points.columns == 0 || points.rows >= UINT32_MAX || points.stride != points.columns) {
    fail(Status::kInput, "coreset points are %zu x %zu (stride %zu); expected 1 to 2^32 - 2 contiguous rows",
         points.rows, points.columns, points.stride);
  }
  if (first >= points.rows) {
    fail(Status::kUsage, "coreset starts from row %zu, but there are %zu rows (0 to %zu)", first, points.rows,
         points.rows - 1);
  }
  check_finite_rows(points, "coreset points");  // a NaN would be the farthest row for ever
  const size_t rows = points.rows, dims = points.columns;
  squared_ = Buffer<float>(memory, rows, "coreset distances");
  met_ = Buffer<uint32_t>(memory, rows, "coreset distances");
  candidates_ = Buffer<uint32_t>(memory, rows, "coreset candidates");
  contenders_ = PackedRows(memory, std::min(rows, kContenders), dims, "coreset contenders");
  const size_t batch = std::clamp(kBatchBytes / sizeof(float) / dims, kLeastBatch, kMostBatch);
  batch_ = PackedRows(memory, std::min(rows, batch), dims, "coreset candidates");
  cell_ = Buffer<uint8_t>(memory, rows, "coreset cells");
  rows_by_cell_ = Buffer<uint32_t>(memory, rows, "coreset cells");
  std::fill(squared_.begin(), squared_.end(), kInfinity);
  std::iota(rows_by_cell_.begin(), rows_by_cell_.end(), 0u);
}

float GreedyCoreset::covering_radius() const { return std::sqrt(next_squared_); }

void GreedyCoreset::select(size_t count) {
  for (; count > 0 && next_squared_ > 0; --count) {
    const size_t chosen = next_, number = selected_.size();
    selected_.push_back(static_cast<uint32_t>(chosen));
    if (number < kPlainSteps) {
      next_ =
          table_.lower_to_center_f32(points_.data, points_.rows, points_.columns, points_.row(chosen), squared_.data());
      next_squared_ = squared_[next_];
      std::fill(met_.begin(), met_.end(), static_cast<uint32_t>(number + 1));
    } else {
      if (!cell_centers_.empty()) cell_centers_[cell_[chosen]].push_back(static_cast<uint32_t>(number));
      find_next();
    }
  }
}

void GreedyCoreset::find_next() {
  size_t farthest = 0;
  if (contenders_.size > 0) {
    farthest = table_.lower_to_center_f32(contenders_.values.data(), contenders_.size, points_.columns,
                                          points_.row(selected_.back()), contenders_.squared.data());
  }
  if (contenders_.size == 0 || rank_of(contenders_.squared[farthest], contenders_.row[farthest]) < bar_) {
    retire_contenders();  // all: none outranks the farthest
    find_contenders();
    const float* squared = contenders_.squared.data();
    farthest = static_cast<size_t>(std::max_element(squared, squared + contenders_.size) - squared);
  }
  next_ = contenders_.row[farthest];
  next_squared_ = contenders_.squared[farthest];
  if (selected_.size() % kStepsPerRetirement == 0) retire_contenders();
}

// Contenders below the bar wait with the others; the rest keep their order.
void GreedyCoreset::retire_contenders() {
  size_t kept = 0;
  for (size_t j = 0; j < contenders_.size; ++j) {
    const uint32_t row = contenders_.row[j];
    if (rank_of(contenders_.squared[j], row) >= bar_) {
      contenders_.move(j, kept++);
    } else {
      squared_[row] = contenders_.squared[j];
      met_[row] = static_cast<uint32_t>(selected_.size());
    }
  }
  contenders_.size = kept;
}

// Lowers the bar until some row that has met every center stays above it.
void GreedyCoreset::find_contenders() {
  if (cell_centers_.empty() && selected_.size() >= kCellsFrom) make_cells();
  do {
    lower_bar();
    size_t count = collect_candidates();
    if (!cell_centers_.empty()) count = try_cells(count);
    count = catch_up(count);
    if (count > contenders_.capacity() / 4) wanted_ = std::max<size_t>(wanted_ / 2, 1);
    if (count < contenders_.capacity() / 16) wanted_ = std::min(wanted_ * (count == 0 ? 4 : 2), points_.rows);
    pack_contenders(count);
  } while (contenders_.size == 0);
}

// To a rank that about wanted_ of the waiting rows reach, judging by a sample. At least the sampled row does.
void GreedyCoreset::lower_bar() {
  uint64_t ranks[kSamples];
  const size_t rows = points_.rows, samples = std::min(rows, kSamples);
  for (size_t k = 0; k < samples; ++k) ranks[k] = rank_of(squared_[k * rows / samples], k * rows / samples);
  uint64_t* bar = ranks + std::min(wanted_ * samples / rows, samples - 1);
  std::nth_element(ranks, bar, ranks + samples, std::greater<>());
  bar_ = wanted_ < rows ? *bar : 0;
}

// Cell by cell, once there are cells.
size_t GreedyCoreset::collect_candidates() {
  size_t count = 0;
  for (const uint32_t row : rows_by_cell_) {
    candidates_[count] = row;
    count += rank_of(squared_[row], row) >= bar_ ? 1 : 0;
  }
  return count;
}

// Each candidate meets the centers of its cell that it may not have met, latest first, until it drops below the bar;
// returns how many do not. What they met between counts for nothing in met_.
size_t GreedyCoreset::try_cells(size_t count) {
  size_t above = 0;
  for (size_t at = 0; at < count;) {
    const uint8_t cell = cell_[candidates_[at]];
    uint32_t met = UINT32_MAX;
    for (; at < count && cell_[candidates_[at]] == cell && batch_.size < batch_.capacity(); ++at) {
      met = std::min(met, met_[candidates_[at]]);
      add(batch_, candidates_[at]);
    }
    const std::vector<uint32_t>& numbers = cell_centers_[cell];
    const auto unmet = std::lower_bound(numbers.begin(), numbers.end(), met);
    for (auto end = numbers.end(); end != unmet && batch_.size > 0;) {
      uint32_t centers[kMeeting];
      size_t size = 0;
      while (size < kMeeting && end != unmet) centers[size++] = selected_[*--end];
      meet(centers, size, 0);
    }
    above = unpack_batch(above);
  }
  return above;
}

// Each candidate meets the centers it has not met, in order, until it drops below the bar; returns how many do not.
size_t GreedyCoreset::catch_up(size_t count) {
  uint32_t* rows = candidates_.data();
  std::sort(rows, rows + count, [this](uint32_t a, uint32_t b) { return met_[a] < met_[b]; });
  size_t above = 0;
  for (size_t at = 0; at < count;) {
    size_t met = met_[rows[at]];  // the least of the batch; the others meet some centers twice
    for (; at < count && batch_.size < batch_.capacity(); ++at) add(batch_, rows[at]);
    while (met < selected_.size() && batch_.size > 0) {
      const size_t size = std::min(selected_.size() - met, kMeeting);
      meet(selected_.data() + met, size, static_cast<uint32_t>(met + size));
      met += size;
    }
    above = unpack_batch(above);
  }
  return above;
}

// The batch meets some centers and has then met all numbered below `met`; rows that drop below the bar leave it.
void GreedyCoreset::meet(const uint32_t* centers, size_t count, uint32_t met) {
  const size_t dims = points_.columns;
  for (size_t k = 0; k < count; ++k) {
    table_.lower_to_center_f32(batch_.values.data(), batch_.size, dims, points_.row(centers[k]), batch_.squared.data());
  }
  for (size_t j = batch_.size; j-- > 0;) {
    const uint32_t row = batch_.row[j];
    squared_[row] = batch_.squared[j];
    met_[row] = std::max(met_[row], met);
    if (rank_of(squared_[row], row) < bar_) batch_.move(--batch_.size, j);
  }
}

void GreedyCoreset::add(PackedRows& to, uint32_t row) const { to.append(points_.row(row), squared_[row], row); }

// Appends what is left of the batch to the first `count` candidates; returns how many these are now.
size_t GreedyCoreset::unpack_batch(size_t count) {
  std::copy_n(batch_.row.data(), batch_.size, candidates_.data() + count);
  return count + std::exchange(batch_.size, 0);
}

// The first `count` candidates, who have met every center, become contenders; if they are too many, the last wait.
void GreedyCoreset::pack_contenders(size_t count) {
  uint32_t* rows = candidates_.data();
  if (const size_t most = contenders_.capacity(); count > most) {
    const auto outranks = [this](uint32_t a, uint32_t b) { return rank_of(squared_[a], a) > rank_of(squared_[b], b); };
    std::nth_element(rows, rows + most - 1, rows + count, outranks);
    bar_ = rank_of(squared_[rows[most - 1]], rows[most - 1]);
    count = most;
  }
  std::sort(rows, rows + count);
  for (size_t k = 0; k < count; ++k) add(contenders_, rows[k]);
}

// A cell: the rows nearest to the same one of the first centers, which are far apart.
void GreedyCoreset::make_cells() {
  size_t begin[kCells + 1] = {};
  for (size_t at = 0; at < points_.rows; at += kLeastBatch) {
    const size_t count = std::min(kLeastBatch, points_.rows - at);
    float squared[kLeastBatch], before[kLeastBatch];
    std::fill_n(squared, count, kInfinity);
    for (size_t k = 0; k < kCells; ++k) {
      std::copy_n(squared, count, before);
      table_.lower_to_center_f32(points_.row(at), count, points_.columns, points_.row(selected_[k]), squared);
      for (size_t j = 0; j < count; ++j) {
        if (squared[j] < before[j]) cell_[at + j] = static_cast<uint8_t>(k);
      }
    }
    for (size_t j = 0; j < count; ++j) ++begin[cell_[at + j] + 1];
  }
  std::partial_sum(begin, begin + kCells + 1, begin);
  for (size_t i = 0; i < points_.rows; ++i) rows_by_cell_[begin[cell_[i]]++] = static_cast<uint32_t>(i);
  cell_centers_.resize(kCells);
  for (size_t k = 0; k < selected_.size(); ++k) cell_centers_[cell_[selected_[k]]].push_back(static_cast<uint32_t>(k));
}

}  // namespace onceover
