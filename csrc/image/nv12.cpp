#include "image/nv12.h"

namespace onceover {
namespace {

constexpr int32_t fixed(double value) { return static_cast<int32_t>(value * (1 << kYuvFraction) + 0.5); }

// ITU-R BT.601 and BT.709 define luma as kr·R + (1 − kr − kb)·G + kb·B; solved for R, G and B. A limited range has
// luma in 16 … 235 and chroma in 16 … 240.
constexpr YuvToRgb coefficients(double kr, double kb, bool limited) {
  const double luma = limited ? 255.0 / 219 : 1, chroma = limited ? 255.0 / 224 : 1, kg = 1 - kr - kb;
  return {limited ? 16 : 0,
          fixed(luma),
          fixed(2 * (1 - kr) * chroma),
          fixed(2 * (1 - kb) * kb / kg * chroma),
          fixed(2 * (1 - kr) * kr / kg * chroma),
          fixed(2 * (1 - kb) * chroma)};
}

constexpr YuvToRgb kCoefficients[] = {coefficients(0.299, 0.114, true), coefficients(0.299, 0.114, false),
                                      coefficients(0.2126, 0.0722, true),
                                      coefficients(0.2126, 0.0722, false)};  // in the order of YuvMatrix

}  // namespace

void nv12_row_to_rgb(const ImageView& image, size_t y, uint8_t* planes, const KernelTable& table) noexcept {
  const uint8_t* luma = image.data + static_cast<ptrdiff_t>(y) * image.stride_bytes;
  const uint8_t* chroma = image.chroma + static_cast<ptrdiff_t>(y / 2) * image.chroma_stride_bytes;
  table.nv12_row(luma, chroma, image.width, kCoefficients[static_cast<uint32_t>(image.matrix)], planes,
                 planes + image.width, planes + 2 * image.width);
}

}  // namespace onceover
