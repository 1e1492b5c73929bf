// The one contract of an engine: runs a graph with one float32 input and one float32 output, fixed shapes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace onceover {

struct EngineOptions {
  std::string name = "onnxruntime";
  std::string library_path;  // of the engine's shared library; Python passes that of the installed wheel
  uint32_t threads = 1;
};

struct GraphView {
  const uint8_t* data = nullptr;
  size_t size = 0;
};

struct GraphShapes {  // of the one input and the one output, both float32
  std::vector<int64_t> input, output;
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
// that size. Shapes that a graph leaves open are the engine's to check, against the bound buffers: onnxruntime fails a
// run whose output has another shape than the buffer it was given. Throws Error(kUsage) for a bad thread count,
// kUnknownName for an unknown engine (naming the known ones), kEngine for a library that cannot be loaded or a graph
// that does not fit, both saying what to do.
std::unique_ptr<Engine> create_engine(const EngineOptions& options, GraphView graph, const GraphShapes& shapes);

}  // namespace onceover
