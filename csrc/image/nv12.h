// NV12, the frame of most camera interfaces: a plane of luma, and one of chroma that each 2 x 2 pixels share.
#pragma once

#include <cstdint>

#include "image/image_view.h"
#include "kernels/kernel_table.h"

namespace onceover {

// Row y of the frame as three rows of `width` bytes: red, green, blue. Chroma is not interpolated (as in OpenCV and
// most camera pipelines). Whole numbers with 16 fractional bits, rounded half up: the same bits on every machine.
// `image` has passed check_image.
void nv12_row_to_rgb(const ImageView& image, size_t y, uint8_t* planes, const KernelTable& table) noexcept;

}  // namespace onceover
