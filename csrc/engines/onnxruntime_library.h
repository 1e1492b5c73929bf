// One opened ONNX Runtime library: its calls, its version, and its failures as exceptions.
#pragma once

#include <string>
#include <vector>

#include "engines/library.h"
#include "engines/onnxruntime_calls.h"

namespace onceover {

class OnnxRuntimeLibrary {
 public:
  // Throws Error(kEngine) when the file is no library, is another one, or is too old.
  explicit OnnxRuntimeLibrary(const std::string& path);

  const ort::Calls* operator->() const { return &calls_; }
  const std::string& path() const { return path_; }
  std::string version() const { return std::string("onnxruntime ") + base_.GetVersionString(); }
  // That this build has, without the ending "ExecutionProvider": "Tensorrt", "CUDA", "CPU".
  std::vector<std::string> providers() const;

  // Throws Error(kEngine) for a status that is not success; `deed` completes "cannot …".
  void check(ort::Status* status, const char* deed) const;

 private:
  std::string path_;
  const ort::ApiBase& base_;
  ort::Calls calls_;
};

}  // namespace onceover
