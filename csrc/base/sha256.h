// SHA-256 (FIPS 180-4), for what must be found damaged: packages, stored metrics.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace onceover {

using Digest = std::array<uint8_t, 32>;

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
std::string hex(const Digest& digest);  // 64 digits, lower case

}  // namespace onceover
