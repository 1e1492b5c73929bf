// Features of all tiles → patch scores of the image: search a product's memory bank, put the tiles together, weigh
// distances by where they are, leave out what lies outside the region of interest.
#pragma once

#include <memory>
#include <vector>

#include "base/parallel.h"
#include "package/config.h"
#include "session/product.h"

namespace onceover {

class PatchScorer {
 public:
  // For any of the products that `reserve` is told of, once, before the first run. An arena gives nothing back, so
  // every buffer is made in its final size.
  PatchScorer(const Config& config, size_t threads, Memory& memory);
  void reserve(const std::vector<std::unique_ptr<Product>>& products, Memory& memory);
  void reserve_scratch(size_t bytes, Memory& memory);  // of the searches of all threads

  // features (feature_count, embedding_dim) → scores() and rows(), (cell_count) each. Allocates nothing.
  void run(ThreadPool& pool, const Product& product, MatrixView<const float> features, const KernelTable& kernels);

  const Buffer<float>& scores() const { return scores_; }  // 0 outside the region
  // (cell_count): to the nearest rows, not weighed; outside the region they mean nothing.
  const float* distances() const { return weighed_ ? distances_.data() : scores_.data(); }
  const Buffer<uint32_t>& rows() const { return rows_; }  // nearest rows; 0 outside the region
  const float* drawn() const { return drawn_; }           // what the map is drawn from: scores, continued outside
  // (cell_count): of which feature a cell has its score. Allocates.
  std::vector<uint32_t> features() const;
  size_t worst() const { return worst_; }  // the cell with the highest score, the first of equal ones

 private:
  void search_all(ThreadPool& pool, const Product& product, MatrixView<const float> features,
                  const KernelTable& kernels, float* scores, uint32_t* rows);

  TileGrid tiles_;
  size_t dims_, threads_;
  Buffer<uint8_t> scratch_;
  Buffer<float> scores_, continued_;
  Buffer<float> distances_;  // where a product weighs them
  Buffer<uint32_t> rows_;
  Buffer<float> tile_scores_;  // of all features, where there are several tiles
  Buffer<uint32_t> tile_rows_;
  Buffer<float> gathered_, gathered_scores_;  // of the features inside, where there is a region
  Buffer<uint32_t> gathered_rows_;
  const float* drawn_ = nullptr;
  size_t worst_ = 0;
  bool weighed_ = false;  // in the last run
};

}  // namespace onceover
