// The only package writer: members in, one flat file out, complete or not at all.
#pragma once

#include <string>
#include <vector>

#include "package/layout.h"

namespace onceover {

class PackageWriter {
 public:
  // Copies nothing: `data` must live until bytes() or save(). Throws Error(kUsage) for a bad or duplicate name, or
  // a size that disagrees with type and dimensions. An empty dimensions list means one dimension, size_bytes.
  void add(const std::string& name, const void* data, size_t size_bytes, DataType type,
           const std::vector<uint64_t>& dimensions, bool required);

  // The whole package in memory. Same members in the same order, same bytes.
  std::vector<uint8_t> bytes() const;

  // bytes() to `path`: temporary file in the same folder, fsync, rename, fsync of the folder. On failure throws
  // Error(kOutput) naming path and reason, and leaves no temporary file and the old `path` untouched.
  void save(const std::string& path) const;

 private:
  struct Member {
    std::string name;
    const uint8_t* data;
    size_t size_bytes;
    DataType type;
    std::vector<uint64_t> dimensions;
    bool required;
  };
  std::vector<Member> members_;
};

// The same atomic write for any bytes (exported graphs, reports).
void save_atomically(const std::string& path, const uint8_t* data, size_t size);

}  // namespace onceover
