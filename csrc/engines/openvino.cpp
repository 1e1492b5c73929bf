// Engine "openvino": the C API of libopenvino_c, opened at run time; nothing is linked and no header is needed.
#include <signal.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "base/error.h"
#include "engines/engine.h"
#include "engines/onnx_content.h"
#include "engines/openvino_library.h"

namespace onceover {
namespace {

using Properties = std::vector<std::pair<std::string, std::string>>;

constexpr size_t kMaxProperties = 25;

// What to do about a graph that was not compiled for `device`.
const char* advice(const std::string& device, const std::vector<std::string>& found) {
  const auto lacks = [&](const char* kind) {
    if (device.find(kind) == std::string::npos) return false;
    return std::none_of(found.begin(), found.end(), [&](const std::string& name) { return name.rfind(kind, 0) == 0; });
  };
  if (lacks("GPU")) return "a GPU needs an OpenCL runtime (libOpenCL.so.1) and its vendor's driver; install them";
  if (lacks("NPU")) return "an NPU needs Intel's NPU driver; install it";
  for (const std::string& name : found) {
    if (device.find(name) != std::string::npos) return "check the options that were given for it";
  }
  return "name one of them as device";
}

// What we ask of a device unless told otherwise. Full precision, because a device may choose bfloat16 or float16 by
// itself and shift every score; an NPU cannot compute in float32 at all, and verification will tell what that does.
// AUTO and its kind hand on what the device that they choose understands. No pinning: it would move the calling thread,
// which is the application's, to the first CPU for every run, also of one thread, and that of other processes likewise.
Properties properties_of(const EngineOptions& options, const std::string& device) {
  const bool npu = device.rfind("NPU", 0) == 0, gpu = device.rfind("GPU", 0) == 0;
  Properties properties = {{"PERFORMANCE_HINT", "LATENCY"}};
  if (!npu) properties.emplace_back("INFERENCE_PRECISION_HINT", "f32");
  if (!npu && !gpu) {
    properties.emplace_back("INFERENCE_NUM_THREADS", std::to_string(options.threads));
    properties.emplace_back("NUM_STREAMS", "1");
    properties.emplace_back("ENABLE_CPU_PINNING", "NO");
  }
  if (!options.cache_dir.empty()) properties.emplace_back("CACHE_DIR", options.cache_dir);
  for (const auto& [key, value] : options.options) {
    if (key == "CACHE_ENCRYPTION_CALLBACKS") {  // its value is no text but a record of functions
      fail(Status::kUsage, "engine openvino: option CACHE_ENCRYPTION_CALLBACKS cannot be given as text; leave it out");
    }
    bool replaced = false;
    for (auto& [ours, setting] : properties) {
      if (ours == key) setting = value, replaced = true;
    }
    if (!replaced) properties.emplace_back(key, value);
  }
  if (properties.size() > kMaxProperties) {
    fail(Status::kUsage, "engine openvino: %zu options, at most %zu can be given", options.options.size(),
         options.options.size() - (properties.size() - kMaxProperties));
  }
  return properties;
}

void check_graph(GraphView graph) {
  if (graph.format != GraphFormat::kOnnx) return;
  switch (inspect_onnx(graph.data, graph.size)) {
    case OnnxContent::kComplete:
      return;
    case OnnxContent::kExternalData:
      fail(Status::kEngine,
           "engine openvino: cannot load the graph: it has external data (weights in files of their own); export it "
           "into one file");
    case OnnxContent::kDamaged:
      fail(Status::kEngine, "engine openvino: cannot load the graph: it is damaged, or is not ONNX; export it again");
  }
}

class OpenVino final : public Engine {
 public:
  OpenVino(const EngineOptions& options, GraphView graph, const GraphShapes& shapes)
      : shapes_(shapes),
        library_(options.library_path),
        float32_(library_.float32()),
        core_(library_.create_core()),
        weights_(nullptr, library_->tensor_free),
        compiled_(nullptr, library_->compiled_model_free),
        input_(nullptr, library_->tensor_free),
        output_(nullptr, library_->tensor_free),
        request_(nullptr, library_->infer_request_free) {
    check_graph(graph);
    const Handle<ov::Model> model = read(graph);
    fit(model.get());
    compile(options, model.get());
    request_ = own<ov::InferRequest>(library_->infer_request_free, [&](ov::InferRequest** out) {
      library_.check(library_->compiled_model_create_infer_request(compiled_.get(), out), "prepare a run");
    });
  }

  void bind(float* input, float* output) override {
    input_ = library_.view(float32_, input, shapes_.input);
    output_ = library_.view(float32_, output, shapes_.output);
    library_.check(library_->infer_request_set_input_tensor(request_.get(), input_.get()), "bind the input");
    bound_output_ = output;
    // An answer of another shape than a bound tensor's would be dropped without a word, so an open one is copied.
    if (open_output_) return;
    library_.check(library_->infer_request_set_output_tensor(request_.get(), output_.get()), "bind the output");
  }

  void run() override {
    if (bound_output_ == nullptr) fail(Status::kEngine, "engine openvino: no buffers are bound; call bind before run");
    library_.check(library_->infer_request_infer(request_.get()), "run the graph");
    take_answer();
  }

  std::string version() const override { return library_.version(); }

 private:
  Handle<ov::Model> read(GraphView graph) {
    if (graph.weights_size > 0) {
      weights_ = library_.view(float32_ + ov::kUint8AfterFloat32, const_cast<uint8_t*>(graph.weights),
                               {static_cast<int64_t>(graph.weights_size)});
    }
    return own<ov::Model>(library_->model_free, [&](ov::Model** out) {
      library_.check(library_->core_read_model_from_memory_buffer(
                         core_.get(), reinterpret_cast<const char*>(graph.data), graph.size, weights_.get(), out),
                     "load the graph; it is damaged or needs a newer engine");
    });
  }

  // One input and one output, float32; dimensions that the graph leaves open become ours.
  void fit(const ov::Model* model) {
    check_single("input", library_->model_inputs_size, model);
    check_single("output", library_->model_outputs_size, model);
    if (check_declared("input", library_->model_const_input, model, shapes_.input)) {
      ov::PartialShape fixed{};
      library_.check(library_->partial_shape_create_static(static_cast<int64_t>(shapes_.input.size()),
                                                           shapes_.input.data(), &fixed),
                     "describe a shape");
      const ov::Status status = library_->model_reshape_single_input(model, fixed);
      library_->partial_shape_free(&fixed);
      library_.check(
          status, ("give the graph the input shape " + shape_text(shapes_.input.data(), shapes_.input.size())).c_str());
    }
    open_output_ = check_declared("output", library_->model_const_output, model, shapes_.output);
  }

  void check_single(const char* what, ov::Status (*count)(const ov::Model*, size_t*), const ov::Model* model) const {
    size_t n = 0;
    library_.check(count(model, &n), "count inputs and outputs");
    if (n != 1) fail(Status::kEngine, "engine openvino: the graph must have exactly one %s, it has %zu", what, n);
  }

  using PortCall = ov::Status (*)(const ov::Model*, ov::Port**);
  // Whether the graph leaves dimensions open.
  bool check_declared(const char* what, PortCall port_of, const ov::Model* model,
                      const std::vector<int64_t>& expected) const {
    const auto port = own<ov::Port>(library_->output_const_port_free, [&](ov::Port** out) {
      library_.check(port_of(model, out), "read the graph's types");
    });
    ov::ElementType element = 0;
    library_.check(library_->port_get_element_type(port.get(), &element), "read the element type");
    if (element != float32_) {
      fail(Status::kEngine,
           "engine openvino: the graph's %s must be float32 (OpenVINO type %d), it has OpenVINO type %d", what,
           float32_, element);
    }
    ov::PartialShape shape{};
    library_.check(library_->port_get_partial_shape(port.get(), &shape), "read the shape");
    if (shape.rank.smallest != shape.rank.largest) return true;  // even the rank is open, so there are no dimensions
    std::vector<int64_t> declared;
    bool open = false;
    for (int64_t i = 0; i < shape.rank.smallest; ++i) {
      const ov::Dimension dimension = shape.dimensions[i];
      const bool fixed = dimension.smallest == dimension.largest;
      declared.push_back(fixed ? dimension.smallest : -1);
      open = open || !fixed;
    }
    library_->partial_shape_free(&shape);
    check_declared_shape("openvino", what, declared.data(), declared.size(), expected);
    return open;
  }

  void compile(const EngineOptions& options, const ov::Model* model) {
    const std::string device = options.device.empty() ? "CPU" : options.device;
    const Properties properties = properties_of(options, device);
    std::array<const char*, 2 * kMaxProperties> arguments{};
    for (size_t i = 0; i < properties.size(); ++i) {
      arguments[2 * i] = properties[i].first.c_str();
      arguments[2 * i + 1] = properties[i].second.c_str();
    }
    ov::CompiledModel* compiled = nullptr;
    const ov::Status status = call_compile(model, device, 2 * properties.size(), &compiled, arguments,
                                           std::make_index_sequence<2 * kMaxProperties>());
    compiled_.reset(compiled);
    if (status == 0) return;
    try {
      library_.check(status, ("compile the graph for device " + device).c_str());
    } catch (const Error& error) {
      const std::vector<std::string> found = library_.devices(core_.get());
      fail(Status::kEngine, "%s. Devices found here: %s; %s", error.what(), joined(found).c_str(),
           advice(device, found));
    }
  }

  // The call reads `count` of its variable arguments; always passing all that there could be needs no other way in.
  template <size_t... I>
  ov::Status call_compile(const ov::Model* model, const std::string& device, size_t count, ov::CompiledModel** out,
                          const std::array<const char*, 2 * kMaxProperties>& arguments,
                          std::index_sequence<I...>) const {
    return library_->core_compile_model(core_.get(), model, device.c_str(), count, out, arguments[I]...);
  }

  // OpenVINO may answer in another shape, or in another buffer, without an error.
  void take_answer() const {
    const auto answer = own<ov::Tensor>(library_->tensor_free, [&](ov::Tensor** out) {
      library_.check(library_->infer_request_get_output_tensor(request_.get(), out), "read the answer");
    });
    ov::Shape shape{};
    library_.check(library_->tensor_get_shape(answer.get(), &shape), "read the answer's shape");
    const bool fits = shape.rank == static_cast<int64_t>(shapes_.output.size()) &&
                      std::equal(shapes_.output.begin(), shapes_.output.end(), shape.dimensions);
    const std::string got = fits ? "" : shape_text(shape.dimensions, static_cast<size_t>(shape.rank));
    library_->shape_free(&shape);
    const std::vector<int64_t>& expected = shapes_.output;
    if (!fits) {
      fail(Status::kEngine, "engine openvino: cannot run the graph: it answered with shape %s, expected %s",
           got.c_str(), shape_text(expected.data(), expected.size()).c_str());
    }
    void* data = nullptr;
    library_.check(library_->tensor_data(answer.get(), &data), "read the answer");
    if (!open_output_ && data != bound_output_) {
      fail(Status::kEngine, "engine openvino: cannot run the graph: it answered in another buffer than the bound one");
    }
    if (!open_output_) return;
    size_t bytes = 0;
    library_.check(library_->tensor_get_byte_size(answer.get(), &bytes), "read the answer's size");
    std::memcpy(bound_output_, data, bytes);
  }

  // Destroyed in reverse: the request, its tensors, the compiled graph, the weights it may read in place, the core.
  GraphShapes shapes_;
  OpenVinoLibrary library_;
  ov::ElementType float32_;
  Handle<ov::Core> core_;
  Handle<ov::Tensor> weights_;
  Handle<ov::CompiledModel> compiled_;
  Handle<ov::Tensor> input_, output_;
  Handle<ov::InferRequest> request_;
  float* bound_output_ = nullptr;
  bool open_output_ = false;  // whether the graph leaves its shape open even for our input
};

// The CPU device gives the thread that loads it an alternate signal stack, and frees it with the last core, in
// whichever thread that happens: the first thread's next signal handler would run on memory that is gone. So that
// thread gets its own stack back at once. (Where AMX is in use, the kernel refuses an old stack that is too small for
// it: then OpenVINO's must stay.)
class OwnSignalStack {
 public:
  OwnSignalStack() noexcept { known_ = sigaltstack(nullptr, &own_) == 0; }
  ~OwnSignalStack() {
    if (known_) sigaltstack(&own_, nullptr);
  }
  OwnSignalStack(const OwnSignalStack&) = delete;
  OwnSignalStack& operator=(const OwnSignalStack&) = delete;

 private:
  stack_t own_{};
  bool known_ = false;
};

}  // namespace

std::unique_ptr<Engine> create_openvino(const EngineOptions& options, GraphView graph, const GraphShapes& shapes) {
  const OwnSignalStack own_stack;
  return std::make_unique<OpenVino>(options, graph, shapes);
}

EngineDescription describe_openvino(const std::string& library_path) {
  const OpenVinoLibrary library(library_path);
  const auto core = library.create_core();
  return {library.version(), library.devices(core.get())};
}

}  // namespace onceover
