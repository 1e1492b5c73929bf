// A memory bank with corrections: the fitted rows that are left and the confirmed ones, searched exactly as a bank that
// was built of just these rows. All memory is taken when it is made, enough for every journal of that bound.
#pragma once

#include "base/memory.h"
#include "corrections/corrections.h"
#include "kernels/kernel_table.h"
#include "scoring/search_index.h"

namespace onceover {

class CorrectedBank {
 public:
  // `fitted` must live as long. Throws Error(kMemory); kUsage for rows beyond 32-bit numbers, as does
  // scratch_bytes.
  CorrectedBank(const SearchIndex& fitted, size_t max_added_rows, Memory& memory);
  size_t max_added_rows() const { return max_added_rows_; }

  // Replaces what was applied before. Takes from the heap, for a moment, what the index takes. Throws Error(kMemory |
  // kUsage); then what was applied before still is.
  void apply(const BankChanges& changes, const KernelTable& table);

  // What is applied, for a later `restore` where something else fails behind an apply. Throws std::bad_alloc.
  struct Kept {
    std::vector<float> joined;
    std::vector<uint8_t> bytes;  // of the index; none where it is the fitted one
    std::vector<uint32_t> numbers;
    std::vector<float> removed_distances;
    SearchIndex index;
  };
  Kept keep() const;
  void restore(Kept&& kept) noexcept;

  const SearchIndex& index() const { return index_; }
  // What a row of index() is called in the journal and to people: fitted rows keep their number.
  uint32_t number(uint32_t row) const { return row < fitted_.row_count ? row : numbers_[row - fitted_.row_count]; }
  // Scratch for one search with k = 1, whatever is applied to a bank of that bound.
  static size_t scratch_bytes(const SearchIndex& fitted, size_t max_added_rows);
  // Distance from each removed row to the nearest row that is left, float32 rounded up; (removed).
  const std::vector<float>& removed_distances() const { return removed_distances_; }

 private:
  void check(const BankChanges& changes) const;

  const SearchIndex& fitted_;
  size_t max_added_rows_;
  Buffer<float> rows_;     // (M + max_added_rows, D)
  Buffer<uint8_t> bytes_;  // of the index, at its largest
  size_t byte_count_ = 0;  // of the one applied
  Buffer<uint32_t> numbers_;
  SearchIndex index_;
  std::vector<float> removed_distances_;
};

}  // namespace onceover
