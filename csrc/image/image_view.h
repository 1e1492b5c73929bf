// An image somebody else owns: a decoded file or a camera frame.
#pragma once

#include <cstddef>
#include <cstdint>

namespace onceover {

enum class PixelFormat : uint32_t {
  kGray8 = 1,
  kRgb8 = 2,
  kBgr8 = 3,
  kRgba8 = 4,
  kBgra8 = 5,
  kGray16 = 6,
  kRgb16 = 7,
  kBgr16 = 8,
  kRgba16 = 9,
  kBgra16 = 10,
};

struct ImageView {
  const uint8_t* data = nullptr;  // first row
  size_t height = 0;
  size_t width = 0;
  ptrdiff_t stride_bytes = 0;  // from one row to the next; negative for bottom-up frames
  PixelFormat format = PixelFormat::kRgb8;
};

// Bytes of one pixel; throws Error(kInput) for an unknown format.
size_t pixel_bytes(PixelFormat format);

// Throws Error(kInput) unless the view can be inspected: data, 8 ≤ side ≤ kMaxImageSide, pixels ≤ kMaxImagePixels,
// |stride| ≥ one row.
void check_image(const ImageView& image);

inline constexpr size_t kMinImageSide = 8;           // below this an upsampled image holds no texture at all
inline constexpr size_t kMaxImageSide = 32768;       // bounds the resize tables
inline constexpr size_t kMaxImagePixels = 1u << 27;  // 134 megapixels

}  // namespace onceover
