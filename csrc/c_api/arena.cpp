#include "c_api/arena.h"

namespace onceover {

Arena::Arena(void* block, size_t size) noexcept
    : next_(reinterpret_cast<uintptr_t>(block)), end_(reinterpret_cast<uintptr_t>(block) + size) {}

void* Arena::allocate(size_t size, size_t alignment) noexcept {
  const size_t skipped = (alignment - next_ % alignment) % alignment;
  const size_t left = end_ - next_;
  if (skipped > left || size > left - skipped) return nullptr;
  const uintptr_t start = next_ + skipped;
  next_ = start + size;
  return reinterpret_cast<void*>(start);
}

void Arena::release(void* pointer, size_t size) noexcept {
  const auto start = reinterpret_cast<uintptr_t>(pointer);
  if (start + size == next_) next_ = start;
}

Allocator Arena::allocator() noexcept {
  return {
      this,
      [](void* context, size_t size, size_t alignment) {
        return static_cast<Arena*>(context)->allocate(size, alignment);
      },
      [](void* context, void* pointer, size_t size, size_t) { static_cast<Arena*>(context)->release(pointer, size); }};
}

}  // namespace onceover
