#include "scoring/memory_bank.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "base/finite.h"

namespace onceover {
namespace {

constexpr size_t kMostThreads = 256;

struct Shared {
  const SearchIndex& index;
  MatrixView<const float> queries;
  size_t k;
  float* distances;
  uint32_t* indices;
  const KernelTable& table;
  uint8_t* scratch;
  size_t scratch_bytes;
  size_t part_rows;
  SearchStats stats[kMostThreads];
};

void search_part(void* context, size_t part) noexcept {
  Shared& shared = *static_cast<Shared*>(context);
  const size_t first = std::min(shared.queries.rows, part * shared.part_rows);
  const size_t count = std::min(shared.queries.rows - first, shared.part_rows);
  if (count == 0) return;
  const MatrixView<const float> mine(shared.queries.row(first), count, shared.queries.columns, shared.queries.stride);
  search(shared.index, mine, shared.k, shared.distances + first * shared.k, shared.indices + first * shared.k,
         shared.table, shared.scratch + part * shared.scratch_bytes, shared.stats[part]);
}

}  // namespace

void search_on(ThreadPool& pool, const SearchIndex& index, MatrixView<const float> queries, size_t k, float* distances,
               uint32_t* indices, const KernelTable& table, uint8_t* scratch, SearchStats& stats) noexcept {
  const size_t groups = (queries.rows + kQueryLanes - 1) / kQueryLanes;
  const size_t part_rows = (groups + pool.threads() - 1) / pool.threads() * kQueryLanes;
  Shared shared{index, queries, k, distances, indices, table, scratch, search_scratch_bytes(index, k), part_rows, {}};
  pool.run(search_part, &shared);
  for (size_t part = 0; part < pool.threads(); ++part) add_to(stats, shared.stats[part]);
}

MemoryBank::MemoryBank(MatrixView<const float> rows, const BuildOptions& options, const KernelTable& table,
                       size_t memory_limit_bytes)
    : table_(table), memory_(heap_allocator(), memory_limit_bytes), rows_(rows) {
  own_index_ = build_index(rows, options, table, memory_);
  view();
}

MemoryBank::MemoryBank(MatrixView<const float> rows, const uint8_t* index, size_t index_size, const KernelTable& table)
    : table_(table), rows_(rows), index_data_(index), index_size_(index_size) {
  index_ = view_index(index, index_size, rows);
  check_made_for(index_);
}

void MemoryBank::view() {
  index_data_ = own_index_.data();
  index_size_ = own_index_.size();
  index_ = view_index(index_data_, index_size_, rows_);
}

void MemoryBank::own_rows() {
  if (!own_rows_.empty()) return;
  own_rows_.assign(rows_.data, rows_.data + rows_.rows * rows_.columns);
  rows_.data = own_rows_.data();
}

void MemoryBank::own_index() {
  if (own_index_.size() != 0) return;
  own_index_ = Buffer<uint8_t>(memory_, index_size_, "search index");
  std::memcpy(own_index_.data(), index_data_, index_size_);
  view();
}

std::unique_ptr<MemoryBank::Team> MemoryBank::take_team(size_t threads, size_t scratch_bytes) const {
  std::unique_ptr<Team> team;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto fits =
        std::find_if(teams_.begin(), teams_.end(), [&](const auto& each) { return each->pool->threads() == threads; });
    if (fits != teams_.end()) {
      team = std::move(*fits);
      teams_.erase(fits);
    }
  }
  if (team == nullptr) {
    team = std::make_unique<Team>();
    team->pool = std::make_unique<ThreadPool>(threads);
  }
  if (team->scratch.size() < scratch_bytes) {
    team->scratch = Buffer<uint8_t>();
    team->scratch = Buffer<uint8_t>(team->memory, scratch_bytes, "search scratch");
  }
  return team;
}

void MemoryBank::put_back(std::unique_ptr<Team> team) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  teams_.push_back(std::move(team));
}

void MemoryBank::search(MatrixView<const float> queries, size_t k, float* distances, uint32_t* indices, size_t threads,
                        SearchStats& stats) const {
  if (queries.columns != index_.dims) {
    fail(Status::kInput, "queries have %zu values per row, the memory bank %zu; both must agree", queries.columns,
         index_.dims);
  }
  if (k < 1 || k > kMaxNeighbors) fail(Status::kUsage, "k is %zu, expected 1 to %zu neighbors", k, kMaxNeighbors);
  if (threads < 1 || threads > kMostThreads) {
    fail(Status::kUsage, "threads is %zu, expected 1 to %zu", threads, kMostThreads);
  }
  const size_t groups = (queries.rows + kQueryLanes - 1) / kQueryLanes;
  const size_t useful = std::max<size_t>(1, std::min(threads, groups));
  std::unique_ptr<Team> team = take_team(useful, useful * search_scratch_bytes(index_, k));
  search_on(*team->pool, index_, queries, k, distances, indices, table_, team->scratch.data(), stats);
  put_back(std::move(team));
}

size_t MemoryBank::add(MatrixView<const float> rows) {
  if (rows.columns != index_.dims || rows.stride != rows.columns) {
    fail(Status::kInput, "rows to add have %zu values, the memory bank %zu; both must agree", rows.columns,
         index_.dims);
  }
  if (rows.rows >= kNoRow - index_.row_count) fail(Status::kInput, "a memory bank holds fewer than 2^32 - 1 rows");
  check_finite_rows(rows, "rows to add");
  const size_t first = index_.row_count;
  if (rows.rows == 0) return first;
  own_rows();
  own_rows_.insert(own_rows_.end(), rows.data, rows.data + rows.rows * rows.columns);
  rows_ = {own_rows_.data(), first + rows.rows, index_.dims};
  index_.rows.data = own_rows_.data();  // it may have moved; the old index still views `first` rows
  try {
    own_index_ = append_to_index(index_, rows_, table_, memory_);
  } catch (...) {
    own_rows_.resize(first * index_.dims);
    rows_.rows = first;
    throw;
  }
  view();
  return first;
}

void MemoryBank::remove(const uint32_t* ids, size_t count) {
  std::vector<uint8_t> named(index_.row_count);
  for (size_t i = 0; i < count; ++i) {
    if (ids[i] >= index_.row_count || index_.states[ids[i]] == RowState::kRemoved || named[ids[i]] != 0) {
      fail(Status::kUsage,
           "row %u cannot be removed: it is not one of the memory bank's %zu rows (numbers below %zu, without those "
           "removed before), or was named twice; nothing was changed",
           ids[i], row_count(), index_.row_count);
    }
    named[ids[i]] = 1;
  }
  if (count == 0) return;
  own_index_ = remove_from_index(index_, ids, count, memory_);
  view();
}

void MemoryBank::compact(const BuildOptions& options) {
  std::vector<float> kept;
  kept.reserve(row_count() * index_.dims);
  for (size_t id = 0; id < index_.row_count; ++id) {
    if (index_.states[id] != RowState::kRemoved) kept.insert(kept.end(), rows_.row(id), rows_.row(id) + index_.dims);
  }
  const MatrixView<const float> rows(kept.data(), kept.size() / index_.dims, index_.dims);
  Buffer<uint8_t> bytes = build_index(rows, options, table_, memory_);
  own_rows_.swap(kept);
  rows_ = rows;
  own_index_ = std::move(bytes);
  view();
}

}  // namespace onceover
