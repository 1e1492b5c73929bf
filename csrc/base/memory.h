// Memory of a session's buffers: each Buffer takes its bytes from one allocator, in multiples of kAlignment, counted
// and held to the session's limit. Not counted: what the engine allocates, the mapped package, and small parts such as
// names and shapes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <type_traits>
#include <utility>

namespace onceover {

inline constexpr size_t kAlignment = 64;  // one cache line, one AVX-512 register

// Where a session's buffers come from. `allocate` returns null when it has none; both may be called only
// while a session is created or destroyed, never in run.
struct Allocator {
  void* context = nullptr;
  void* (*allocate)(void* context, size_t size, size_t alignment) = nullptr;
  void (*release)(void* context, void* pointer, size_t size, size_t alignment) = nullptr;
};

// The process heap (aligned operator new).
Allocator heap_allocator() noexcept;

// Reads one byte of each page, so that none of them is missing later.
void touch_pages(const uint8_t* bytes, size_t size) noexcept;

// Counts what one session holds. Not thread-safe: a session belongs to one thread at a time.
class Memory {
 public:
  // limit_bytes 0 means no limit.
  explicit Memory(Allocator allocator = heap_allocator(), size_t limit_bytes = 0) noexcept
      : allocator_(allocator), limit_(limit_bytes) {}
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  // Throws Error(kMemory) naming `purpose`, what was asked, held and allowed.
  void* allocate(size_t size, const char* purpose);
  void release(void* pointer, size_t size) noexcept;

  size_t used_bytes() const noexcept { return used_; }
  size_t peak_bytes() const noexcept { return peak_; }  // the most that was used at any moment

 private:
  Allocator allocator_;
  size_t limit_;
  size_t used_ = 0, peak_ = 0;
};

// A fixed array of trivial elements, 64-byte aligned, zeroed, owned.
template <typename T>
class Buffer {
  static_assert(std::is_trivially_copyable_v<T> && std::is_trivially_destructible_v<T>);

 public:
  Buffer() noexcept = default;
  Buffer(Memory& memory, size_t count, const char* purpose);
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    swap(other);
    return *this;
  }
  ~Buffer() {
    if (data_ != nullptr) memory_->release(data_, count_ * sizeof(T));
  }

  T* data() noexcept { return data_; }
  const T* data() const noexcept { return data_; }
  size_t size() const noexcept { return count_; }
  T& operator[](size_t i) noexcept { return data_[i]; }
  const T& operator[](size_t i) const noexcept { return data_[i]; }
  T* begin() noexcept { return data_; }
  T* end() noexcept { return data_ + count_; }

 private:
  void swap(Buffer& other) noexcept {
    std::swap(memory_, other.memory_);
    std::swap(data_, other.data_);
    std::swap(count_, other.count_);
  }
  Memory* memory_ = nullptr;
  T* data_ = nullptr;
  size_t count_ = 0;
};

[[noreturn]] void fail_allocation_overflow(size_t count, size_t element_size, const char* purpose);

template <typename T>
Buffer<T>::Buffer(Memory& memory, size_t count, const char* purpose) : memory_(&memory), count_(count) {
  if (count > SIZE_MAX / sizeof(T)) fail_allocation_overflow(count, sizeof(T), purpose);
  if (count == 0) return;
  data_ = static_cast<T*>(memory.allocate(count * sizeof(T), purpose));
  for (size_t i = 0; i < count; ++i) new (data_ + i) T{};
}

}  // namespace onceover
