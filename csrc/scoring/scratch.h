// Carves arrays out of one block of bytes: the same calls with no block at all measure how large it must be.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/memory.h"

namespace onceover {

class Scratch {
 public:
  explicit Scratch(uint8_t* bytes) : bytes_(bytes) {}
  // The next `count` elements, 64-byte aligned, not initialized; null when measuring.
  template <typename T>
  T* take(size_t count) {
    T* pointer = bytes_ == nullptr ? nullptr : reinterpret_cast<T*>(bytes_ + used_);
    used_ += (count * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
    return pointer;
  }
  size_t used() const { return used_; }

 private:
  uint8_t* bytes_;
  size_t used_ = 0;
};

}  // namespace onceover
