// A memory bank: float rows and their search index, built, viewed in a mapped file, searched, corrected row by row.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "base/parallel.h"
#include "scoring/build.h"
#include "scoring/search.h"

namespace onceover {

class MemoryBank {
 public:
  // Builds the index. `rows` is borrowed until the first add or compact. Throws what build_index throws.
  MemoryBank(MatrixView<const float> rows, const BuildOptions& options, const KernelTable& table,
             size_t memory_limit_bytes = 0);
  // Views an index built before (64-byte aligned); both are borrowed until the first change. Throws Error(kInput) when
  // they do not belong together (all rows are read once to see that).
  MemoryBank(MatrixView<const float> rows, const uint8_t* index, size_t index_size, const KernelTable& table);
  MemoryBank(const MemoryBank&) = delete;
  MemoryBank& operator=(const MemoryBank&) = delete;

  // search() of search.h on `threads` threads: the same bits for any number. Several threads may search one bank at the
  // same time, but none while it changes. Throws Error(kInput | kUsage) for shapes and k. Scratch is kept for the next
  // call; where even that is unwanted, call search() itself.
  void search(MatrixView<const float> queries, size_t k, float* distances, uint32_t* indices, size_t threads,
              SearchStats& stats) const;

  // Adds rows; returns the number of the first one. They are coded as the bank is; nothing else is coded again.
  size_t add(MatrixView<const float> rows);
  // Takes rows out; their numbers are not used again before compact(). Throws Error(kUsage) for a row that is not
  // there, before anything changes.
  void remove(const uint32_t* ids, size_t count);
  // Builds again from the rows that are there, which are numbered anew in their order.
  void compact(const BuildOptions& options);

  const SearchIndex& index() const noexcept { return index_; }
  const uint8_t* index_data() const noexcept { return index_data_; }
  size_t index_size() const noexcept { return index_size_; }
  size_t row_count() const noexcept { return index_.row_count - index_.removed_count; }
  const KernelTable& table() const noexcept { return table_; }

 private:
  void own_rows();
  void own_index();
  void view();

  const KernelTable& table_;
  mutable Memory memory_;
  MatrixView<const float> rows_;
  std::vector<float> own_rows_;
  Buffer<uint8_t> own_index_;
  const uint8_t* index_data_ = nullptr;
  size_t index_size_ = 0;
  SearchIndex index_;

  // Scratch and threads for one call at a time; more callers take more of them.
  struct Team {
    Memory memory;
    Buffer<uint8_t> scratch;
    std::unique_ptr<ThreadPool> pool;
  };
  std::unique_ptr<Team> take_team(size_t threads, size_t scratch_bytes) const;
  void put_back(std::unique_ptr<Team> team) const;
  mutable std::mutex mutex_;
  mutable std::vector<std::unique_ptr<Team>> teams_;
};

// Splits the queries in `pool.threads()` parts of whole groups; scratch: search_scratch_bytes for each.
void search_on(ThreadPool& pool, const SearchIndex& index, MatrixView<const float> queries, size_t k, float* distances,
               uint32_t* indices, const KernelTable& table, uint8_t* scratch, SearchStats& stats) noexcept;

}  // namespace onceover
