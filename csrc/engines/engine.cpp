#include "engines/engine.h"

#include "base/error.h"
#include "engines/onnxruntime.h"

namespace onceover {
namespace {

using Factory = std::unique_ptr<Engine> (*)(const EngineOptions&, GraphView, const EngineBuffers&);

// A new engine is one file and one line here.
constexpr struct {
  const char* name;
  Factory create;
} kEngines[] = {
    {"onnxruntime", create_onnxruntime},
};

constexpr uint32_t kMaxThreads = 256;

}  // namespace

std::unique_ptr<Engine> create_engine(const EngineOptions& options, GraphView graph, float* input,
                                      const std::vector<int64_t>& input_shape, float* output,
                                      const std::vector<int64_t>& output_shape) {
  if (options.threads < 1 || options.threads > kMaxThreads) {
    fail(Status::kUsage, "engine %s: threads must be between 1 and %u, got %u", options.name.c_str(), kMaxThreads,
         options.threads);
  }
  std::string known;
  for (const auto& engine : kEngines) {
    if (options.name == engine.name) {
      return engine.create(options, graph, {input, input_shape, output, output_shape});
    }
    known += known.empty() ? "" : ", ";
    known += engine.name;
  }
  fail(Status::kUnknownName, "unknown engine '%s'. Known: %s", options.name.c_str(), known.c_str());
}

}  // namespace onceover
