// Image → network input: the one resize (antialiased triangle filter, half-pixel centers) and the one normalization.
#pragma once

#include "base/memory.h"
#include "image/image_view.h"

namespace onceover {

// Of the network input; mean and std refer to RGB pixels scaled to [0, 1].
struct Preprocessing {
  uint32_t height = 0;
  uint32_t width = 0;
  float mean[3] = {0, 0, 0};
  float std[3] = {1, 1, 1};
};

// Reusable resizer: holds filter tables and two accumulator rows, all allocated in the constructor.
class Preparer {
 public:
  Preparer(const Preprocessing& preprocessing, Memory& memory);

  // image → out (3, height, width) float32, RGB, (resized / 255 − mean) / std. 8-bit images are rounded to uint8
  // after the resize (as Pillow does), 16-bit ones are scaled by 1/65535 and stay real. Gray is replicated, alpha
  // is ignored. Allocates nothing. Throws Error(kInput).
  void run(const ImageView& image, float* out);

  // The resize alone, before normalization: out (height, width, 3) uint8 RGB; 8-bit formats only.
  void resize_u8(const ImageView& image, uint8_t* out);

  const Preprocessing& preprocessing() const noexcept { return preprocessing_; }

 private:
  struct Axis {  // one axis of the separable filter: output i reads input first[i] … first[i] + count[i] − 1
    Buffer<uint32_t> first, count, offset;
    Buffer<float> weight;
    size_t input_size = 0;  // what the tables were computed for
  };
  void plan(Axis& axis, size_t input_size, size_t output_size);
  template <typename Emit>
  void resize(const ImageView& image, Emit&& emit);

  Preprocessing preprocessing_;
  Axis horizontal_, vertical_;
  Buffer<float> rows_;
};

}  // namespace onceover
