#include "session/patch_scorer.h"

#include <algorithm>

#include "scoring/memory_bank.h"
#include "scoring/search.h"

namespace onceover {

PatchScorer::PatchScorer(const Config& config, size_t threads, Memory& memory)
    : tiles_(config.tiles()),
      dims_(config.embedding_dim),
      threads_(threads),
      scores_(memory, config.cell_count(), "patch scores"),
      rows_(memory, config.cell_count(), "nearest rows"),
      tile_scores_(memory, tiles_.tiles() == 1 ? 0 : config.feature_count(), "patch scores of the tiles"),
      tile_rows_(memory, tile_scores_.size(), "nearest rows of the tiles") {}

void PatchScorer::reserve(const std::vector<std::unique_ptr<Product>>& products, Memory& memory) {
  size_t scratch = 0, searched = 0;
  bool weighs = false;
  for (const auto& product : products) {
    weighs = weighs || product->position_weights() != nullptr;
    scratch = std::max(scratch, threads_ * search_scratch_bytes(product->index(), 1));
    searched = std::max(searched, product->searched().size());
  }
  reserve_scratch(scratch, memory);
  if (weighs) distances_ = Buffer<float>(memory, scores_.size(), "distances");
  if (searched == 0) return;
  continued_ = Buffer<float>(memory, scores_.size(), "scores to be drawn");
  gathered_ = Buffer<float>(memory, searched * dims_, "features of the region of interest");
  gathered_scores_ = Buffer<float>(memory, searched, "scores of the region of interest");
  gathered_rows_ = Buffer<uint32_t>(memory, searched, "nearest rows of the region of interest");
}

void PatchScorer::reserve_scratch(size_t bytes, Memory& memory) {
  if (bytes > scratch_.size()) scratch_ = Buffer<uint8_t>(memory, bytes, "search scratch");
}

void PatchScorer::run(ThreadPool& pool, const Product& product, MatrixView<const float> features,
                      const KernelTable& kernels) {
  if (tiles_.tiles() == 1) {
    search_all(pool, product, features, kernels, scores_.data(), rows_.data());
  } else {
    search_all(pool, product, features, kernels, tile_scores_.data(), tile_rows_.data());
    tiles_.merge(tile_scores_.data(), tile_rows_.data(), scores_.data(), rows_.data());
  }
  for (uint32_t& row : rows_) row = product.row_number(row);
  const float* weights = product.position_weights();
  weighed_ = weights != nullptr;
  for (size_t cell = 0; weighed_ && cell < scores_.size(); ++cell) {
    distances_[cell] = scores_[cell];
    scores_[cell] *= weights[cell];
  }
  worst_ = product.mask(scores_.data(), rows_.data(), continued_.data());
  for (size_t cell = 0; cell < scores_.size(); ++cell) {
    if (scores_[cell] > scores_[worst_]) worst_ = cell;
  }
  drawn_ = product.roi().whole() ? scores_.data() : continued_.data();
}

std::vector<uint32_t> PatchScorer::features() const {
  std::vector<uint32_t> found(scores_.size(), UINT32_MAX);
  for (size_t tile = 0; tile < tiles_.tiles(); ++tile) {
    for (size_t patch = 0; patch < tiles_.tile_patches(); ++patch) {
      const auto feature = static_cast<uint32_t>(tile * tiles_.tile_patches() + patch);
      uint32_t& best = found[tiles_.cell(tile, patch)];
      if (best == UINT32_MAX || tile_scores_[feature] < tile_scores_[best]) best = feature;
    }
  }
  return found;
}

// Scores and rows of all features; of those outside the region they are left as they are, to be masked.
void PatchScorer::search_all(ThreadPool& pool, const Product& product, MatrixView<const float> features,
                             const KernelTable& kernels, float* scores, uint32_t* rows) {
  SearchStats stats;
  const Buffer<uint32_t>& searched = product.searched();
  if (searched.size() == 0) {
    search_on(pool, product.index(), features, 1, scores, rows, kernels, scratch_.data(), stats);
    return;
  }
  for (size_t i = 0; i < searched.size(); ++i) {
    std::copy_n(features.row(searched[i]), dims_, gathered_.data() + i * dims_);
  }
  const MatrixView<const float> inside(gathered_.data(), searched.size(), dims_);
  search_on(pool, product.index(), inside, 1, gathered_scores_.data(), gathered_rows_.data(), kernels, scratch_.data(),
            stats);
  for (size_t i = 0; i < searched.size(); ++i) {
    scores[searched[i]] = gathered_scores_[i];
    rows[searched[i]] = gathered_rows_[i];
  }
}

}  // namespace onceover
