// Engine "onnxruntime": the C API of libonnxruntime, opened at run time; nothing is linked and no header is needed.
#include "base/error.h"
#include "engines/engine.h"
#include "engines/onnxruntime_library.h"
#include "engines/onnxruntime_providers.h"

namespace onceover {
namespace {

size_t float_bytes(const std::vector<int64_t>& shape) {
  size_t bytes = sizeof(float);
  for (const int64_t dimension : shape) bytes *= static_cast<size_t>(dimension);
  return bytes;
}

class OnnxRuntime final : public Engine {
 public:
  OnnxRuntime(const EngineOptions& options, GraphView graph, const GraphShapes& shapes)
      : shapes_(shapes),
        library_(options.library_path),
        env_(own<ort::Env>(library_->ReleaseEnv,
                           [&](ort::Env** out) {
                             library_.check(library_->CreateEnv(ort::kLogFatal, "onceover", out), "start the engine");
                           })),
        session_(compile(graph, options)),
        memory_info_(own<ort::MemoryInfo>(library_->ReleaseMemoryInfo,
                                          [&](ort::MemoryInfo** out) {
                                            library_.check(library_->CreateCpuMemoryInfo(ort::kDeviceAllocator,
                                                                                         ort::kMemoryDefault, out),
                                                           "describe CPU memory");
                                          })),
        input_(nullptr, library_->ReleaseValue),
        output_(nullptr, library_->ReleaseValue) {
    check_single("input", library_->SessionGetInputCount);
    check_single("output", library_->SessionGetOutputCount);
    check_declared("input", library_->SessionGetInputTypeInfo, shapes.input);
    check_declared("output", library_->SessionGetOutputTypeInfo, shapes.output);
    input_name_ = name(library_->SessionGetInputName);
    output_name_ = name(library_->SessionGetOutputName);
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
    library_.check(library_->Run(session_.get(), nullptr, input_names, inputs, 1, output_names, 1, outputs),
                   "run the graph");
  }

  std::string version() const override { return library_.version(); }

 private:
  Handle<ort::Session> compile(GraphView graph, const EngineOptions& engine) const {
    if (graph.format != GraphFormat::kOnnx) {
      fail(Status::kEngine, "engine onnxruntime: the graph is an OpenVINO IR, ONNX is needed; run it with openvino");
    }
    const auto options = own<ort::SessionOptions>(library_->ReleaseSessionOptions, [&](ort::SessionOptions** out) {
      library_.check(library_->CreateSessionOptions(out), "create options");
    });
    ort::SessionOptions* o = options.get();
    library_.check(library_->SetIntraOpNumThreads(o, static_cast<int>(engine.threads)), "set threads");
    library_.check(library_->SetInterOpNumThreads(o, 1), "set threads");
    library_.check(library_->SetSessionGraphOptimizationLevel(o, ort::kOptimizeAll), "set the optimization level");
    library_.check(library_->SetDeterministicCompute(o, true), "ask for deterministic results");
    // Threads sleep between frames: a device has other work.
    library_.check(library_->AddSessionConfigEntry(o, "session.intra_op.allow_spinning", "0"), "set threads");
    apply_device(library_, engine, o);
    // Last, so that no option undoes it. A graph in memory is complete in itself; one that points to files would
    // otherwise read the working directory.
    library_.check(
        library_->AddSessionConfigEntry(o, "session.model_external_initializers_file_folder_path", "/dev/null"),
        "refuse external data");
    return own<ort::Session>(library_->ReleaseSession, [&](ort::Session** out) {
      library_.check(library_->CreateSessionFromArray(env_.get(), graph.data, graph.size, o, out),
                     "load the graph; it is damaged, has external data, or needs a newer engine");
    });
  }

  Handle<ort::Value> view(float* data, const std::vector<int64_t>& shape) const {
    return own<ort::Value>(library_->ReleaseValue, [&](ort::Value** out) {
      library_.check(library_->CreateTensorWithDataAsOrtValue(memory_info_.get(), data, float_bytes(shape),
                                                              shape.data(), shape.size(), ort::kElementFloat32, out),
                     "bind a buffer");
    });
  }

  void check_single(const char* what, ort::Status* (*count)(const ort::Session*, size_t*)) const {
    size_t n = 0;
    library_.check(count(session_.get(), &n), "count inputs and outputs");
    if (n != 1) fail(Status::kEngine, "engine onnxruntime: the graph must have exactly one %s, it has %zu", what, n);
  }

  using DescribeCall = ort::Status* (*)(const ort::Session*, size_t, ort::TypeInfo**);
  void check_declared(const char* what, DescribeCall describe, const std::vector<int64_t>& expected) const {
    const auto type = own<ort::TypeInfo>(library_->ReleaseTypeInfo, [&](ort::TypeInfo** out) {
      library_.check(describe(session_.get(), 0, out), "read the graph's types");
    });
    const ort::TensorInfo* tensor = nullptr;  // owned by `type`
    library_.check(library_->CastTypeInfoToTensorInfo(type.get(), &tensor), "read the graph's types");
    if (tensor == nullptr) fail(Status::kEngine, "engine onnxruntime: the graph's %s is not a tensor", what);
    check_tensor(what, tensor, expected);
  }

  void check_tensor(const char* what, const ort::TensorInfo* tensor, const std::vector<int64_t>& expected) const {
    int element = 0;
    library_.check(library_->GetTensorElementType(tensor, &element), "read the element type");
    if (element != ort::kElementFloat32) {
      fail(Status::kEngine, "engine onnxruntime: the graph's %s must be float32 (ONNX type 1), it has ONNX type %d",
           what, element);
    }
    size_t rank = 0;
    library_.check(library_->GetDimensionsCount(tensor, &rank), "read the shape");
    std::vector<int64_t> shape(rank);
    library_.check(library_->GetDimensions(tensor, shape.data(), rank), "read the shape");
    check_declared_shape("onnxruntime", what, shape.data(), rank, expected);
  }

  using NameCall = ort::Status* (*)(const ort::Session*, size_t, ort::Allocator*, char**);
  std::string name(NameCall read) const {
    ort::Allocator* allocator = nullptr;  // the engine's default one, not ours to release
    library_.check(library_->GetAllocatorWithDefaultOptions(&allocator), "get its allocator");
    char* text = nullptr;
    library_.check(read(session_.get(), 0, allocator, &text), "read a name");
    const auto free_name = [&](char* owned) { library_->ReleaseStatus(library_->AllocatorFree(allocator, owned)); };
    const std::unique_ptr<char, decltype(free_name)> owned(text, free_name);
    return text;
  }

  // Destroyed in reverse: values, then session, then environment.
  GraphShapes shapes_;
  OnnxRuntimeLibrary library_;
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

EngineDescription describe_onnxruntime(const std::string& library_path) {
  const OnnxRuntimeLibrary library(library_path);
  return {library.version(), library.providers()};
}

}  // namespace onceover
