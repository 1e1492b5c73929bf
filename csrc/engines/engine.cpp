#include "engines/engine.h"

#include "base/error.h"
#include "engines/onnxruntime.h"

namespace onceover {
namespace {

using Factory = std::unique_ptr<Engine> (*)(const EngineOptions&, GraphView, const GraphShapes&);

// A new engine is one file and one line here.
constexpr struct {
  const char* name;
  Factory create;
} kEngines[] = {
    {"onnxruntime", create_onnxruntime},
};

}  // namespace

std::unique_ptr<Engine> create_engine(const EngineOptions& options, GraphView graph, const GraphShapes& shapes) {
  if (options.threads < 1 || options.threads > kMaxEngineThreads) {
    fail(Status::kUsage, "engine %s: threads must be between 1 and %u, got %u", options.name.c_str(), kMaxEngineThreads,
         options.threads);
  }
  std::string known;
  for (const auto& engine : kEngines) {
    if (options.name == engine.name) return engine.create(options, graph, shapes);
    known += known.empty() ? "" : ", ";
    known += engine.name;
  }
  fail(Status::kUnknownName, "unknown engine '%s'. Known: %s", options.name.c_str(), known.c_str());
}

}  // namespace onceover
