// Anomalous pixels: the key of each one's score and the pixels it shares its region's weight with, 8 bytes each, in
// blocks, so that growing copies nothing.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace onceover {

// key << 32 | area: sorted as numbers, by key and then by area. Its weight is 1 / area.
using WeightedKey = uint64_t;

inline WeightedKey weighted_key(uint32_t key, uint32_t area) { return uint64_t{key} << 32 | area; }

class WeightedKeys {
 public:
  void add(WeightedKey entry) {
    if (size_ == capacity_) grow();
    blocks_.back()[size_++ % kBlock] = entry;
  }
  void absorb(const WeightedKeys& other) {
    const size_t count = other.size_;  // other may be this
    for (size_t i = 0; i < count; ++i) add(other.blocks_[i / kBlock][i % kBlock]);
  }
  void append_to(std::vector<WeightedKey>& entries) const {
    entries.reserve(entries.size() + size_);
    for (size_t i = 0; i < size_; i += kBlock) {
      const WeightedKey* block = blocks_[i / kBlock].get();
      entries.insert(entries.end(), block, block + (size_ - i < kBlock ? size_ - i : kBlock));
    }
  }
  size_t size() const { return size_; }
  size_t size_bytes() const { return capacity_ * sizeof(WeightedKey) + blocks_.capacity() * sizeof(blocks_[0]); }

 private:
  static constexpr size_t kBlock = 4096;
  void grow();
  std::vector<std::unique_ptr<WeightedKey[]>> blocks_;  // of kBlock, but the first grows to that
  size_t size_ = 0, capacity_ = 0;
};

// A kind of defect may have one pixel, so that the first block starts small.
inline void WeightedKeys::grow() {
  constexpr size_t kFirst = 16;
  if (capacity_ >= kBlock) {
    blocks_.push_back(std::unique_ptr<WeightedKey[]>(new WeightedKey[kBlock]));
    capacity_ += kBlock;
    return;
  }
  const size_t larger = capacity_ == 0 ? kFirst : 2 * capacity_;
  std::unique_ptr<WeightedKey[]> block(new WeightedKey[larger]);
  if (capacity_ > 0) std::copy_n(blocks_[0].get(), size_, block.get());
  blocks_.clear();
  blocks_.push_back(std::move(block));
  capacity_ = larger;
}

// Ascending by key; equal keys in any order of their areas. Takes a second array of the same size meanwhile.
void sort_by_key(std::vector<WeightedKey>& entries);

}  // namespace onceover
