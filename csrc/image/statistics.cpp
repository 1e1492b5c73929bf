#include "image/statistics.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace onceover {
namespace {

constexpr size_t kPlaces = 128;  // per axis

// Luma of BT.601 in units of samples; exact sums of integers, so the same bits everywhere.
template <typename Sample, size_t kChannels, bool kBlueFirst>
struct Luma {
  static uint32_t at(const uint8_t* row, size_t x) noexcept {
    Sample pixel[kChannels];
    std::memcpy(pixel, row + x * sizeof pixel, sizeof pixel);  // frames need not be aligned
    if constexpr (kChannels == 1) return 1000u * pixel[0];
    const uint32_t red = pixel[kBlueFirst ? 2 : 0], green = pixel[1], blue = pixel[kBlueFirst ? 0 : 2];
    return 299u * red + 587u * green + 114u * blue;
  }
};

// Place i of `places`, inside [1, size − 2] so that it has neighbors.
size_t place(size_t i, size_t places, size_t size) noexcept { return 1 + (2 * i + 1) * (size - 2) / (2 * places); }

template <typename Pixel>
ImageStatistics measure(const ImageView& image, double black, double white) noexcept {
  const size_t rows = std::min(image.height - 2, kPlaces), columns = std::min(image.width - 2, kPlaces);
  uint64_t sum = 0;
  double squares = 0;
  int64_t edges = 0;
  for (size_t i = 0; i < rows; ++i) {
    const size_t y = place(i, rows, image.height);
    const uint8_t* row = image.data + static_cast<ptrdiff_t>(y) * image.stride_bytes;
    const uint8_t *above = row - image.stride_bytes, *below = row + image.stride_bytes;
    for (size_t j = 0; j < columns; ++j) {
      const size_t x = place(j, columns, image.width);
      const int64_t luma = Pixel::at(row, x);
      const int64_t around =
          int64_t{Pixel::at(row, x - 1)} + Pixel::at(row, x + 1) + Pixel::at(above, x) + Pixel::at(below, x);
      const int64_t edge = 4 * luma - around;
      sum += static_cast<uint64_t>(luma);
      edges += edge;
      squares += static_cast<double>(edge) * static_cast<double>(edge);
    }
  }
  const auto count = static_cast<double>(rows * columns);
  const double mean = static_cast<double>(sum) / count - 1000 * black, mean_edge = static_cast<double>(edges) / count;
  const double deviation = std::sqrt(std::max(0.0, squares / count - mean_edge * mean_edge));
  ImageStatistics told;
  told.brightness = static_cast<float>(std::clamp(mean / (1000 * (white - black)), 0.0, 1.0));
  told.sharpness = mean > 0 ? static_cast<float>(deviation / mean) : 0;
  return told;
}

}  // namespace

ImageStatistics measure_image(const ImageView& image) {
  check_image(image);
  switch (image.format) {
    case PixelFormat::kGray8:
      return measure<Luma<uint8_t, 1, false>>(image, 0, 255);
    case PixelFormat::kRgb8:
      return measure<Luma<uint8_t, 3, false>>(image, 0, 255);
    case PixelFormat::kBgr8:
      return measure<Luma<uint8_t, 3, true>>(image, 0, 255);
    case PixelFormat::kRgba8:
      return measure<Luma<uint8_t, 4, false>>(image, 0, 255);
    case PixelFormat::kBgra8:
      return measure<Luma<uint8_t, 4, true>>(image, 0, 255);
    case PixelFormat::kGray16:
      return measure<Luma<uint16_t, 1, false>>(image, 0, 65535);
    case PixelFormat::kRgb16:
      return measure<Luma<uint16_t, 3, false>>(image, 0, 65535);
    case PixelFormat::kBgr16:
      return measure<Luma<uint16_t, 3, true>>(image, 0, 65535);
    case PixelFormat::kRgba16:
      return measure<Luma<uint16_t, 4, false>>(image, 0, 65535);
    case PixelFormat::kBgra16:
      return measure<Luma<uint16_t, 4, true>>(image, 0, 65535);
    case PixelFormat::kNv12:
      break;  // its first plane is the luma
  }
  const bool is_limited = image.matrix == YuvMatrix::kBt601Limited || image.matrix == YuvMatrix::kBt709Limited;
  return is_limited ? measure<Luma<uint8_t, 1, false>>(image, 16, 235)
                    : measure<Luma<uint8_t, 1, false>>(image, 0, 255);
}

}  // namespace onceover
