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

class Engine {
 public:
  virtual ~Engine() = default;
  // input and output are the buffers given to create_engine; reads one, fills the other. Throws Error(kEngine).
  virtual void run() = 0;
  virtual std::string version() const = 0;  // e.g. "onnxruntime 1.31.1"
};

// Loads the engine library, compiles the graph and binds the caller's buffers, which must outlive the engine.
// Shapes are checked against the graph and again after each run. Throws Error(kUnknownName) for an unknown engine
// (with near ones), kEngine for a library that cannot be loaded or a graph that does not fit, both saying what to do.
std::unique_ptr<Engine> create_engine(const EngineOptions& options, GraphView graph, float* input,
                                      const std::vector<int64_t>& input_shape, float* output,
                                      const std::vector<int64_t>& output_shape);

}  // namespace onceover
