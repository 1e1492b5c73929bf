// Buffers of a session in one block of the caller's: each begins where the last one ended. Sessions free in reverse
// order, so what is freed last can be taken again; anything else comes back with the whole block.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/memory.h"

namespace onceover {

class Arena {
 public:
  Arena(void* block, size_t size) noexcept;
  Allocator allocator() noexcept;  // of this arena, which must not move

 private:
  void* allocate(size_t size, size_t alignment) noexcept;
  void release(void* pointer, size_t size) noexcept;
  uintptr_t next_, end_;
};

}  // namespace onceover
