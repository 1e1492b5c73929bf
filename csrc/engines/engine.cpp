#include "engines/engine.h"

#include "base/error.h"

namespace onceover {

#define ONCEOVER_ENGINE(name)                                                                                      \
  std::unique_ptr<Engine> create_##name(const EngineOptions& options, GraphView graph, const GraphShapes& shapes); \
  EngineDescription describe_##name(const std::string& library_path);
#include "engines/engines.def"
#undef ONCEOVER_ENGINE

namespace {

struct Entry {
  const char* name;
  std::unique_ptr<Engine> (*create)(const EngineOptions&, GraphView, const GraphShapes&);
  EngineDescription (*describe)(const std::string&);
};

constexpr Entry kEngines[] = {
#define ONCEOVER_ENGINE(name) {#name, create_##name, describe_##name},
#include "engines/engines.def"
#undef ONCEOVER_ENGINE
};

const Entry& find_engine(const std::string& name) {
  std::string known;
  for (const Entry& engine : kEngines) {
    if (name == engine.name) return engine;
    known += known.empty() ? "" : ", ";
    known += engine.name;
  }
  fail(Status::kUnknownName, "unknown engine '%s'. Known: %s", name.c_str(), known.c_str());
}

}  // namespace

std::unique_ptr<Engine> create_engine(const EngineOptions& options, GraphView graph, const GraphShapes& shapes) {
  const char* name = options.name.c_str();
  if (options.threads < 1 || options.threads > kMaxEngineThreads) {
    fail(Status::kUsage, "engine %s: threads must be between 1 and %u, got %u", name, kMaxEngineThreads,
         options.threads);
  }
  const Entry& engine = find_engine(options.name);
  for (const auto& [key, value] : options.options) {
    if (key.empty() || value.empty()) {
      fail(Status::kUsage, "engine %s: option '%s=%s' must be KEY=VALUE, neither empty", name, key.c_str(),
           value.c_str());
    }
  }
  if (graph.data == nullptr || graph.size == 0) {
    fail(Status::kEngine, "engine %s: the graph is empty; export it again", name);
  }
  return engine.create(options, graph, shapes);
}

EngineDescription describe_engine(const std::string& name, const std::string& library_path) {
  return find_engine(name).describe(library_path);
}

void check_declared_shape(const char* engine, const char* what, const int64_t* declared, size_t rank,
                          const std::vector<int64_t>& expected) {
  bool fits = rank == expected.size();
  for (size_t i = 0; fits && i < rank; ++i) fits = declared[i] < 0 || declared[i] == expected[i];
  if (fits) return;
  fail(Status::kEngine,
       "engine %s: the graph's %s has shape %s, expected %s; it is not the graph this configuration was made for",
       engine, what, shape_text(declared, rank).c_str(), shape_text(expected.data(), expected.size()).c_str());
}

std::string shape_text(const int64_t* shape, size_t rank) {
  std::string text = "(";
  for (size_t i = 0; i < rank; ++i) {
    if (i > 0) text += ", ";
    text += shape[i] < 0 ? "?" : std::to_string(shape[i]);
  }
  return text + ")";
}

}  // namespace onceover
