// Patch scores (h, w) → anomaly map: bilinear to the input size, Gaussian blur, then bilinear to any size asked for.
#pragma once

#include "base/matrix_view.h"
#include "base/memory.h"
#include "kernels/dispatch.h"

namespace onceover {

// Maps to any size: out (H, W) ← in (h, w), bilinear, half-pixel centers, edges clamped (torch's align_corners=False,
// no antialias); both at least 1 × 1.
class MapResize {
 public:
  explicit MapResize(Memory& memory, const KernelTable& table = kernels());
  void run(MatrixView<const float> in, MatrixView<float> out);  // never allocates

 private:
  // So many columns of `out` at a time: rows of a large frame's map as a whole. No multiple of a page, or the buffers
  // would share the sets of the first cache.
  static constexpr size_t kColumns = 4080;
  const KernelTable& table_;
  Buffer<uint32_t> lows_;  // (kColumns) inputs
  Buffer<float> fractions_,
      lines_;  // (kColumns) on the way to the next input; (2, kColumns) rows of `in`, spread across
};

inline constexpr float kMaxBlurSigma = 1024;  // pixels; bounds the taps

// One axis of the bilinear resize from `inputs` to `outputs` and of the blur that follows, as one matrix: both are
// linear, and their product has few weights in a row, where blurring by itself takes 8 · sigma + 1. In blocks of
// `lanes` outputs, each over the hull of the inputs that its outputs need.
class MapAxis {
 public:
  MapAxis(size_t inputs, size_t outputs, float sigma, size_t lanes, Memory& memory);

  size_t blocks() const noexcept { return firsts_.size(); }
  size_t first(size_t block) const noexcept { return firsts_[block]; }
  size_t count(size_t block) const noexcept { return (starts_[block + 1] - starts_[block]) / lanes_; }
  // (count, lanes); 0 for lanes beyond the last output. Each is rounded once from float64.
  const float* weights(size_t block) const noexcept { return weights_.data() + starts_[block]; }

 private:
  size_t lanes_;
  Buffer<uint32_t> firsts_;
  Buffer<size_t> starts_;  // (blocks + 1) into weights_
  Buffer<float> weights_;
};

// Patch scores (h, w) → (H, W): bilinear as MapResize, then a separable Gaussian, truncated at 4 sigma, edge sample
// repeated (scipy's "reflect"). Every output is at most two sums of count(block) products, each rounded on its own.
class MapDrawing {
 public:
  // Throws Error(kUsage) unless 0 ≤ sigma ≤ kMaxBlurSigma and both sizes are at least 1 × 1.
  MapDrawing(size_t grid_height, size_t grid_width, size_t height, size_t width, float sigma, Memory& memory,
             const KernelTable& table = kernels());
  void run(MatrixView<const float> patch_scores, MatrixView<float> out);  // of those sizes; never allocates

 private:
  const KernelTable& table_;
  size_t line_;  // W, rounded up to whole blocks
  MapAxis across_, down_;
  Buffer<float> lines_;  // (h, line_): the rows of patch scores, drawn across
};

class AnomalyMap {
 public:
  AnomalyMap(size_t grid_height, size_t grid_width, size_t height, size_t width, float sigma, Memory& memory,
             const KernelTable& table = kernels());
  // patch_scores (grid_height · grid_width) → the map at input size, kept inside. Returns it.
  MatrixView<const float> draw(const float* patch_scores);
  MatrixView<const float> map() const;
  float maximum() const;  // of the kept map
  // The kept map at another size.
  void resize_to(MatrixView<float> out);

 private:
  const KernelTable& table_;
  size_t grid_height_, grid_width_, height_, width_;
  Buffer<float> map_;
  MapDrawing drawing_;
  MapResize resize_;
};

}  // namespace onceover
