// Anomalous pixels: the key of each one's score and the pixels it shares its region's weight with, 8 bytes each, in
// blocks, so that growing copies nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace onceover {

// key << 32 | area: sorted as numbers, by key and then by area. Its weight is 1 / area.
using WeightedKey = uint64_t;

inline WeightedKey weighted_key(uint32_t key, uint32_t area) { return uint64_t{key} << 32 | area; }

class WeightedKeys {
 public:
  void add(WeightedKey entry) {
    if (size_ == blocks_.size() * kBlock) blocks_.push_back(std::unique_ptr<WeightedKey[]>(new WeightedKey[kBlock]));
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
  size_t size_bytes() const { return blocks_.size() * (kBlock * sizeof(WeightedKey) + sizeof(blocks_[0])); }

 private:
  static constexpr size_t kBlock = 4096;
  std::vector<std::unique_ptr<WeightedKey[]>> blocks_;
  size_t size_ = 0;
};

// Ascending by key; equal keys in any order of their areas. Takes a second array of the same size meanwhile.
void sort_by_key(std::vector<WeightedKey>& entries);

}  // namespace onceover
