// Engines: load, compile, run, destroy, and every way in which that can go wrong. Needs a real library and a graph:
// ONCEOVER_TEST_ORT (path of libonnxruntime.so) and ONCEOVER_TEST_GRAPH (tests/tiny_package.py writes one: input
// (1, 3, 32, 48), output (1, 24, 4)); without them only what needs neither is tested, and the output says so.
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>

#include "check.h"
#include "engines/engine.h"

using onceover::create_engine;
using onceover::EngineOptions;
using onceover::GraphView;
using onceover::Status;

namespace {

const std::vector<int64_t> kInput = {1, 3, 32, 48};
const std::vector<int64_t> kOutput = {1, 24, 4};

struct Bench {  // buffers of the tiny graph
  std::vector<float> input = std::vector<float>(3 * 32 * 48);
  std::vector<float> output = std::vector<float>(24 * 4);

  std::unique_ptr<onceover::Engine> create(const EngineOptions& options, GraphView graph,
                                           const std::vector<int64_t>& input_shape = kInput,
                                           const std::vector<int64_t>& output_shape = kOutput) {
    return create_engine(options, graph, input.data(), input_shape, output.data(), output_shape);
  }
};

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

std::vector<uint8_t> read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

void test_arguments_are_checked_before_anything_is_loaded() {
  Bench bench;
  const GraphView graph{reinterpret_cast<const uint8_t*>("x"), 1};
  CHECK_THROWS(bench.create({"onnxruntim", "", 1}, graph), Status::kUnknownName, "Known: onnxruntime");
  CHECK_THROWS(bench.create({"onnxruntime", "", 1}, graph), Status::kEngine, "no library path");
  CHECK_THROWS(bench.create({"onnxruntime", "/nowhere/libonnxruntime.so", 1}, graph), Status::kEngine, "pip install");
  CHECK_THROWS(bench.create({"onnxruntime", __FILE__, 1}, graph), Status::kEngine, "cannot load");
  CHECK_THROWS(bench.create({"onnxruntime", "libm.so.6", 1}, graph), Status::kEngine, "is not ONNX Runtime");
  CHECK_THROWS(bench.create({"onnxruntime", "x", 0}, graph), Status::kUsage, "threads");
  CHECK_THROWS(bench.create({"onnxruntime", "x", 1000}, graph), Status::kUsage, "threads");
}

void test_engines_come_and_go(const EngineOptions& options, GraphView graph) {
  std::vector<float> first;
  for (int round = 0; round < 50; ++round) {
    Bench bench;
    for (size_t i = 0; i < bench.input.size(); ++i) bench.input[i] = std::sin(0.1f * static_cast<float>(i));
    for (float& value : bench.output) value = std::nanf("");
    const auto engine = bench.create(options, graph);
    engine->run();
    if (first.empty()) first = bench.output;
    CHECK(std::memcmp(first.data(), bench.output.data(), first.size() * sizeof(float)) == 0);
    CHECK(std::isfinite(bench.output.back()));
    CHECK(engine->version().rfind("onnxruntime 1.", 0) == 0);
  }
}

void test_a_run_reads_the_bound_input_anew(const EngineOptions& options, GraphView graph) {
  Bench bench;
  const auto engine = bench.create(options, graph);
  engine->run();
  const std::vector<float> dark = bench.output;
  for (float& value : bench.input) value = 1.0f;
  engine->run();
  CHECK(dark != bench.output);
}

void test_shapes_must_agree(const EngineOptions& options, GraphView graph) {
  Bench bench;
  CHECK_THROWS(bench.create(options, graph, {1, 3, 48, 32}), Status::kEngine, "expected (1, 3, 48, 32)");
  CHECK_THROWS(bench.create(options, graph, {3, 32, 48}), Status::kEngine, "input has shape");
  CHECK_THROWS(bench.create(options, graph, kInput, {1, 12, 8}), Status::kEngine, "output has shape");
  CHECK_THROWS(bench.create(options, graph, kInput, {1, 24, 3}), Status::kEngine, "expected (1, 24, 3)");
}

void test_a_corrupt_graph_is_refused(const EngineOptions& options, std::vector<uint8_t> graph) {
  Bench bench;
  CHECK_THROWS(bench.create(options, {graph.data(), 0}), Status::kEngine, "empty");
  CHECK_THROWS(bench.create(options, {graph.data(), graph.size() / 2}), Status::kEngine, "load the graph");
  for (size_t i = 0; i < graph.size(); i += 3) graph[i] ^= 0x5a;
  CHECK_THROWS(bench.create(options, {graph.data(), graph.size()}), Status::kEngine, "load the graph");
}

}  // namespace

int main() {
  test_arguments_are_checked_before_anything_is_loaded();
  const EngineOptions options{"onnxruntime", environment("ONCEOVER_TEST_ORT"), 1};
  const std::string path = environment("ONCEOVER_TEST_GRAPH");
  if (options.library_path.empty() || path.empty()) {
    std::printf("skipped: set ONCEOVER_TEST_ORT and ONCEOVER_TEST_GRAPH to test a real engine\n");
    return check::summary("engines");
  }
  const std::vector<uint8_t> bytes = read_file(path);
  const GraphView graph{bytes.data(), bytes.size()};
  test_engines_come_and_go(options, graph);
  test_a_run_reads_the_bound_input_anew(options, graph);
  test_shapes_must_agree(options, graph);
  test_a_corrupt_graph_is_refused(options, bytes);
  return check::summary("engines");
}
