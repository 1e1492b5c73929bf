#include "engines/onnxruntime_library.h"

#include "base/error.h"

namespace onceover {
namespace {

constexpr LibraryNames kNames{"onnxruntime", "libonnxruntime.so", "onnxruntime"};

const ort::ApiBase& load_base(const std::string& path) {
  void* library = open_library(kNames, path);
  const auto get_base = reinterpret_cast<const ort::ApiBase* (*)()>(find_symbol(library, "OrtGetApiBase"));
  const ort::ApiBase* base = get_base != nullptr ? get_base() : nullptr;
  if (base == nullptr) {
    fail(Status::kEngine,
         "engine onnxruntime: %s is not ONNX Runtime (it has no OrtGetApiBase); pass the path of libonnxruntime.so",
         path.c_str());
  }
  return *base;
}

ort::Calls load_calls(const ort::ApiBase& base, const std::string& path) {
  // The version is read first because GetApi prints when it refuses.
  const char* version = base.GetVersionString();
  const void* table = ort::is_recent(version) ? base.GetApi(ort::kApiVersion) : nullptr;
  if (table == nullptr) {
    fail(Status::kEngine, "engine onnxruntime: %s is version %s, 1.%u or newer is needed; pip install -U onnxruntime",
         path.c_str(), version != nullptr ? version : "unknown", ort::kMinimumMinor);
  }
  return ort::Calls(table);
}

}  // namespace

OnnxRuntimeLibrary::OnnxRuntimeLibrary(const std::string& path)
    : path_(path), base_(load_base(path_)), calls_(load_calls(base_, path_)) {}

std::vector<std::string> OnnxRuntimeLibrary::providers() const {
  char** names = nullptr;
  int count = 0;
  check(calls_.GetAvailableProviders(&names, &count), "list its execution providers");
  std::vector<std::string> providers(names, names + count);
  calls_.ReleaseStatus(calls_.ReleaseAvailableProviders(names, count));
  for (std::string& name : providers) name = name.substr(0, name.find("ExecutionProvider"));
  return providers;
}

void OnnxRuntimeLibrary::check(ort::Status* status, const char* deed) const {
  if (status == nullptr) return;
  const Handle<ort::Status> owned(status, calls_.ReleaseStatus);
  const std::string reason = calls_.GetErrorMessage(owned.get());  // some end in a newline
  fail(Status::kEngine, "engine onnxruntime (%s): cannot %s: %s", path_.c_str(), deed,
       reason.substr(0, reason.find_last_not_of("\n ") + 1).c_str());
}

}  // namespace onceover
