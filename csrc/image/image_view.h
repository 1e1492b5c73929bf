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
  kNv12 = 11,
};

// How YUV was made from RGB: which luma, and whether black and white are 16 and 235 or 0 and 255.
enum class YuvMatrix : uint32_t { kBt601Limited = 0, kBt601Full = 1, kBt709Limited = 2, kBt709Full = 3 };

struct ImageView {
  const uint8_t* data = nullptr;  // first row
  size_t height = 0;
  size_t width = 0;
  ptrdiff_t stride_bytes = 0;  // from one row to the next; negative for bottom-up frames
  PixelFormat format = PixelFormat::kRgb8;
  // Of kNv12, whose luma is `data`: (height / 2, width) bytes, U and V in turn; stride as above.
  const uint8_t* chroma = nullptr;
  ptrdiff_t chroma_stride_bytes = 0;
  YuvMatrix matrix = YuvMatrix::kBt601Limited;
};

// Bytes of one pixel, of kNv12 once it is RGB; throws Error(kInput) for an unknown format.
size_t pixel_bytes(PixelFormat format);

// Throws Error(kInput) unless the view can be inspected: data, 8 ≤ side ≤ kMaxImageSide, pixels ≤ kMaxImagePixels,
// |stride| ≥ one row; for kNv12 also chroma, and even sides.
void check_image(const ImageView& image);

// A part of a view that check_image accepts, in place; it must lie within, and of kNv12 all four must be even.
ImageView cut_out(const ImageView& image, size_t top, size_t left, size_t height, size_t width);

inline constexpr size_t kMinImageSide = 8;           // below this an upsampled image holds no texture at all
inline constexpr size_t kMaxImageSide = 32768;       // bounds the resize tables
inline constexpr size_t kMaxImagePixels = 1u << 27;  // 134 megapixels

}  // namespace onceover
