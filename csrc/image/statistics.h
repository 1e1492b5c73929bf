// Brightness and sharpness of an image: what a lamp that ages and a lens that gets dirty change first.
#pragma once

#include "image/image_view.h"

namespace onceover {

struct ImageStatistics {
  float brightness = 0;  // mean luma (ITU-R BT.601), 0 … 1
  // Standard deviation of the 4-neighbor Laplacian of the luma over its mean, so that a dimmer lamp alone changes
  // nothing (Pech-Pacheco et al. 2000, "Diatom autofocusing in brightfield microscopy": its variance); 0 if black.
  float sharpness = 0;
};

// From at most 128 × 128 places spread evenly over the image, with their neighbors at full resolution: the same cost
// for every image. Allocates nothing. Throws Error(kInput) as check_image.
ImageStatistics measure_image(const ImageView& image);

}  // namespace onceover
