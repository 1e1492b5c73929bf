#include "engines/openvino_library.h"

#include "base/error.h"

namespace onceover {
namespace {

constexpr LibraryNames kNames{"openvino", "libopenvino_c.so", "openvino"};

// Its messages are several lines, most of which name its own source files.
std::string one_line(const char* message) {
  std::string text, line;
  for (const char* c = message;; ++c) {
    if (*c != '\n' && *c != '\0') {
      line += *c;
      continue;
    }
    if (!line.empty() && line.rfind("Exception from", 0) != 0) text += (text.empty() ? "" : "; ") + line;
    line.clear();
    if (*c == '\0') break;
  }
  return text.substr(0, text.find_last_not_of(". ") + 1);  // ours goes on after it
}

}  // namespace

OpenVinoLibrary::OpenVinoLibrary(const std::string& path) : path_(path) {
  void* library = open_library(kNames, path);
  const char* missing = calls_.resolve([&](const char* symbol) { return find_symbol(library, symbol); });
  if (missing != nullptr) {
    fail(Status::kEngine,
         "engine openvino: %s is not OpenVINO's C API, or is older than 2024.6 (it has no %s); pass the path of "
         "libopenvino_c.so, or pip install -U openvino",
         path.c_str(), missing);
  }
  ov::Version version{};
  check(calls_.get_openvino_version(&version), "tell its version");
  const std::string build = version.build != nullptr ? version.build : "unknown";
  version_ = "openvino " + build.substr(0, build.find('-'));
  calls_.version_free(&version);
}

ov::ElementType OpenVinoLibrary::float32() const {
  int64_t one = 1;
  for (const ov::ElementType candidate : ov::kFloat32Candidates) {
    size_t bytes = 0;
    const auto tensor = own<ov::Tensor>(calls_.tensor_free, [&](ov::Tensor** out) {
      check(calls_.tensor_create(candidate, {1, &one}, out), "make a tensor");
    });
    check(calls_.tensor_get_byte_size(tensor.get(), &bytes), "measure a tensor");
    if (bytes == sizeof(float)) return candidate;
  }
  fail(Status::kEngine, "engine openvino: %s is %s, whose element types are not known; pip install -U openvino",
       path_.c_str(), version_.c_str());
}

Handle<ov::Core> OpenVinoLibrary::create_core() const {
  return own<ov::Core>(calls_.core_free, [&](ov::Core** out) { check(calls_.core_create(out), "start the engine"); });
}

std::vector<std::string> OpenVinoLibrary::devices(const ov::Core* core) const {
  ov::DeviceList list{};
  check(calls_.core_get_available_devices(core, &list), "list the devices");
  const std::vector<std::string> names(list.names, list.names + list.count);
  calls_.available_devices_free(&list);
  return names;
}

Handle<ov::Tensor> OpenVinoLibrary::view(ov::ElementType type, void* data, std::vector<int64_t> shape) const {
  return own<ov::Tensor>(calls_.tensor_free, [&](ov::Tensor** out) {
    const ov::Shape described{static_cast<int64_t>(shape.size()), shape.data()};
    check(calls_.tensor_create_from_host_ptr(type, described, data, out), "bind a buffer");
  });
}

void OpenVinoLibrary::check(ov::Status status, const char* deed) const {
  if (status == 0) return;
  // The message is the library's last, of whichever thread: two that fail at once may swap theirs.
  const char* message = calls_.get_last_err_msg();  // a copy, ours to free
  const std::string reason = one_line(message != nullptr ? message : "");
  if (message != nullptr) calls_.free(message);
  fail(Status::kEngine, "engine openvino (%s): cannot %s: %s", path_.c_str(), deed,
       reason.empty() ? ("status " + std::to_string(status)).c_str() : reason.c_str());
}

}  // namespace onceover
