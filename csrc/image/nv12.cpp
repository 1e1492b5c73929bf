#include "image/nv12.h"

#include <algorithm>

namespace onceover {
namespace {

constexpr int kFraction = 16;

struct YuvCoefficients {  // with kFraction fractional bits; |sum| < 2^16 · (1.17 · 255 + 2.2 · 128) < 2^31
  int32_t luma_offset, luma, v_to_red, u_to_green, v_to_green, u_to_blue;
};

constexpr int32_t fixed(double value) { return static_cast<int32_t>(value * (1 << kFraction) + 0.5); }

// ITU-R BT.601 and BT.709 define luma as kr·R + (1 − kr − kb)·G + kb·B; solved for R, G and B. A limited range has
// luma in 16 … 235 and chroma in 16 … 240.
constexpr YuvCoefficients coefficients(double kr, double kb, bool limited) {
  const double luma = limited ? 255.0 / 219 : 1, chroma = limited ? 255.0 / 224 : 1, kg = 1 - kr - kb;
  return {limited ? 16 : 0,
          fixed(luma),
          fixed(2 * (1 - kr) * chroma),
          fixed(2 * (1 - kb) * kb / kg * chroma),
          fixed(2 * (1 - kr) * kr / kg * chroma),
          fixed(2 * (1 - kb) * chroma)};
}

constexpr YuvCoefficients kCoefficients[] = {coefficients(0.299, 0.114, true), coefficients(0.299, 0.114, false),
                                             coefficients(0.2126, 0.0722, true),
                                             coefficients(0.2126, 0.0722, false)};  // in the order of YuvMatrix

uint8_t to_u8(int32_t value) {
  return static_cast<uint8_t>(std::clamp((value + (1 << (kFraction - 1))) >> kFraction, 0, 255));
}

}  // namespace

void nv12_row_to_rgb(const ImageView& image, size_t y, uint8_t* rgb) noexcept {
  const YuvCoefficients& by = kCoefficients[static_cast<uint32_t>(image.matrix)];
  const uint8_t* luma = image.data + static_cast<ptrdiff_t>(y) * image.stride_bytes;
  const uint8_t* chroma = image.chroma + static_cast<ptrdiff_t>(y / 2) * image.chroma_stride_bytes;
  for (size_t x = 0; x < image.width; x += 2) {
    const int32_t u = chroma[x] - 128, v = chroma[x + 1] - 128;
    const int32_t red = by.v_to_red * v, green = -by.u_to_green * u - by.v_to_green * v, blue = by.u_to_blue * u;
    for (size_t i = x; i < x + 2; ++i) {
      const int32_t gray = by.luma * (luma[i] - by.luma_offset);
      rgb[3 * i] = to_u8(gray + red);
      rgb[3 * i + 1] = to_u8(gray + green);
      rgb[3 * i + 2] = to_u8(gray + blue);
    }
  }
}

}  // namespace onceover
