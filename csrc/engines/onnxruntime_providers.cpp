#include "engines/onnxruntime_providers.h"

#include <algorithm>
#include <cctype>

#include "base/error.h"

namespace onceover {
namespace {

constexpr char kEnding[] = "ExecutionProvider";  // the long form of every name
constexpr char kSession[] = "session.";

struct Provider {
  std::string name;  // as the library spells it
  std::vector<std::pair<std::string, std::string>> options;
};

bool same_name(const std::string& a, const std::string& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](unsigned char x, unsigned char y) { return std::tolower(x) == std::tolower(y); });
}

// "TensorRT, CUDAExecutionProvider,CPU" → TensorRT, CUDA, CPU
std::vector<std::string> split(const std::string& device) {
  std::vector<std::string> names(1);
  for (const char c : device) {
    if (c == ',') {
      names.emplace_back();
    } else if (c != ' ') {
      names.back() += c;
    }
  }
  for (std::string& name : names) name = name.substr(0, name.find(kEnding));
  return names;
}

// Best first, without the CPU, which is always there and takes what is left.
std::vector<Provider> find_providers(const OnnxRuntimeLibrary& library, const std::string& device) {
  std::vector<Provider> chosen;
  if (device.empty()) return chosen;
  const std::vector<std::string> available = library.providers();
  const std::vector<std::string> asked = split(device);
  for (const std::string& name : asked) {
    if (same_name(name, "CPU")) {
      if (&name == &asked.back()) break;
      fail(Status::kUsage, "engine onnxruntime: device '%s': CPU takes all that is left, so it can only be last",
           device.c_str());
    }
    const auto found = std::find_if(available.begin(), available.end(),
                                    [&](const std::string& known) { return same_name(known, name); });
    if (found == available.end()) {
      fail(
          Status::kEngine,
          "engine onnxruntime: execution provider '%s' is not in this build (%s, %s), which has: %s. Install a build "
          "that has it (CUDA, TensorRT: pip install onnxruntime-gpu; Jetson: NVIDIA's own), or give its library's path",
          name.c_str(), library.version().c_str(), library.path().c_str(), joined(available).c_str());
    }
    chosen.push_back({*found, {}});
  }
  return chosen;
}

// The provider that an option is for, and the option's own key: "CUDA.key" for that one, any other for the first.
Provider& receiver(std::vector<Provider>& providers, std::string& key) {
  const size_t dot = key.find('.');
  for (Provider& provider : providers) {
    if (dot == std::string::npos || !same_name(provider.name, key.substr(0, dot))) continue;
    key = key.substr(dot + 1);
    return provider;
  }
  if (!providers.empty()) return providers.front();
  fail(Status::kUsage,
       "engine onnxruntime: nobody takes the option '%s': on the CPU only options of the session can be given "
       "(session.…); name the provider it is for as device",
       key.c_str());
}

void add_cache(std::vector<Provider>& providers, const std::string& folder) {
  bool kept = false;
  for (Provider& provider : providers) {
    auto& options = provider.options;
    if (provider.name == "Tensorrt") {
      options.insert(options.begin(), {{"trt_engine_cache_enable", "1"}, {"trt_engine_cache_path", folder}});
      kept = true;
    } else if (provider.name == "OpenVINO") {
      options.insert(options.begin(), {"cache_dir", folder});
      kept = true;
    }
  }
  if (!kept) {
    fail(Status::kUsage,
         "engine onnxruntime: only its providers TensorRT and OpenVINO keep compiled graphs; leave the cache folder %s "
         "out, or name one of them as device",
         folder.c_str());
  }
}

struct OptionLists {
  std::vector<const char*> keys, values;
  explicit OptionLists(const Provider& provider) {
    for (const auto& [key, value] : provider.options) {
      keys.push_back(key.c_str());
      values.push_back(value.c_str());
    }
  }
};

// The library often keeps the reason to itself.
std::string starting(const Provider& provider) {
  return "start execution provider " + provider.name + "; its options, its driver or libraries it needs are at fault";
}

// CUDA and TensorRT have a record of their own, which is made, filled, taken and freed.
template <typename T>
void append_by_record(const OnnxRuntimeLibrary& library, const Provider& provider, ort::SessionOptions* session,
                      ort::Status* (*create)(T**), void (*release)(T*),
                      ort::Status* (*update)(T*, const char* const*, const char* const*, size_t),
                      ort::Status* (*append)(ort::SessionOptions*, const T*)) {
  const OptionLists lists(provider);
  const auto record = own<T>(release, [&](T** out) { library.check(create(out), starting(provider).c_str()); });
  library.check(update(record.get(), lists.keys.data(), lists.values.data(), lists.keys.size()),
                starting(provider).c_str());
  library.check(append(session, record.get()), starting(provider).c_str());
}

void append(const OnnxRuntimeLibrary& library, const Provider& provider, ort::SessionOptions* session) {
  if (provider.name == "CUDA") {
    append_by_record<ort::CudaOptions>(library, provider, session, library->CreateCUDAProviderOptions,
                                       library->ReleaseCUDAProviderOptions, library->UpdateCUDAProviderOptions,
                                       library->SessionOptionsAppendExecutionProvider_CUDA_V2);
    return;
  }
  if (provider.name == "Tensorrt") {
    append_by_record<ort::TensorRtOptions>(
        library, provider, session, library->CreateTensorRTProviderOptions, library->ReleaseTensorRTProviderOptions,
        library->UpdateTensorRTProviderOptions, library->SessionOptionsAppendExecutionProvider_TensorRT_V2);
    return;
  }
  // The call for all others spells some names in its own way (releases before 1.23 know no other).
  constexpr const char* kSpellings[] = {"XNNPACK", "AZURE", "WebGPU", "JS", "DML"};
  std::string name = provider.name;
  for (const char* spelling : kSpellings) name = same_name(name, spelling) ? spelling : name;
  const OptionLists lists(provider);
  library.check(library->SessionOptionsAppendExecutionProvider(session, name.c_str(), lists.keys.data(),
                                                               lists.values.data(), lists.keys.size()),
                starting(provider).c_str());
}

}  // namespace

void apply_device(const OnnxRuntimeLibrary& library, const EngineOptions& options, ort::SessionOptions* session) {
  std::vector<Provider> providers = find_providers(library, options.device);
  for (const auto& [key, value] : options.options) {
    if (key.rfind(kSession, 0) == 0) {
      library.check(library->AddSessionConfigEntry(session, key.c_str(), value.c_str()),
                    "set an option of the session");
      continue;
    }
    std::string own_key = key;
    Provider& provider = receiver(providers, own_key);
    provider.options.emplace_back(own_key, value);
  }
  if (!options.cache_dir.empty()) add_cache(providers, options.cache_dir);
  for (const Provider& provider : providers) append(library, provider, session);
}

}  // namespace onceover
