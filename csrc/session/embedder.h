// Image → patch embeddings: prepare and one engine run, for each tile. What fit uses, and the first half of a session.
#pragma once

#include <memory>

#include "base/matrix_view.h"
#include "engines/engine.h"
#include "image/prepare.h"
#include "package/config.h"

namespace onceover {

struct Timing {  // nanoseconds of the last run
  uint64_t prepare_ns = 0, engine_ns = 0, score_ns = 0, map_ns = 0;
};

class Embedder {
 public:
  Embedder(const Config& config, GraphView graph, const EngineOptions& options, Memory& memory);
  // → (feature_count, embedding_dim) row-major, tile after tile, valid until the next call. Throws Error(kEngine) when
  // the engine's answer holds a non-finite value, kInput for an image that cannot be read or cut into tiles.
  const float* embed(const ImageView& image, Timing& timing);
  // Takes embeddings (feature_count, embedding_dim) from elsewhere in the place of an answer.
  const float* keep(MatrixView<const float> embeddings_of_all);
  // The last ones.
  const float* embeddings() const { return features_.size() > 0 ? features_.data() : output_.data(); }
  // The first half alone: out (tiles, 3, H, W), what the network would be given.
  void prepare(const ImageView& image, float* out);
  std::string engine_version() const { return engine_->version(); }

 private:
  void run_engine();

  Config config_;
  TileGrid tiles_;
  std::unique_ptr<Engine>
      engine_;  // before the buffers: a graph that does not fit is refused before they are allocated
  Preparer preparer_;
  Buffer<float> input_, output_;  // of one engine run
  Buffer<float> features_;        // of all tiles, where there are several
};

}  // namespace onceover
