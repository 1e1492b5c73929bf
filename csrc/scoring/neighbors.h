// The k nearest rows found so far of each query: exact float64 squared distances, ties by the lower index.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "scoring/search_index.h"

namespace onceover {

struct Neighbor {
  double squared;
  uint32_t id;
};

// A view of k entries, ascending by (squared, id), padded with (+inf, kNoRow).
class Neighbors {
 public:
  Neighbors(Neighbor* entries, size_t k) : entries_(entries), k_(k) {}
  void clear() {
    for (size_t i = 0; i < k_; ++i) entries_[i] = {std::numeric_limits<double>::infinity(), kNoRow};
  }
  // What a row must not exceed to count: the k-th best so far.
  double limit() const { return entries_[k_ - 1].squared; }
  bool has(uint32_t id) const {
    for (size_t i = 0; i < k_ && entries_[i].id != kNoRow; ++i) {
      if (entries_[i].id == id) return true;
    }
    return false;
  }
  // A row already in must not be offered again.
  void offer(double squared, uint32_t id) {
    const auto before = [&](const Neighbor& other) {
      return squared < other.squared || (squared == other.squared && id < other.id);
    };
    if (!before(entries_[k_ - 1])) return;
    size_t at = k_ - 1;
    for (; at > 0 && before(entries_[at - 1]); --at) entries_[at] = entries_[at - 1];
    entries_[at] = {squared, id};
  }
  // Rows equal to one found are neighbors, too: inserts them (index.copies), keeping the k best.
  void add_copies(const SearchIndex& index);
  void write(float* distances, uint32_t* indices) const {
    for (size_t i = 0; i < k_; ++i) {
      distances[i] = static_cast<float>(std::sqrt(entries_[i].squared));
      indices[i] = entries_[i].id;
    }
  }

 private:
  Neighbor* entries_;
  size_t k_;
};

}  // namespace onceover
