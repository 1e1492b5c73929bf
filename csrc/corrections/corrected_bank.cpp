#include "corrections/corrected_bank.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/error.h"
#include "scoring/build.h"
#include "scoring/search.h"

namespace onceover {
namespace {

size_t blocks_of(size_t rows) { return (rows + kBlockRows - 1) / kBlockRows; }

// Rows are numbered by 32 bits, and kNoRow is none; an index has so many slots and no more.
size_t checked_bound(const SearchIndex& fitted, size_t max_added_rows) {
  const bool numbered =
      max_added_rows < UINT32_MAX && uint64_t{fitted.row_count} + max_added_rows + kBlockRows < UINT32_MAX;
  const bool has_slots = fitted.representation == Representation::kScan ||
                         uint64_t{fitted.slot_count} + uint64_t{max_added_rows} + kBlockRows <= kMostSlots;
  if (numbered && has_slots) return max_added_rows;
  fail(Status::kUsage,
       "%zu rows are to have room beside the %zu fitted ones, more than can be numbered; begin a journal "
       "with a smaller bound",
       max_added_rows, fitted.row_count);
}

// Of the index with all the rows that may join: they come in one block after the other.
size_t largest_index_bytes(const SearchIndex& fitted, size_t max_added_rows) {
  IndexHeader header = header_of(fitted);
  header.row_count += static_cast<uint32_t>(max_added_rows);
  if (fitted.representation != Representation::kScan) {
    header.slot_count += static_cast<uint32_t>(blocks_of(max_added_rows) * kBlockRows);
  }
  return index_bytes(header);
}

}  // namespace

// A search takes fewer queries at a time in a larger bank, so the largest bank may not take the most scratch.
size_t CorrectedBank::scratch_bytes(const SearchIndex& fitted, size_t max_added_rows) {
  checked_bound(fitted, max_added_rows);
  SearchIndex sizes = fitted;
  size_t largest = 0;
  for (size_t blocks = 0; blocks <= blocks_of(max_added_rows); ++blocks) {
    sizes.row_count = fitted.row_count + blocks * kBlockRows;
    if (fitted.representation != Representation::kScan) sizes.slot_count = fitted.slot_count + blocks * kBlockRows;
    largest = std::max(largest, search_scratch_bytes(sizes, 1));
  }
  return largest;
}

CorrectedBank::CorrectedBank(const SearchIndex& fitted, size_t max_added_rows, Memory& memory)
    : fitted_(fitted),
      max_added_rows_(checked_bound(fitted, max_added_rows)),
      rows_(memory, (fitted.row_count + max_added_rows) * fitted.dims, "corrected memory bank"),
      bytes_(memory, largest_index_bytes(fitted, max_added_rows), "its search index"),
      numbers_(memory, max_added_rows, "its row numbers") {
  std::memcpy(rows_.data(), fitted.rows.data, fitted.row_count * fitted.dims * sizeof(float));
  index_ = fitted;
}

void CorrectedBank::check(const BankChanges& changes) const {
  const size_t added = changes.numbers.size();
  if (added > max_added_rows_ || changes.added.size() != added * fitted_.dims) {
    fail(Status::kUsage, "%zu rows of %zu values in all are to join the memory bank, it has room for %zu of %zu", added,
         changes.added.size(), max_added_rows_, fitted_.dims);
  }
  for (const uint32_t row : changes.removed) {
    if (row >= fitted_.row_count || fitted_.states[row] == RowState::kRemoved) {
      fail(Status::kUsage, "row %u is to be removed from the memory bank, which has no such row", row);
    }
  }
}

CorrectedBank::Kept CorrectedBank::keep() const {
  const size_t added = index_.row_count - fitted_.row_count;
  const float* joined = rows_.data() + fitted_.row_count * fitted_.dims;
  return {{joined, joined + added * fitted_.dims},
          {bytes_.data(), bytes_.data() + byte_count_},
          {numbers_.data(), numbers_.data() + added},
          removed_distances_,
          index_};
}

void CorrectedBank::restore(Kept&& kept) noexcept {
  std::copy(kept.joined.begin(), kept.joined.end(), rows_.data() + fitted_.row_count * fitted_.dims);
  std::copy(kept.bytes.begin(), kept.bytes.end(), bytes_.begin());
  std::copy(kept.numbers.begin(), kept.numbers.end(), numbers_.begin());
  byte_count_ = kept.bytes.size();
  removed_distances_ = std::move(kept.removed_distances);
  index_ = kept.index;  // its parts are in the same places of bytes_
}

void CorrectedBank::apply(const BankChanges& changes, const KernelTable& table) {
  check(changes);
  const size_t dims = fitted_.dims, added = changes.numbers.size();
  float* joined = rows_.data() + fitted_.row_count * dims;
  const std::vector<float> before(joined, joined + max_added_rows_ * dims);
  Memory memory;
  try {
    std::copy(changes.added.begin(), changes.added.end(), joined);
    SearchIndex grown = fitted_;
    grown.rows.data = rows_.data();
    Buffer<uint8_t> left, all;
    if (!changes.removed.empty()) {
      left = remove_from_index(grown, changes.removed.data(), changes.removed.size(), memory);
      grown = view_index(left.data(), left.size(), grown.rows);
    }
    const MatrixView<const float> rows(rows_.data(), fitted_.row_count + added, dims);
    all = append_to_index(grown, rows, table, memory);
    std::vector<float> distances(changes.removed.size());
    if (!changes.removed.empty()) {
      const SearchIndex made = view_index(all.data(), all.size(), rows);
      Buffer<uint8_t> scratch(memory, search_scratch_bytes(made, 1), "search scratch");
      for (size_t i = 0; i < distances.size(); ++i) {
        SearchStats stats;
        uint32_t nearest;
        search(made, {fitted_.rows.row(changes.removed[i]), 1, dims}, 1, &distances[i], &nearest, table, scratch.data(),
               stats);
        distances[i] = std::nextafter(distances[i], std::numeric_limits<float>::infinity());
      }
    }
    std::memcpy(bytes_.data(), all.data(), all.size());
    byte_count_ = all.size();
    index_ = view_index(bytes_.data(), all.size(), rows);
    removed_distances_.swap(distances);
  } catch (...) {
    std::copy(before.begin(), before.end(), joined);
    throw;
  }
  std::copy(changes.numbers.begin(), changes.numbers.end(), numbers_.begin());
}

}  // namespace onceover
