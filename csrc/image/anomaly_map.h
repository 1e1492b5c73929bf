// Patch scores (h, w) → anomaly map: bilinear to the input size, Gaussian blur, then bilinear to any size asked for.
#pragma once

#include "base/matrix_view.h"
#include "base/memory.h"
#include "kernels/dispatch.h"

namespace onceover {

// out (H, W) ← in (h, w), bilinear, half-pixel centers, edges clamped (torch's align_corners=False, no antialias);
// both at least 1 × 1; never allocates.
void resize_bilinear(MatrixView<const float> in, MatrixView<float> out, const KernelTable& table = kernels());

inline constexpr float kMaxBlurSigma = 1024;  // pixels; bounds the taps

// Separable Gaussian, truncated at 4 sigma, edge sample repeated (scipy's "reflect").
class GaussianBlur {
 public:
  // Throws Error(kUsage) unless 0 ≤ sigma ≤ kMaxBlurSigma and the size is at least 1 × 1.
  GaussianBlur(float sigma, size_t height, size_t width, Memory& memory, const KernelTable& table = kernels());
  void run(MatrixView<float> map);  // in place, of the size given above; sigma 0 is the identity
  size_t radius() const noexcept { return radius_; }
  const Buffer<float>& taps() const noexcept { return taps_; }  // of one side: center first, radius + 1 of them

 private:
  size_t radius_;  // int(4·sigma + 0.5), as scipy
  Buffer<float> taps_;
  Buffer<float> scratch_;       // (H, W), then one row padded by radius on both sides
  Buffer<const float*> lines_;  // (2 · radius + 1) what a blur reads
  const KernelTable& table_;
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
  void resize_to(MatrixView<float> out) const;

 private:
  const KernelTable& table_;
  size_t grid_height_, grid_width_, height_, width_;
  Buffer<float> map_;
  GaussianBlur blur_;
};

}  // namespace onceover
