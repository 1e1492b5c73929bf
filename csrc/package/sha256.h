// SHA-256 (FIPS 180-4), for member hashes and the package id.
#pragma once

#include <cstddef>
#include <cstdint>

#include "package/layout.h"

namespace onceover {

class Sha256 {
 public:
  Sha256() noexcept;
  void update(const void* data, size_t size) noexcept;
  Digest finish() noexcept;  // call once

 private:
  void compress(const uint8_t* block) noexcept;
  uint32_t state_[8];
  uint64_t size_ = 0;
  uint8_t tail_[64];
};

Digest sha256(const void* data, size_t size) noexcept;

}  // namespace onceover
