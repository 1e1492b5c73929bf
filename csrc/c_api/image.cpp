#include "c_api/image.h"

#include <cstddef>

#include "c_api/guard.h"

namespace onceover {

template <>
inline constexpr size_t kFirstSize<onceover_image> = offsetof(onceover_image, roi_width) + sizeof(uint32_t);

static_assert(ONCEOVER_GRAY8 == static_cast<int>(PixelFormat::kGray8) &&
              ONCEOVER_RGB8 == static_cast<int>(PixelFormat::kRgb8) &&
              ONCEOVER_BGR8 == static_cast<int>(PixelFormat::kBgr8) &&
              ONCEOVER_RGBA8 == static_cast<int>(PixelFormat::kRgba8) &&
              ONCEOVER_BGRA8 == static_cast<int>(PixelFormat::kBgra8) &&
              ONCEOVER_GRAY16 == static_cast<int>(PixelFormat::kGray16) &&
              ONCEOVER_RGB16 == static_cast<int>(PixelFormat::kRgb16) &&
              ONCEOVER_BGR16 == static_cast<int>(PixelFormat::kBgr16) &&
              ONCEOVER_RGBA16 == static_cast<int>(PixelFormat::kRgba16) &&
              ONCEOVER_BGRA16 == static_cast<int>(PixelFormat::kBgra16) &&
              ONCEOVER_NV12 == static_cast<int>(PixelFormat::kNv12));
static_assert(ONCEOVER_BT601_LIMITED == static_cast<int>(YuvMatrix::kBt601Limited) &&
              ONCEOVER_BT601_FULL == static_cast<int>(YuvMatrix::kBt601Full) &&
              ONCEOVER_BT709_LIMITED == static_cast<int>(YuvMatrix::kBt709Limited) &&
              ONCEOVER_BT709_FULL == static_cast<int>(YuvMatrix::kBt709Full));

namespace {

void check_roi(const onceover_image& image) {
  const bool inside = uint64_t{image.roi_top} + image.roi_height <= image.height &&
                      uint64_t{image.roi_left} + image.roi_width <= image.width;
  if (!inside || image.roi_height == 0 || image.roi_width == 0) {
    fail(Status::kInput,
         "ROI of %u x %u pixels (height x width) at row %u, column %u does not lie within the image of %u x %u",
         image.roi_height, image.roi_width, image.roi_top, image.roi_left, image.height, image.width);
  }
  const bool odd = (image.roi_top | image.roi_left | image.roi_height | image.roi_width) % 2 != 0;
  if (image.format == ONCEOVER_NV12 && odd) {
    fail(Status::kInput, "ROI of %u x %u pixels at row %u, column %u; of NV12 all four must be even", image.roi_height,
         image.roi_width, image.roi_top, image.roi_left);
  }
}

}  // namespace

ImageView view_image(const onceover_image& given) {
  const onceover_image image = read_struct(&given, "image");
  ImageView view;
  view.data = static_cast<const uint8_t*>(image.data);
  view.height = image.height;
  view.width = image.width;
  view.stride_bytes = image.stride_bytes;
  view.format = static_cast<PixelFormat>(image.format);
  view.chroma = static_cast<const uint8_t*>(image.chroma);
  view.chroma_stride_bytes = image.chroma_stride_bytes;
  view.matrix = static_cast<YuvMatrix>(image.yuv_matrix);
  check_image(view);
  if ((image.roi_top | image.roi_left | image.roi_height | image.roi_width) == 0) return view;
  check_roi(image);
  return cut_out(view, image.roi_top, image.roi_left, image.roi_height, image.roi_width);
}

}  // namespace onceover
