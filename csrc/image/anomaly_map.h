// Patch scores (h, w) → anomaly map: bilinear to the input size, Gaussian blur, then bilinear to any size asked for.
#pragma once

#include "base/memory.h"
#include "base/matrix_view.h"

namespace onceover {

// out (H, W) ← in (h, w), bilinear, half-pixel centers, edges clamped; never allocates.
void resize_bilinear(MatrixView<const float> in, MatrixView<float> out);

// Separable Gaussian, truncated at 4 sigma, edge sample repeated (scipy's "reflect").
class GaussianBlur {
 public:
  GaussianBlur(float sigma, size_t height, size_t width, Memory& memory);
  void run(MatrixView<float> map);  // in place; sigma 0 is the identity

 private:
  size_t radius_;
  Buffer<float> taps_;
  Buffer<float> scratch_;
};

class AnomalyMap {
 public:
  AnomalyMap(size_t grid_height, size_t grid_width, size_t height, size_t width, float sigma, Memory& memory);
  // patch_scores (grid_height · grid_width) → the map at input size, kept inside. Returns it.
  MatrixView<const float> draw(const float* patch_scores);
  MatrixView<const float> map() const;
  // The kept map at another size.
  void resize_to(MatrixView<float> out) const;

 private:
  size_t grid_height_, grid_width_, height_, width_;
  Buffer<float> map_;
  GaussianBlur blur_;
};

}  // namespace onceover
