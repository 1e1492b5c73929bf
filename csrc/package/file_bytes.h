// Where the bytes of a package lie: a file mapped or copied, or memory that somebody else owns. What they mean is for
// reader.h.
#pragma once

#include <sys/stat.h>

#include <cstddef>
#include <cstdint>
#include <string>

namespace onceover {

// Bytes that start at a multiple of 64, freed or unmapped with this object.
class FileBytes {
 public:
  FileBytes() = default;
  ~FileBytes();
  FileBytes(FileBytes&& other) noexcept;
  FileBytes& operator=(FileBytes&& other) noexcept;

  // Borrows `size` bytes, which must outlive this; copies them when they do not start at a multiple of 64.
  static FileBytes of_memory(const uint8_t* data, size_t size, const std::string& label);

  const uint8_t* data() const noexcept { return data_; }
  size_t size() const noexcept { return size_; }

 private:
  friend class OpenFile;
  enum class Owner { kNobody, kMapping, kHeap };
  FileBytes(const uint8_t* data, size_t size, Owner owner) : data_(data), size_(size), owner_(owner) {}
  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
  Owner owner_ = Owner::kNobody;
};

// A regular file that is being read. Every function throws Error(kInput) for what cannot be read, with path and reason.
class OpenFile {
 public:
  explicit OpenFile(const std::string& path);
  ~OpenFile();
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;

  // The whole file, read-only. A file that is cut while it is mapped ends the process (SIGBUS).
  FileBytes map() const;
  // The whole file in memory of our own, which no later change of the file reaches.
  FileBytes copy() const;
  // Throws when size or modification time are not what they were at first: its bytes may be of two moments.
  void check_unchanged() const;

 private:
  struct stat status() const;
  [[noreturn]] void fail_changed() const;
  std::string path_;
  int file_ = -1;
  size_t size_ = 0;
  struct timespec modified_{};
};

}  // namespace onceover
