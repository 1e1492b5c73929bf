// The only package writer: members in, one flat file out, complete or not at all.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "package/layout.h"

namespace onceover {

class PackageWriter {
 public:
  // Copies nothing: `data` must live until bytes() or save(). Throws Error(kUsage) for a bad or duplicate name, a
  // required member that no reader knows (layout.h), no bytes, or a size that disagrees with type and dimensions. An
  // empty dimensions list means one dimension of size_bytes elements of one byte.
  void add(const std::string& name, const void* data, size_t size_bytes, DataType type,
           const std::vector<uint64_t>& dimensions, bool required);

  // The whole package in memory. Same members in the same order, same bytes.
  std::vector<uint8_t> bytes() const;

  // bytes() to `path`: temporary file ".<name>.<pid>.<n>.tmp" in the same folder, fsync, rename, fsync of the folder.
  // On failure throws Error(kOutput) naming path and reason, and leaves no temporary file and the old `path`
  // untouched. A process killed on the way leaves the old `path` untouched, too, and perhaps the temporary file; the
  // next save to `path` removes it. A symbolic link at `path` is replaced, not followed.
  // The new file keeps the mode of the one it replaces. `check`, where there is one, gets the name of the temporary
  // file when it is on the disk; what it throws is a failure.
  void save(const std::string& path, const std::function<void(const std::string&)>& check = {}) const;

 private:
  struct Member {
    std::string name;
    const uint8_t* data;
    size_t size_bytes;
    DataType type;
    std::vector<uint64_t> dimensions;
    bool required;
  };
  std::vector<uint8_t> directory() const;
  std::vector<Member> members_;
};

// The same atomic write for any bytes (exported graphs, reports).
void save_atomically(const std::string& path, const uint8_t* data, size_t size);

}  // namespace onceover
