// One opened OpenVINO library: its calls, its version, and its failures as exceptions.
#pragma once

#include <string>
#include <vector>

#include "engines/library.h"
#include "engines/openvino_calls.h"

namespace onceover {

class OpenVinoLibrary {
 public:
  // Throws Error(kEngine) when the file is no library, is another one, or is too old.
  explicit OpenVinoLibrary(const std::string& path);

  const ov::Calls* operator->() const { return &calls_; }
  const std::string& version() const { return version_; }  // "openvino 2026.4.1"
  ov::ElementType float32() const;                         // its number in this release
  Handle<ov::Core> create_core() const;
  std::vector<std::string> devices(const ov::Core* core) const;  // of this machine: "CPU", "GPU.0"
  Handle<ov::Tensor> view(ov::ElementType type, void* data, std::vector<int64_t> shape) const;

  // Throws Error(kEngine) for a status that is not success; `deed` completes "cannot …".
  void check(ov::Status status, const char* deed) const;

 private:
  std::string path_, version_;
  ov::Calls calls_;
};

}  // namespace onceover
