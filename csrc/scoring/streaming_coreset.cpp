// A ladder of nets, from the finest that may have few enough rows to one that covers everything. Why: the header.
#include "scoring/streaming_coreset.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "base/error.h"
#include "base/finite.h"

namespace onceover {
namespace {

constexpr size_t kNets = 64;       // as many as a set has bits
constexpr float kStep = 1.05f;     // between neighboring nets: the selection may be so much coarser than need be …
constexpr size_t kFineSteps = 24;  // … while rows are at most 3.2 times as far apart as the sample says
constexpr float kCoarseStep = 2.0f;
constexpr float kNarrowest = 1e-3f;        // of the sample's extent: where the selection is all of the sample
constexpr float kPointExtent = 1e-9f;      // where the sample is one point
constexpr size_t kPivots = 256;            // few enough to measure every row against
constexpr size_t kBlock = 256;             // rows; their distances to the pivots stay in the second-level cache
constexpr float kRounding = 1.0f + 1e-5f;  // more than distances are off: no cell is passed over that may hold a cover
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// A finer net than the selection is kept for a while: it holds what the selection is filled with.
size_t most_rows(size_t count) { return count + count * 3 / 10; }

// The highest bit of a set that is not empty.
size_t widest(uint64_t nets) { return 63 - static_cast<size_t>(__builtin_clzll(nets)); }

}  // namespace

// What is known of some rows before any cell is searched. Pivot p's numbers of all rows lie side by side.
struct StreamingCoreset::Block {
  size_t begin = 0, size = 0;
  std::vector<float> squared;                     // (P, size) to the pivots
  std::vector<float> first, second;               // (size): the two least of them
  std::vector<uint32_t> nearest, runner_up;       // whose they are
  std::vector<Nets> open;                         // nets that no pivot covers the row in
  std::vector<std::pair<float, uint32_t>> cells;  // to be searched for one row: squared distance of the pivot, number
};

StreamingCoreset::StreamingCoreset(MatrixView<const float> seeds, const uint64_t* ids, float radius, size_t count,
                                   const KernelTable& table)
    : count_(count), dims_(seeds.columns), table_(table) {
  if (seeds.rows == 0 || seeds.columns == 0 || seeds.stride != seeds.columns) {
    fail(Status::kInput, "seeds of a coreset are %zu x %zu (stride %zu); expected one or more contiguous rows",
         seeds.rows, seeds.columns, seeds.stride);
  }
  if (count == 0) fail(Status::kUsage, "a coreset of 0 rows; ask for 1 or more");
  if (!(radius >= 0))
    fail(Status::kUsage, "the covering radius of the seeds is %g; expected 0 or more", double{radius});
  check_finite_rows(seeds, "seeds of a coreset");
  const size_t pivots = std::min(kPivots, seeds.rows);
  pivots_.assign(seeds.data, seeds.data + pivots * dims_);
  cells_.resize(pivots);
  std::vector<float> squared(seeds.rows, kInfinity);
  const size_t farthest = table.lower_to_center_f32(seeds.data, seeds.rows, dims_, seeds.row(0), squared.data());
  make_ladder(std::max({radius, kNarrowest * std::sqrt(squared[farthest]), kPointExtent}));

  // One by one, because `ask_pivots` relies on which nets the pivots are in.
  Block block;
  for (block.size = 1; block.begin < pivots; ++block.begin) {
    const size_t pivot = block.begin;
    measure(seeds, block);
    ask_pivots(block);
    const Nets nets = left_by_cells(seeds.row(pivot), block, 0);
    take(seeds.row(pivot), ids[pivot], nets, block.nearest[0], std::sqrt(block.first[0]));
    for (size_t i = 0; i < ladder_.size(); ++i) {
      if ((nets >> i & 1) != 0 && ladder_[i].leading_pivots == pivot) ++ladder_[i].leading_pivots;
    }
  }
  add({seeds.row(pivots), seeds.rows - pivots, dims_}, ids + pivots);
  give_up_overgrown();
}

void StreamingCoreset::make_ladder(float finest) {
  float radius = finest;
  while (ladder_.size() + 1 < kNets) {
    const float squared = radius * radius;
    ladder_.push_back({squared < kInfinity ? radius : kInfinity, squared});
    radius *= ladder_.size() <= kFineSteps ? kStep : kCoarseStep;
  }
  ladder_.push_back({kInfinity, kInfinity});  // one row covers all: there always is a selection
  live_ = ~Nets{0};
}

std::vector<uint32_t> StreamingCoreset::add(MatrixView<const float> rows, const uint64_t* ids) {
  if (rows.columns != dims_ || rows.stride != rows.columns) {
    fail(Status::kInput, "rows of a coreset are %zu x %zu (stride %zu); expected contiguous rows of %zu values",
         rows.rows, rows.columns, rows.stride, dims_);
  }
  check_finite_rows(rows, "rows of a coreset");
  std::vector<uint32_t> taken;
  Block block;
  for (; block.begin < rows.rows; block.begin += block.size) {
    block.size = std::min(kBlock, rows.rows - block.begin);
    measure(rows, block);
    ask_pivots(block);
    for (size_t i = 0; i < block.size; ++i) {
      const size_t number = block.begin + i;
      const Nets nets = left_by_cells(rows.row(number), block, i);
      if (nets == 0) continue;
      take(rows.row(number), ids[number], nets, block.nearest[i], std::sqrt(block.first[i]));
      taken.push_back(static_cast<uint32_t>(number));
    }
    give_up_overgrown();
  }
  return taken;
}

void StreamingCoreset::measure(MatrixView<const float> rows, Block& block) const {
  const size_t size = block.size;
  block.squared.assign(cells_.size() * size, kInfinity);
  block.first.assign(size, kInfinity);
  block.second.assign(size, kInfinity);
  block.nearest.assign(size, 0);
  block.runner_up.assign(size, 0);
  float *first = block.first.data(), *second = block.second.data();
  uint32_t *nearest = block.nearest.data(), *runner_up = block.runner_up.data();
  for (uint32_t pivot = 0; pivot < cells_.size(); ++pivot) {
    float* squared = block.squared.data() + pivot * size;
    table_.lower_to_center_f32(rows.row(block.begin), size, dims_, pivots_.data() + pivot * dims_, squared);
    for (size_t i = 0; i < size; ++i) {
      const float now = squared[i];
      const bool leads = now < first[i], follows = now < second[i];
      second[i] = leads ? first[i] : follows ? now : second[i];
      runner_up[i] = leads ? nearest[i] : follows ? pivot : runner_up[i];
      first[i] = leads ? now : first[i];
      nearest[i] = leads ? pivot : nearest[i];
    }
  }
}

// Wide nets consist of pivots, whose distances are known; so the widest are done here.
void StreamingCoreset::ask_pivots(Block& block) const {
  std::vector<float> least(block.size, kInfinity);  // over the first `asked` pivots
  size_t asked = 0;
  block.open.assign(block.size, 0);
  for (size_t k = ladder_.size(); k-- > 0;) {
    if ((live_ >> k & 1) == 0) continue;
    const Net& net = ladder_[k];
    for (; asked < net.leading_pivots; ++asked) {
      const float* squared = block.squared.data() + asked * block.size;
      for (size_t i = 0; i < block.size; ++i) least[i] = std::min(least[i], squared[i]);
    }
    const bool answered = asked > 0 && asked == net.leading_pivots;  // not where a wider net has more of the pivots
    for (size_t i = 0; i < block.size; ++i) {
      block.open[i] |= Nets{!answered || least[i] > net.squared_radius} << k;
    }
  }
}

// The open nets of a row of the block that no row of any cell covers it in. Nearest cells first: most rows are covered.
StreamingCoreset::Nets StreamingCoreset::left_by_cells(const float* row, Block& block, size_t number) const {
  const size_t nearest = block.nearest[number], runner_up = block.runner_up[number];
  Nets open = block.open[number];
  if (open != 0) open = left_by_cell(cells_[nearest], row, open);
  if (open != 0 && runner_up != nearest) open = left_by_cell(cells_[runner_up], row, open);
  if (open == 0) return open;
  auto& others = block.cells;
  others.clear();
  const float radius = ladder_[widest(open)].radius;
  for (uint32_t j = 0; j < cells_.size(); ++j) {
    const float near = kRounding * (cells_[j].reach + radius), squared = block.squared[j * block.size + number];
    if (squared <= near * near && j != nearest && j != runner_up) others.emplace_back(squared, j);
  }
  std::sort(others.begin(), others.end());
  for (const auto& other : others) {
    const Cell& cell = cells_[other.second];
    const float near = kRounding * (cell.reach + ladder_[widest(open)].radius);
    if (other.first <= near * near) open = left_by_cell(cell, row, open);
    if (open == 0) break;
  }
  return open;
}

StreamingCoreset::Nets StreamingCoreset::left_by_cell(const Cell& cell, const float* row, Nets open) const {
  constexpr size_t kRows = 64;
  float squared[kRows];
  float near = ladder_[widest(open)].squared_radius;
  for (size_t at = 0; at < cell.ids.size(); at += kRows) {
    const size_t size = std::min(kRows, cell.ids.size() - at);
    std::fill_n(squared, size, kInfinity);
    table_.lower_to_center_f32(cell.rows.data() + at * dims_, size, dims_, row, squared);
    for (size_t j = 0; j < size; ++j) {
      if (squared[j] > near) continue;
      Nets asked = open & cell.nets[at + j];
      while (asked != 0 && squared[j] <= ladder_[widest(asked)].squared_radius) {
        open &= ~(Nets{1} << widest(asked));
        asked &= open;
      }
      if (open == 0) return open;
      near = ladder_[widest(open)].squared_radius;
    }
  }
  return open;
}

void StreamingCoreset::take(const float* row, uint64_t id, Nets nets, size_t cell, float pivot_distance) {
  if (nets == 0) return;
  Cell& to = cells_[cell];
  to.rows.insert(to.rows.end(), row, row + dims_);
  to.ids.push_back(id);
  to.nets.push_back(nets);
  to.reach = std::max(to.reach, pivot_distance);
  for (size_t i = 0; i < ladder_.size(); ++i) ladder_[i].size += nets >> i & 1;
}

void StreamingCoreset::give_up_overgrown() {
  Nets lost = 0;
  for (size_t i = 0; i < ladder_.size(); ++i) {
    if ((live_ >> i & 1) != 0 && ladder_[i].size > most_rows(count_)) lost |= Nets{1} << i;
  }
  if (lost == 0) return;
  live_ &= ~lost;
  for (Cell& cell : cells_) {
    size_t kept = 0;
    for (size_t j = 0; j < cell.ids.size(); ++j) {
      if ((cell.nets[j] & live_) == 0) continue;
      cell.nets[kept] = cell.nets[j] & live_;
      cell.ids[kept] = cell.ids[j];
      std::copy_n(cell.rows.data() + j * dims_, dims_, cell.rows.data() + kept * dims_);
      ++kept;
    }
    cell.nets.resize(kept);
    cell.ids.resize(kept);
    cell.rows.resize(kept * dims_);
  }
}

// The widest net has one row, so there is one.
size_t StreamingCoreset::best() const {
  size_t net = 0;
  while ((live_ >> net & 1) == 0 || ladder_[net].size > count_) ++net;
  return net;
}

float StreamingCoreset::covering_radius() const { return ladder_[best()].radius; }

std::vector<uint64_t> StreamingCoreset::held() const {
  std::vector<uint64_t> ids;
  for (const Cell& cell : cells_) ids.insert(ids.end(), cell.ids.begin(), cell.ids.end());
  std::sort(ids.begin(), ids.end());
  return ids;
}

std::vector<uint64_t> StreamingCoreset::selected() const {
  const size_t net = best();
  std::vector<uint64_t> ids;
  std::vector<std::pair<uint64_t, const float*>> others;
  for (const Cell& cell : cells_) {
    for (size_t j = 0; j < cell.ids.size(); ++j) {
      const bool in_net = (cell.nets[j] >> net & 1) != 0;
      if (in_net) ids.push_back(cell.ids[j]);
      if (!in_net) others.emplace_back(cell.ids[j], cell.rows.data() + j * dims_);
    }
  }
  std::sort(others.begin(), others.end());  // by id: ties go to the lowest
  std::vector<float> rows, squared(others.size(), kInfinity);
  for (const auto& other : others) rows.insert(rows.end(), other.second, other.second + dims_);
  size_t farthest = 0;
  const auto lower = [&](const float* row) {
    farthest = table_.lower_to_center_f32(rows.data(), others.size(), dims_, row, squared.data());
  };
  for (const Cell& cell : cells_) {
    for (size_t j = 0; j < cell.ids.size() && !others.empty(); ++j) {
      if ((cell.nets[j] >> net & 1) != 0) lower(cell.rows.data() + j * dims_);
    }
  }
  while (ids.size() < count_ && !others.empty() && squared[farthest] > 0) {
    ids.push_back(others[farthest].first);
    lower(rows.data() + farthest * dims_);
  }
  std::sort(ids.begin(), ids.end());
  return ids;
}

}  // namespace onceover
