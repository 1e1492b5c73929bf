// Image → network input: the one resize (antialiased triangle filter, half-pixel centers) and the one normalization.
#pragma once

#include "base/memory.h"
#include "image/image_view.h"
#include "kernels/dispatch.h"

namespace onceover {

// Of the network input; mean and std refer to RGB pixels scaled to [0, 1].
struct Preprocessing {
  uint32_t height = 0;
  uint32_t width = 0;
  float mean[3] = {0, 0, 0};
  float std[3] = {1, 1, 1};
};

// Whether a channel of 0 … 1 has finite network inputs: mean finite, std finite and positive, and neither
// (0 − mean) / std nor (1 − mean) / std, as computed in float32, overflows.
bool is_finite_normalization(float mean, float std) noexcept;

struct PixelLayout;

// Reusable resizer: holds filter tables and one row of each width, all allocated in the constructor (about 1 MiB,
// bounded by kMaxImageSide). Output pixel i weighs input pixel j by max(0, 1 − |j + ½ − c| / s), normalized, with
// c = (i + ½)·scale, scale = input / output and s = max(1, scale): Pillow's BILINEAR, without its rounding between
// the two axes, hence within one gray level of it. Float32, no contraction: the same bits on every machine.
class Preparer {
 public:
  // Throws Error(kUsage) unless 1 ≤ height, width ≤ kMaxImageSide and every channel is_finite_normalization.
  Preparer(const Preprocessing& preprocessing, Memory& memory, const KernelTable& table = kernels());

  // image → out (3, height, width) float32, RGB. 8-bit images are rounded half up to uint8 after the resize (as
  // Pillow does), then (value / 255 − mean) / std in float32, one rounding per operation; 16-bit ones stay real:
  // (value / 65535 − mean) / std. Gray is replicated, alpha is ignored, NV12 becomes RGB
  // before the resize (nv12.h). Allocates nothing. Throws Error(kInput).
  void run(const ImageView& image, float* out);

  // The resize alone, before normalization: out (height, width, 3) uint8 RGB; formats of 8 bits only.
  void resize_u8(const ImageView& image, uint8_t* out);

  const Preprocessing& preprocessing() const noexcept { return preprocessing_; }

 private:
  struct Axis {  // one axis of the separable filter: output i reads input first[i] … first[i] + count[i] − 1
    Buffer<uint32_t> first, count, offset;
    Buffer<float> weight;
    size_t input_size = 0;  // what the tables were computed for
    void allocate(size_t output_size, Memory& memory);
    void plan(size_t new_input_size);  // does nothing when the size did not change
  };
  // Blends the input rows that make output row y into input_row_, and filters that one into output_row_.
  void blend(const ImageView& image, const PixelLayout& layout, size_t y);
  void filter(const ImageView& image, const PixelLayout& layout);
  // Calls emit(y, row) for each output row: row (colors, width) float32, RGB planes, in units of the samples.
  template <typename Emit>
  void resize(const ImageView& image, const PixelLayout& layout, Emit&& emit);
  void run_u8(const ImageView& image, const PixelLayout& layout, float* out);
  void run_u16(const ImageView& image, const PixelLayout& layout, float* out);

  Preprocessing preprocessing_;
  const KernelTable& table_;
  Axis horizontal_, vertical_;
  Buffer<float> input_row_;   // (input width, channels), or planes: input rows already filtered vertically
  Buffer<float> output_row_;  // (4, width): red, green, blue, what is ignored
  Buffer<uint8_t> rgb_row_;   // (3, input width): one row of an NV12 frame
  Buffer<float> normalized_;  // (3, 256): color, 8-bit value → network input
};

}  // namespace onceover
