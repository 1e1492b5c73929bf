// Engines: load, compile, run, destroy, and every way in which that can go wrong. Needs real libraries and a graph:
// ONCEOVER_TEST_ORT and ONCEOVER_TEST_OPENVINO (paths of libonnxruntime.so and libopenvino_c.so) and
// ONCEOVER_TEST_GRAPH (tests/tiny_package.py writes one: input (1, 3, 32, 48), output (1, 24, 4)); an engine without
// them is tested only as far as it needs neither, and the output says so.
#include <unistd.h>
#if defined(__linux__)
#include <sched.h>
#endif

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <thread>

#include "check.h"
#include "engines/engine.h"
#include "engines/onnxruntime_calls.h"
#include "package_samples.h"
#include "session/session.h"

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
    auto engine = create_engine(options, graph, {input_shape, output_shape});
    engine->bind(input.data(), output.data());
    return engine;
  }
};

// What a deed prints to standard error, by whatever means.
template <typename Deed>
std::string printed_by(const Deed& deed) {
  std::FILE* sink = std::tmpfile();
  std::fflush(stderr);
  const int before = ::dup(STDERR_FILENO);
  ::dup2(::fileno(sink), STDERR_FILENO);
  deed();
  std::fflush(stderr);
  ::dup2(before, STDERR_FILENO);
  ::close(before);
  std::string text(static_cast<size_t>(std::ftell(sink)), '\0');  // the position is shared with the duplicate
  std::rewind(sink);
  text.resize(std::fread(text.data(), 1, text.size(), sink));
  std::fclose(sink);
  return text;
}

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
  CHECK_THROWS(bench.create({"onnxruntim", "", 1}, graph), Status::kUnknownName, "Known: onnxruntime, openvino");
  for (const char* engine : {"onnxruntime", "openvino"}) {
    CHECK_THROWS(bench.create({engine, "", 1}, graph), Status::kEngine, "no library path");
    CHECK_THROWS(bench.create({engine, "/nowhere/lib.so", 1}, graph), Status::kEngine, "pip install");
    CHECK_THROWS(bench.create({engine, __FILE__, 1}, graph), Status::kEngine, "cannot load");
    CHECK_THROWS(bench.create({engine, "libm.so.6", 1}, graph), Status::kEngine, "libm.so.6 is not O");
    CHECK_THROWS(bench.create({engine, "x", 0}, graph), Status::kUsage, "threads");
    CHECK_THROWS(bench.create({engine, "x", 1000}, graph), Status::kUsage, "threads");
    CHECK_THROWS(bench.create({engine, "x", 1, "", {{"key", ""}}}, graph), Status::kUsage, "'key=' must be KEY=VALUE");
    CHECK_THROWS(bench.create({engine, "x", 1}, {}), Status::kEngine, "the graph is empty");
    CHECK_THROWS(onceover::describe_engine(engine, "libm.so.6"), Status::kEngine, "libm.so.6 is not O");
  }
}

void test_releases_that_read_external_data_are_too_old() {
  for (const char* old : {"1.20.1", "1.18.0", "0.99.0", "1", "", "newest"}) CHECK(!onceover::ort::is_recent(old));
  CHECK(!onceover::ort::is_recent(nullptr));
  for (const char* recent : {"1.21.0", "1.31.1", "2.0.0"}) CHECK(onceover::ort::is_recent(recent));
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
    CHECK(engine->version().rfind(options.name + " ", 0) == 0);
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

void test_a_graph_that_does_not_fit_is_refused_before_its_buffers_are_allocated(const EngineOptions& options,
                                                                                GraphView graph) {
  onceover::Config config;  // valid, and 1 GiB of embeddings if the graph were not looked at first
  config.preprocessing = {4096, 4096, {0, 0, 0}, {1, 1, 1}};
  config.grid_height = config.grid_width = 4096;
  config.embedding_dim = 16;
  onceover::Memory memory(onceover::heap_allocator(), 1);
  CHECK_THROWS(onceover::Embedder(config, graph, options, memory), Status::kEngine, "input has shape (1, 3, 32, 48)");
}

void test_a_session_answers_only_for_a_run_that_succeeded(const EngineOptions& options, GraphView graph) {
  samples::Sample sample;  // with the tiny graph: 4 x 6 patches of 4 values
  onceover::Config config = samples::sample_config();
  config.embedding_dim = 4;
  sample.config = write_config(config);
  sample.graph.assign(graph.data, graph.data + graph.size);
  onceover::PackageWriter writer;
  for (const auto& [name, member] :
       {std::pair{"config", &sample.config}, std::pair{"graph.onnx", &sample.graph},
        std::pair{"calibration", &sample.calibration}, std::pair{"parity", &sample.parity}})
    writer.add(name, member->data(), member->size(), onceover::DataType::kBytes, {}, true);
  writer.add("memory_bank", sample.bank.data(), 256 * 4 * sizeof(float), onceover::DataType::kFloat32, {256, 4}, true);
  const samples::Bytes bytes = writer.bytes();
  onceover::SessionOptions session_options;
  session_options.engine = options;
  onceover::Session session(onceover::Package::view(bytes.data(), bytes.size(), "test"), session_options);
  const onceover::ImageView image = sample.parity_record().images[0].image;
  onceover::ImageView bad = image;
  bad.height = 1;
  std::vector<float> pixels(6);
  const auto all_refuse = [&] {
    CHECK_THROWS(session.patch_scores(), Status::kUsage, "call run first");
    CHECK_THROWS(session.nearest_rows(), Status::kUsage, "call run first");
    CHECK_THROWS(session.map(), Status::kUsage, "call run first");
    CHECK_THROWS(session.draw_map({pixels.data(), 2, 3}), Status::kUsage, "call run first");
  };
  all_refuse();
  const onceover::Result& result = session.run(image);
  CHECK(session.patch_scores()[result.worst_patch] == result.score);
  CHECK(result.decision == onceover::Decision::kNormal && std::string(name_of(result.decision)) == "normal");
  CHECK(session.nearest_rows()[result.worst_patch] == result.nearest_row && session.map().rows == 32);
  CHECK_THROWS(session.run(bad), Status::kInput, "");
  all_refuse();
  session.run(image);
  CHECK_THROWS(session.self_test(), Status::kVerification, "expected");  // the record is of another graph
  all_refuse();
}

void test_a_run_without_buffers_is_refused(const EngineOptions& options, GraphView graph) {
  CHECK_THROWS(create_engine(options, graph, {kInput, kOutput})->run(), Status::kEngine, "call bind before run");
}

void test_an_engine_says_what_it_has(const EngineOptions& options) {
  const onceover::EngineDescription description = onceover::describe_engine(options.name, options.library_path);
  CHECK(description.version.rfind(options.name + " ", 0) == 0);
  bool has_cpu = false;
  for (const std::string& device : description.devices) has_cpu = has_cpu || device == "CPU";
  CHECK(has_cpu);
}

void test_an_absent_device_is_named_beside_those_that_are_there(EngineOptions options, GraphView graph) {
  Bench bench;
  options.device = "Abacus";
  CHECK_THROWS(bench.create(options, graph), Status::kEngine, "Abacus");
  CHECK_THROWS(bench.create(options, graph), Status::kEngine, "CPU");
  options.device = "CPU";
  bench.create(options, graph)->run();
}

void test_options_that_nobody_knows_are_refused(EngineOptions options, GraphView graph) {
  Bench bench;
  options.options = {{"NO_SUCH_OPTION", "1"}};
  CHECK_THROWS(bench.create(options, graph), options.name == "openvino" ? Status::kEngine : Status::kUsage,
               "NO_SUCH_OPTION");
}

void test_openvino_takes_properties(EngineOptions options, GraphView graph) {
  Bench bench;
  options.options = {{"NUM_STREAMS", "2"}, {"ENABLE_HYPER_THREADING", "NO"}};  // one of ours, one of its own
  bench.create(options, graph)->run();
  options.options = {{"NUM_STREAMS", "many"}};
  CHECK_THROWS(bench.create(options, graph), Status::kEngine, "many");
  options.options = {{"CACHE_ENCRYPTION_CALLBACKS", "x"}};
  CHECK_THROWS(bench.create(options, graph), Status::kUsage, "CACHE_ENCRYPTION_CALLBACKS");
  options.options.assign(30, {});
  for (size_t i = 0; i < 30; ++i) options.options[i] = {"KEY_" + std::to_string(i), "1"};
  CHECK_THROWS(bench.create(options, graph), Status::kUsage, "30 options, at most 20");
}

void test_openvino_runs_its_own_format(const EngineOptions& options, GraphView onnx) {
  const std::string stem = environment("ONCEOVER_TEST_GRAPH");
  const std::vector<uint8_t> graph = read_file(stem.substr(0, stem.rfind('.')) + ".xml");
  const std::vector<uint8_t> weights = read_file(stem.substr(0, stem.rfind('.')) + ".bin");
  CHECK(!graph.empty() && !weights.empty());
  const GraphView view{graph.data(), graph.size(), onceover::GraphFormat::kOpenVinoIr, weights.data(), weights.size()};
  Bench expected, got;
  expected.create(options, onnx)->run();
  const auto engine = got.create(options, view);
  engine->run();
  CHECK(expected.output == got.output);
  GraphView cut = view;
  cut.weights_size /= 2;
  CHECK_THROWS(got.create(options, cut), Status::kEngine, "load the graph");
  cut.weights_size = 0;
  CHECK_THROWS(got.create(options, cut), Status::kEngine, "load the graph");
  cut = view;
  cut.format = onceover::GraphFormat::kOnnx;
  CHECK_THROWS(got.create(options, cut), Status::kEngine, "is not ONNX");
  EngineOptions other{"onnxruntime", environment("ONCEOVER_TEST_ORT"), 1};
  CHECK_THROWS(got.create(other, view), Status::kEngine, "run it with openvino");
}

// They hand the graph to the CPU, which left alone would compute in bfloat16 where it can.
void test_devices_that_delegate_compute_in_full_precision_too(EngineOptions options, GraphView graph) {
  Bench direct, delegated;
  for (size_t i = 0; i < direct.input.size(); ++i) direct.input[i] = std::cos(0.3f * static_cast<float>(i));
  delegated.input = direct.input;
  direct.create(options, graph)->run();
  for (const char* device : {"AUTO", "AUTO:NPU,CPU", "MULTI:CPU", "HETERO:CPU", "BATCH:CPU(1)"}) {
    options.device = device;
    delegated.output.assign(delegated.output.size(), std::nanf(""));
    delegated.create(options, graph)->run();
    CHECK(direct.output == delegated.output);
  }
}

// The calling thread is the application's. An engine that binds it for a run brings it back to where it may be, not to
// where it was.
void test_a_run_leaves_the_calling_thread_on_its_cpu(EngineOptions options, GraphView graph) {
#if defined(__linux__)
  const auto may_use = [](std::initializer_list<int> list) {
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    for (const int cpu : list) CPU_SET(cpu, &cpus);
    return sched_setaffinity(0, sizeof cpus, &cpus) == 0;
  };
  for (const int threads : {1, 2}) {
    std::thread([&] {
      if (!may_use({1}) || !may_use({0}) || !may_use({0, 1})) {
        std::printf("skipped: whether %s moves the calling thread; it takes CPUs 0 and 1\n", options.name.c_str());
        return;
      }
      options.threads = threads;
      Bench bench;
      const auto engine = bench.create(options, graph);
      constexpr int kRuns = 40;
      int stayed = 0;
      for (int run = 0; run < kRuns; ++run) {
        may_use({1});
        may_use({0, 1});
        engine->run();
        stayed += sched_getcpu() == 1;
      }
      if (stayed < kRuns / 2) std::printf("%s stayed %d times of %d\n", options.name.c_str(), stayed, kRuns);
      CHECK(stayed >= kRuns / 2);  // the system may move it, too, but why should it
    }).join();
  }
#endif
}

void test_onnxruntime_takes_providers(EngineOptions options, GraphView graph) {
  Bench bench;
  options.device = "CUDAExecutionProvider, CPU";  // not in the build for CPUs
  CHECK_THROWS(bench.create(options, graph), Status::kEngine, "'CUDA' is not in this build");
  CHECK_THROWS(bench.create(options, graph), Status::kEngine, "pip install onnxruntime-gpu");
  options.device = "CPU,CUDA";
  CHECK_THROWS(bench.create(options, graph), Status::kUsage, "only be last");
  options.device = "cpu";
  options.options = {{"session.intra_op.allow_spinning", "1"}};
  bench.create(options, graph)->run();
  options.cache_dir = "cache";
  CHECK_THROWS(bench.create(options, graph), Status::kUsage, "keep compiled graphs");
}

void test_a_graph_that_cannot_be_loaded_prints_nothing(const EngineOptions& options, std::vector<uint8_t> graph) {
  const std::string printed = printed_by([&] {
    Bench bench;
    CHECK_THROWS(bench.create(options, {graph.data(), graph.size() / 2}), Status::kEngine, "load the graph");
    for (size_t i = 0; i + 7 <= graph.size(); ++i) {  // an operator that nobody has
      if (std::memcmp(graph.data() + i, "Reshape", 7) == 0) graph[i + 6] = 'x';
    }
    CHECK_THROWS(bench.create(options, {graph.data(), graph.size()}), Status::kEngine, "Reshapx");
  });
  CHECK(printed.empty());
  if (!printed.empty()) std::fprintf(stderr, "printed: %s\n", printed.c_str());
  CHECK(printed_by([] { std::fputs("seen", stderr); }) == "seen");
}

void test_a_corrupt_graph_is_refused(const EngineOptions& options, std::vector<uint8_t> graph) {
  Bench bench;
  CHECK_THROWS(bench.create(options, {graph.data(), graph.size() / 2}), Status::kEngine, "load the graph");
  for (size_t i = 0; i < graph.size(); i += 3) graph[i] ^= 0x5a;
  CHECK_THROWS(bench.create(options, {graph.data(), graph.size()}), Status::kEngine, "load the graph");
}

void test_engine(const EngineOptions& options, const std::vector<uint8_t>& bytes) {
  if (options.library_path.empty() || bytes.empty()) {
    std::printf("skipped: %s; set ONCEOVER_TEST_ORT, ONCEOVER_TEST_OPENVINO and ONCEOVER_TEST_GRAPH to test it\n",
                options.name.c_str());
    return;
  }
  const GraphView graph{bytes.data(), bytes.size()};
  test_engines_come_and_go(options, graph);
  test_a_run_reads_the_bound_input_anew(options, graph);
  test_shapes_must_agree(options, graph);
  test_a_graph_that_does_not_fit_is_refused_before_its_buffers_are_allocated(options, graph);
  test_a_session_answers_only_for_a_run_that_succeeded(options, graph);
  test_a_run_without_buffers_is_refused(options, graph);
  test_an_engine_says_what_it_has(options);
  test_an_absent_device_is_named_beside_those_that_are_there(options, graph);
  test_options_that_nobody_knows_are_refused(options, graph);
  test_a_graph_that_cannot_be_loaded_prints_nothing(options, bytes);
  test_a_corrupt_graph_is_refused(options, bytes);
  test_a_run_leaves_the_calling_thread_on_its_cpu(options, graph);
  if (options.name == "openvino") {
    test_openvino_takes_properties(options, graph);
    test_openvino_runs_its_own_format(options, graph);
    test_devices_that_delegate_compute_in_full_precision_too(options, graph);
  }
  if (options.name == "onnxruntime") test_onnxruntime_takes_providers(options, graph);
}

}  // namespace

int main() {
  test_arguments_are_checked_before_anything_is_loaded();
  test_releases_that_read_external_data_are_too_old();
  const std::vector<uint8_t> graph = read_file(environment("ONCEOVER_TEST_GRAPH"));
  test_engine({"onnxruntime", environment("ONCEOVER_TEST_ORT"), 1}, graph);
  test_engine({"openvino", environment("ONCEOVER_TEST_OPENVINO"), 1}, graph);
  return check::summary("engines");
}
