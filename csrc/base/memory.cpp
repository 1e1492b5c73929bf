#include "base/memory.h"

#include <algorithm>

#include "base/error.h"

namespace onceover {
namespace {

void* heap_allocate(void*, size_t size, size_t alignment) {
  return ::operator new(size, std::align_val_t(alignment), std::nothrow);
}

void heap_release(void*, void* pointer, size_t, size_t alignment) {
  ::operator delete(pointer, std::align_val_t(alignment));
}

constexpr size_t kLargest = SIZE_MAX - kAlignment;

size_t whole_lines(size_t size) noexcept { return (size + kAlignment - 1) / kAlignment * kAlignment; }

}  // namespace

Allocator heap_allocator() noexcept { return {nullptr, heap_allocate, heap_release}; }

void touch_pages(const uint8_t* bytes, size_t size) noexcept {
  constexpr size_t kPage = 4096;  // the smallest page of any machine this runs on
  const volatile uint8_t* read = bytes;
  for (size_t at = 0; at < size; at += kPage) (void)read[at];
  if (size > 0) (void)read[size - 1];
}

void* Memory::allocate(size_t asked, const char* purpose) {
  const size_t size = whole_lines(std::min(asked, kLargest));
  if (limit_ != 0 && (size > limit_ || used_ > limit_ - size)) {
    fail(Status::kMemory,
         "memory limit: the %s needs %zu bytes, %zu of %zu allowed are in use; raise the limit or use a smaller "
         "memory bank or input size",
         purpose, size, used_, limit_);
  }
  void* pointer = allocator_.allocate(allocator_.context, size, kAlignment);
  if (pointer == nullptr) {
    fail(Status::kMemory, "out of memory: the %s needs %zu bytes and the allocator has none", purpose, size);
  }
  if (reinterpret_cast<uintptr_t>(pointer) % kAlignment != 0) {
    allocator_.release(allocator_.context, pointer, size, kAlignment);
    fail(Status::kUsage, "the allocator gave address %p, expected a multiple of %zu", pointer, kAlignment);
  }
  used_ += size;
  peak_ = std::max(peak_, used_);
  return pointer;
}

void Memory::release(void* pointer, size_t asked) noexcept {
  const size_t size = whole_lines(asked);
  allocator_.release(allocator_.context, pointer, size, kAlignment);
  used_ -= size;
}

void fail_allocation_overflow(size_t count, size_t element_size, const char* purpose) {
  fail(Status::kMemory, "the %s would need %zu elements of %zu bytes, more than this machine can address", purpose,
       count, element_size);
}

}  // namespace onceover
