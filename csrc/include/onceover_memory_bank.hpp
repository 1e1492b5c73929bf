// onceover_memory_bank.h for C++11 and later: a bank that frees itself, vectors, and StatusError where a call fails;
// what is said there and in onceover.hpp holds here. Header only, over the C ABI.
//
//   const onceover::NeighborBank bank(rows.data(), row_count, dims);  // rows are borrowed
//   const onceover::FoundNeighbors found = bank.search(queries.data(), query_count, 5);
//   found.distances[5 * query + neighbor], found.rows[5 * query + neighbor]
#pragma once

#include "onceover.hpp"
#include "onceover_memory_bank.h"

namespace onceover {

struct FoundNeighbors {  // (queries, k) each, nearest first
  std::vector<float> distances;
  std::vector<uint32_t> rows;
};

class NeighborBank {
 public:
  using Scratch = std::vector<unsigned char>;

  // Builds an index. options: sized<onceover_memory_bank_options>(), with what shall differ from the default.
  NeighborBank(const float* rows, size_t row_count, size_t dims,
               const onceover_memory_bank_options& options = sized<onceover_memory_bank_options>()) {
    onceover_memory_bank* built = nullptr;
    StatusError::check(onceover_memory_bank_build(rows, row_count, dims, &options, &built));
    handle_.reset(built);
  }
  // Takes an index that index() gave, in place.
  static NeighborBank view(const float* rows, size_t row_count, size_t dims, const void* index, size_t index_bytes) {
    onceover_memory_bank* made = nullptr;
    StatusError::check(onceover_memory_bank_view(rows, row_count, dims, index, index_bytes, &made));
    return NeighborBank(made);
  }

  // Rows of queries without gaps. Several threads may search at once.
  FoundNeighbors search(const float* queries, size_t query_count, size_t k = 1) const {
    FoundNeighbors found;
    Scratch scratch;
    found.distances.resize(query_count * k);
    found.rows.resize(query_count * k);
    search(queries, query_count, info().dims, k, found.distances.data(), found.rows.data(), scratch);
    return found;
  }
  // Into memory that is there. scratch: one for each thread; it grows to what this bank needs, and then nothing is
  // allocated.
  onceover_memory_bank_stats search(const float* queries, size_t query_count, size_t stride_floats, size_t k,
                                    float* distances, uint32_t* rows, Scratch& scratch) const {
    size_t needed = 0;
    StatusError::check(onceover_memory_bank_scratch_bytes(get(), k, &needed));
    if (scratch.size() < needed) scratch.resize(needed);
    onceover_memory_bank_stats stats = sized<onceover_memory_bank_stats>();
    StatusError::check(onceover_memory_bank_search(get(), queries, query_count, stride_floats, k, distances, rows,
                                                   scratch.data(), scratch.size(), &stats));
    return stats;
  }

  uint32_t add(const float* rows, size_t row_count) {  // → the number of the first one
    uint32_t first = 0;
    StatusError::check(onceover_memory_bank_add(get(), rows, row_count, &first));
    return first;
  }
  void remove(const std::vector<uint32_t>& rows) {
    StatusError::check(onceover_memory_bank_remove(get(), rows.data(), rows.size()));
  }
  // The bank's, until it changes: to be stored, and viewed later.
  std::pair<const void*, size_t> index() const {
    std::pair<const void*, size_t> told(nullptr, 0);
    StatusError::check(onceover_memory_bank_index(get(), &told.first, &told.second));
    return told;
  }
  onceover_memory_bank_info info() const {
    onceover_memory_bank_info told = sized<onceover_memory_bank_info>();
    StatusError::check(onceover_memory_bank_describe(get(), &told));
    return told;
  }
  onceover_memory_bank* get() noexcept { return handle_.get(); }
  const onceover_memory_bank* get() const noexcept { return handle_.get(); }

 private:
  struct Free {
    void operator()(onceover_memory_bank* bank) const { onceover_memory_bank_free(bank); }
  };
  explicit NeighborBank(onceover_memory_bank* owned) : handle_(owned) {}

  std::unique_ptr<onceover_memory_bank, Free> handle_;
};

}  // namespace onceover
