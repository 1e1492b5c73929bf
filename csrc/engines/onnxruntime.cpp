#include "engines/onnxruntime.h"

#include <dlfcn.h>

#include "base/error.h"
#include "engines/onnxruntime_calls.h"

namespace onceover {
namespace {

template <typename T>
using Handle = std::unique_ptr<T, void (*)(T*)>;

// Runs `create`, which fills a pointer and returns a status, and owns the result.
template <typename T, typename Create>
Handle<T> own(void (*release)(T*), Create&& create) {
  T* pointer = nullptr;
  create(&pointer);
  return Handle<T>(pointer, release);
}

constexpr size_t kMaxRank = 8;  // we bind 3 and 4

std::string shape_text(const int64_t* shape, size_t rank) {
  std::string text = "(";
  for (size_t i = 0; i < rank; ++i) {
    if (i > 0) text += ", ";
    text += shape[i] < 0 ? "?" : std::to_string(shape[i]);
  }
  return text + ")";
}

// A dimension below 0 is dynamic and takes what it is given.
bool admits(const int64_t* declared, size_t rank, const std::vector<int64_t>& actual) {
  if (rank != actual.size()) return false;
  for (size_t i = 0; i < rank; ++i) {
    if (declared[i] >= 0 && declared[i] != actual[i]) return false;
  }
  return true;
}

size_t float_bytes(const std::vector<int64_t>& shape) {
  size_t bytes = sizeof(float);
  for (const int64_t dimension : shape) bytes *= static_cast<size_t>(dimension);
  return bytes;
}

const ort::ApiBase& load_library(const std::string& path) {
  if (path.empty()) {
    fail(Status::kEngine, "engine onnxruntime: no library path given; pass the path of libonnxruntime.so");
  }
  // NODELETE: the library keeps thread-local state and does not survive being unmapped and mapped again.
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (library == nullptr) {
    const char* reason = dlerror();
    fail(Status::kEngine, "engine onnxruntime: cannot load %s (%s); install it with: pip install onnxruntime",
         path.c_str(), reason != nullptr ? reason : "no reason given");
  }
  const auto get_base = reinterpret_cast<const ort::ApiBase* (*)()>(dlsym(library, "OrtGetApiBase"));
  const ort::ApiBase* base = get_base != nullptr ? get_base() : nullptr;
  dlclose(library);  // only the reference; the code stays
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

class OnnxRuntime final : public Engine {
 public:
  OnnxRuntime(const EngineOptions& options, GraphView graph, const GraphShapes& shapes)
      : path_(options.library_path),
        shapes_(shapes),
        base_(load_library(path_)),
        calls_(load_calls(base_, path_)),
        env_(own<ort::Env>(
            calls_.ReleaseEnv,
            [&](ort::Env** out) { check(calls_.CreateEnv(ort::kLogFatal, "onceover", out), "start the engine"); })),
        session_(compile(graph, options.threads)),
        memory_info_(own<ort::MemoryInfo>(
            calls_.ReleaseMemoryInfo,
            [&](ort::MemoryInfo** out) {
              check(calls_.CreateCpuMemoryInfo(ort::kDeviceAllocator, ort::kMemoryDefault, out), "describe CPU memory");
            })),
        input_(nullptr, calls_.ReleaseValue),
        output_(nullptr, calls_.ReleaseValue) {
    check_single("input", calls_.SessionGetInputCount);
    check_single("output", calls_.SessionGetOutputCount);
    check_declared("input", calls_.SessionGetInputTypeInfo, shapes.input);
    check_declared("output", calls_.SessionGetOutputTypeInfo, shapes.output);
    input_name_ = name(calls_.SessionGetInputName);
    output_name_ = name(calls_.SessionGetOutputName);
  }

  void bind(float* input, float* output) override {
    input_ = view(input, shapes_.input);
    output_ = view(output, shapes_.output);
  }

  void run() override {
    if (input_ == nullptr) fail(Status::kEngine, "engine onnxruntime: no buffers are bound; call bind before run");
    const char* const input_names[] = {input_name_.c_str()};
    const char* const output_names[] = {output_name_.c_str()};
    const ort::Value* const inputs[] = {input_.get()};
    ort::Value* outputs[] = {output_.get()};
    check(calls_.Run(session_.get(), nullptr, input_names, inputs, 1, output_names, 1, outputs), "run the graph");
  }

  std::string version() const override { return std::string("onnxruntime ") + base_.GetVersionString(); }

 private:
  void check(ort::Status* status, const char* deed) const {
    if (status == nullptr) return;
    const Handle<ort::Status> owned(status, calls_.ReleaseStatus);
    fail(Status::kEngine, "engine onnxruntime (%s): cannot %s: %s", path_.c_str(), deed,
         calls_.GetErrorMessage(owned.get()));
  }

  Handle<ort::Session> compile(GraphView graph, uint32_t threads) const {
    if (graph.data == nullptr || graph.size == 0) {
      fail(Status::kEngine, "engine onnxruntime: the graph is empty; export it again");
    }
    const auto options = own<ort::SessionOptions>(calls_.ReleaseSessionOptions, [&](ort::SessionOptions** out) {
      check(calls_.CreateSessionOptions(out), "create options");
    });
    ort::SessionOptions* o = options.get();
    check(calls_.SetIntraOpNumThreads(o, static_cast<int>(threads)), "set threads");
    check(calls_.SetInterOpNumThreads(o, 1), "set threads");
    check(calls_.SetSessionGraphOptimizationLevel(o, ort::kOptimizeAll), "set the optimization level");
    check(calls_.SetDeterministicCompute(o, true), "ask for deterministic results");
    // Threads sleep between frames: a device has other work.
    check(calls_.AddSessionConfigEntry(o, "session.intra_op.allow_spinning", "0"), "set threads");
    // A graph in memory is complete in itself; one that points to files would otherwise read the working directory.
    check(calls_.AddSessionConfigEntry(o, "session.model_external_initializers_file_folder_path", "/dev/null"),
          "refuse external data");
    return own<ort::Session>(calls_.ReleaseSession, [&](ort::Session** out) {
      check(calls_.CreateSessionFromArray(env_.get(), graph.data, graph.size, o, out),
            "load the graph; it is damaged, has external data, or needs a newer engine");
    });
  }

  Handle<ort::Value> view(float* data, const std::vector<int64_t>& shape) const {
    return own<ort::Value>(calls_.ReleaseValue, [&](ort::Value** out) {
      check(calls_.CreateTensorWithDataAsOrtValue(memory_info_.get(), data, float_bytes(shape), shape.data(),
                                                  shape.size(), ort::kElementFloat32, out),
            "bind a buffer");
    });
  }

  void check_single(const char* what, ort::Status* (*count)(const ort::Session*, size_t*)) const {
    size_t n = 0;
    check(count(session_.get(), &n), "count inputs and outputs");
    if (n != 1) fail(Status::kEngine, "engine onnxruntime: the graph must have exactly one %s, it has %zu", what, n);
  }

  using DescribeCall = ort::Status* (*)(const ort::Session*, size_t, ort::TypeInfo**);
  void check_declared(const char* what, DescribeCall describe, const std::vector<int64_t>& expected) const {
    const auto type = own<ort::TypeInfo>(calls_.ReleaseTypeInfo, [&](ort::TypeInfo** out) {
      check(describe(session_.get(), 0, out), "read the graph's types");
    });
    const ort::TensorInfo* tensor = nullptr;  // owned by `type`
    check(calls_.CastTypeInfoToTensorInfo(type.get(), &tensor), "read the graph's types");
    if (tensor == nullptr) fail(Status::kEngine, "engine onnxruntime: the graph's %s is not a tensor", what);
    check_tensor(what, tensor, expected);
  }

  void check_tensor(const char* what, const ort::TensorInfo* tensor, const std::vector<int64_t>& expected) const {
    int element = 0;
    check(calls_.GetTensorElementType(tensor, &element), "read the element type");
    if (element != ort::kElementFloat32) {
      fail(Status::kEngine, "engine onnxruntime: the graph's %s must be float32 (ONNX type 1), it has ONNX type %d",
           what, element);
    }
    size_t rank = 0;
    check(calls_.GetDimensionsCount(tensor, &rank), "read the shape");
    if (rank > kMaxRank) fail(Status::kEngine, "engine onnxruntime: the graph's %s has %zu dimensions", what, rank);
    int64_t shape[kMaxRank];
    check(calls_.GetDimensions(tensor, shape, rank), "read the shape");
    if (!admits(shape, rank, expected)) {
      fail(Status::kEngine,
           "engine onnxruntime: the graph's %s has shape %s, expected %s; it is not the graph this "
           "configuration was made for",
           what, shape_text(shape, rank).c_str(), shape_text(expected.data(), expected.size()).c_str());
    }
  }

  using NameCall = ort::Status* (*)(const ort::Session*, size_t, ort::Allocator*, char**);
  std::string name(NameCall read) const {
    ort::Allocator* allocator = nullptr;  // the engine's default one, not ours to release
    check(calls_.GetAllocatorWithDefaultOptions(&allocator), "get its allocator");
    char* text = nullptr;
    check(read(session_.get(), 0, allocator, &text), "read a name");
    const auto free_name = [&](char* owned) { calls_.ReleaseStatus(calls_.AllocatorFree(allocator, owned)); };
    const std::unique_ptr<char, decltype(free_name)> owned(text, free_name);
    return text;
  }

  // Destroyed in reverse: values, then session, then environment.
  std::string path_;
  GraphShapes shapes_;
  const ort::ApiBase& base_;
  ort::Calls calls_;
  Handle<ort::Env> env_;
  Handle<ort::Session> session_;
  Handle<ort::MemoryInfo> memory_info_;
  Handle<ort::Value> input_, output_;
  std::string input_name_, output_name_;
};

}  // namespace

std::unique_ptr<Engine> create_onnxruntime(const EngineOptions& options, GraphView graph, const GraphShapes& shapes) {
  return std::make_unique<OnnxRuntime>(options, graph, shapes);
}

}  // namespace onceover
