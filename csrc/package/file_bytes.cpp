#include "package/file_bytes.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <new>
#include <utility>

#include "base/error.h"
#include "base/interrupted.h"
#include "package/layout.h"

namespace onceover {
namespace {

uint8_t* new_bytes(size_t size, const std::string& label) {
  void* bytes = ::operator new(size, std::align_val_t(kMemberAlignment), std::nothrow);
  if (bytes == nullptr) fail(Status::kMemory, "%s: no memory for a copy of %zu bytes", label.c_str(), size);
  return static_cast<uint8_t*>(bytes);
}

struct timespec modification_time(const struct stat& status) {
#if defined(__APPLE__)
  return status.st_mtimespec;
#else
  return status.st_mtim;
#endif
}

}  // namespace

FileBytes::~FileBytes() {
  if (owner_ == Owner::kMapping) ::munmap(const_cast<uint8_t*>(data_), size_);
  if (owner_ == Owner::kHeap) ::operator delete(const_cast<uint8_t*>(data_), std::align_val_t(kMemberAlignment));
}

FileBytes::FileBytes(FileBytes&& other) noexcept { *this = std::move(other); }

FileBytes& FileBytes::operator=(FileBytes&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(owner_, other.owner_);
  return *this;
}

FileBytes FileBytes::of_memory(const uint8_t* data, size_t size, const std::string& label) {
  if (data == nullptr || size == 0) fail(Status::kPackage, "%s: the package is empty", label.c_str());
  if (reinterpret_cast<uintptr_t>(data) % kMemberAlignment == 0) return {data, size, Owner::kNobody};
  uint8_t* copied = new_bytes(size, label);
  std::memcpy(copied, data, size);
  return {copied, size, Owner::kHeap};
}

OpenFile::OpenFile(const std::string& path) : path_(path) {
  // O_NONBLOCK: a pipe given by mistake must be refused, not waited for.
  file_ = retry_interrupted([&] { return ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK); });
  if (file_ < 0) {
    const int reason = errno;
    fail(Status::kInput, "%s: cannot open the package: %s; check the path%s", path.c_str(), std::strerror(reason),
         reason == EACCES ? " and its permissions" : "");
  }
  try {
    const struct stat first = status();
    if (!S_ISREG(first.st_mode)) {
      fail(Status::kInput, "%s: is %s, expected a package file", path.c_str(),
           S_ISDIR(first.st_mode) ? "a folder" : "not a regular file");
    }
    if (first.st_size == 0) {
      fail(Status::kPackage, "%s: the file is empty; it was never written completely, copy it again", path.c_str());
    }
    if (static_cast<uint64_t>(first.st_size) > SIZE_MAX) {
      fail(Status::kInput, "%s: %lld bytes are more than this machine can address", path.c_str(),
           static_cast<long long>(first.st_size));
    }
    size_ = static_cast<size_t>(first.st_size);
    modified_ = modification_time(first);
  } catch (...) {
    ::close(file_);
    throw;
  }
}

OpenFile::~OpenFile() { ::close(file_); }

struct stat OpenFile::status() const {
  struct stat now{};
  if (::fstat(file_, &now) != 0) {
    fail(Status::kInput, "%s: cannot read the package: %s", path_.c_str(), std::strerror(errno));
  }
  return now;
}

FileBytes OpenFile::map() const {
  void* bytes = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file_, 0);
  if (bytes == MAP_FAILED) {
    fail(Status::kInput, "%s: cannot map %zu bytes: %s", path_.c_str(), size_, std::strerror(errno));
  }
  return {static_cast<const uint8_t*>(bytes), size_, FileBytes::Owner::kMapping};
}

FileBytes OpenFile::copy() const {
  uint8_t* bytes = new_bytes(size_, path_);
  FileBytes owned(bytes, size_, FileBytes::Owner::kHeap);
  for (size_t done = 0; done < size_;) {
    const ssize_t got =
        retry_interrupted([&] { return ::pread(file_, bytes + done, size_ - done, static_cast<off_t>(done)); });
    if (got < 0) fail(Status::kInput, "%s: cannot read the package: %s", path_.c_str(), std::strerror(errno));
    if (got == 0) fail_changed();
    done += static_cast<size_t>(got);
  }
  return owned;
}

void OpenFile::check_unchanged() const {
  const struct stat now = status();
  const struct timespec time = modification_time(now);
  const bool same_time = time.tv_sec == modified_.tv_sec && time.tv_nsec == modified_.tv_nsec;
  if (static_cast<uint64_t>(now.st_size) != size_ || !same_time) fail_changed();
}

void OpenFile::fail_changed() const {
  fail(Status::kInput,
       "%s: the file changed while it was being opened; write a package under another name and rename it, then open it "
       "again",
       path_.c_str());
}

}  // namespace onceover
