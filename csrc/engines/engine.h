// The one contract of an engine: runs a graph with one float32 input and one float32 output, fixed shapes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engines/host.h"

namespace onceover {

struct EngineOptions {
  std::string name = "onnxruntime";
  std::string library_path;  // of the engine's shared library; Python passes that of the installed wheel
  uint32_t threads = 1;
  // Where the graph runs; empty: on the CPU. openvino: a device in its own words ("GPU", "NPU", "AUTO:GPU,CPU", …).
  // onnxruntime: execution providers, best first ("TensorRT,CUDA"); what none of them can do runs on the CPU.
  std::string device{};
  // (key, value) as the engine's manual spells them; they win over what we would set. openvino: properties.
  // onnxruntime: options of the first provider, "CUDA.key" of a named one, "session.key" of the session.
  std::vector<std::pair<std::string, std::string>> options{};
  std::string cache_dir{};  // folder for compiled graphs, made if missing; empty: none are kept
  HostNetwork host{};       // of the engine "host"
};

enum class GraphFormat { kOnnx, kOpenVinoIr };

struct GraphView {
  const uint8_t* data = nullptr;
  size_t size = 0;
  GraphFormat format = GraphFormat::kOnnx;
  // Of an IR, whose .xml is `data`: its .bin. Read in place, so it must live as long as the engine.
  const uint8_t* weights = nullptr;
  size_t weights_size = 0;
};

struct GraphShapes {  // of the one input and the one output, both float32
  std::vector<int64_t> input, output;
};

struct EngineDescription {
  std::string version;               // e.g. "onnxruntime 1.31.1"
  std::vector<std::string> devices;  // that this library offers on this machine; onnxruntime: that it was built for
};

inline constexpr uint32_t kMaxEngineThreads = 256;

class Engine {
 public:
  virtual ~Engine() = default;
  // Takes the caller's buffers, of the shapes given to create_engine; they must live as long as the engine runs. Call
  // once, before the first run. Throws Error(kEngine).
  virtual void bind(float* input, float* output) = 0;
  // Reads one bound buffer, fills the other. Throws Error(kEngine), also when a dimension that the graph leaves open
  // does not come out as bound; what a failed run wrote is undefined.
  virtual void run() = 0;
  virtual std::string version() const = 0;  // e.g. "onnxruntime 1.31.1"
};

// Loads the engine library, compiles the graph and checks the shapes it declares, before the caller needs buffers of
// that size. Shapes that a graph leaves open are the engine's to check, against the bound buffers, after every run.
// Throws Error(kUsage) for a bad thread count or option, kUnknownName for an unknown engine (naming the known ones),
// kEngine for a library that cannot be loaded, a device that is absent, or a graph that does not fit; all say what to
// do.
std::unique_ptr<Engine> create_engine(const EngineOptions& options, GraphView graph, const GraphShapes& shapes);

// Loads the library and asks it. Throws as create_engine does.
EngineDescription describe_engine(const std::string& name, const std::string& library_path);

// For engines. Throws Error(kEngine) unless a graph's input or output (`what`) can have the shape `expected`;
// dimensions below 0 are open.
void check_declared_shape(const char* engine, const char* what, const int64_t* declared, size_t rank,
                          const std::vector<int64_t>& expected);
std::string shape_text(const int64_t* shape, size_t rank);  // "(1, 3, ?, ?)"

}  // namespace onceover
