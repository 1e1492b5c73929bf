#include "session/embedder.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <limits>

#include "base/error.h"
#include "base/finite.h"

namespace onceover {
namespace {

uint64_t since_ns(std::chrono::steady_clock::time_point start) {
  const auto passed = std::chrono::steady_clock::now() - start;
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(passed).count());
}

size_t input_count(const Config& config) {
  return size_t{3} * config.preprocessing.height * config.preprocessing.width;
}

size_t output_count(const Config& config) { return config.patch_count() * config.embedding_dim; }

GraphShapes shapes_of(const Config& config) {
  return {{1, 3, config.preprocessing.height, config.preprocessing.width},
          {1, static_cast<int64_t>(config.patch_count()), config.embedding_dim}};
}

}  // namespace

Embedder::Embedder(const Config& config, GraphView graph, const EngineOptions& options, Memory& memory)
    : config_(config),
      tiles_(config.tiles()),
      engine_(create_engine(options, graph, shapes_of(config))),
      preparer_(config.preprocessing, memory),
      input_(memory, input_count(config), "network input"),
      output_(memory, output_count(config), "patch embeddings"),
      features_(memory, tiles_.tiles() == 1 ? 0 : tiles_.tiles() * output_.size(), "patch embeddings of the tiles") {
  engine_->bind(input_.data(), output_.data());
}

void Embedder::prepare(const ImageView& image, float* out) {
  for (size_t tile = 0; tile < tiles_.tiles(); ++tile) {
    preparer_.run(tiles_.cut(image, tile), out + tile * input_.size());
  }
}

const float* Embedder::embed(const ImageView& image, Timing& timing) {
  timing = {};
  for (size_t tile = 0; tile < tiles_.tiles(); ++tile) {
    const auto start = std::chrono::steady_clock::now();
    preparer_.run(tiles_.cut(image, tile), input_.data());
    timing.prepare_ns += since_ns(start);

    const auto engine_start = std::chrono::steady_clock::now();
    run_engine();
    if (features_.size() > 0) std::copy_n(output_.data(), output_.size(), features_.data() + tile * output_.size());
    timing.engine_ns += since_ns(engine_start);
  }
  return embeddings();
}

void Embedder::run_engine() {
  // What the engine leaves unwritten must not pass for the embeddings of the image before.
  for (float& value : output_) value = std::numeric_limits<float>::quiet_NaN();
  engine_->run();
  if (!all_finite(output_.data(), output_.size())) {
    fail(Status::kEngine,
         "%s answered NaN or infinite patch embeddings; the image gets no verdict. Check the graph and its weights",
         engine_->version().c_str());
  }
}

const float* Embedder::keep(MatrixView<const float> embeddings_of_all) {
  float* kept = features_.size() > 0 ? features_.data() : output_.data();
  for (size_t patch = 0; patch < embeddings_of_all.rows; ++patch) {
    std::memmove(kept + patch * embeddings_of_all.columns, embeddings_of_all.row(patch),
                 embeddings_of_all.columns * sizeof(float));
  }
  return kept;
}

}  // namespace onceover
