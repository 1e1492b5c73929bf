// Two passes per output row: input rows are blended vertically into one row (long, vectorized loops over raw samples),
// and that row is filtered horizontally. Nothing but the two rows and the tables is kept.
#include "image/prepare.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "image/nv12.h"

namespace onceover {

struct PixelLayout {  // of one pixel
  size_t channels;
  size_t sample_bytes;
  size_t colors;      // 1 gray, 3 color
  size_t channel[3];  // where red, green and blue lie
  bool planar;        // once it is RGB: three rows, one after the other
};

namespace {

constexpr size_t kMaxChannels = 4;

PixelLayout layout_of(PixelFormat format) {
  switch (format) {
    case PixelFormat::kGray8:
      return {1, 1, 1, {0, 0, 0}, false};
    case PixelFormat::kNv12:
      return {3, 1, 3, {0, 1, 2}, true};
    case PixelFormat::kRgb8:
      return {3, 1, 3, {0, 1, 2}, false};
    case PixelFormat::kBgr8:
      return {3, 1, 3, {2, 1, 0}, false};
    case PixelFormat::kRgba8:
      return {4, 1, 3, {0, 1, 2}, false};
    case PixelFormat::kBgra8:
      return {4, 1, 3, {2, 1, 0}, false};
    case PixelFormat::kGray16:
      return {1, 2, 1, {0, 0, 0}, false};
    case PixelFormat::kRgb16:
      return {3, 2, 3, {0, 1, 2}, false};
    case PixelFormat::kBgr16:
      return {3, 2, 3, {2, 1, 0}, false};
    case PixelFormat::kRgba16:
      return {4, 2, 3, {0, 1, 2}, false};
    case PixelFormat::kBgra16:
      return {4, 2, 3, {2, 1, 0}, false};
  }
  fail(Status::kInput, "pixel format %u does not exist; see onceover.h for the known ones",
       static_cast<unsigned>(format));
}

// Half up; a resized value is within [0, 255] but for rounding, and the clamp makes that no assumption.
uint8_t round_u8(float value) { return static_cast<uint8_t>(std::clamp(value + 0.5f, 0.0f, 255.0f)); }

void check_preprocessing(const Preprocessing& wanted) {
  if (wanted.height < 1 || wanted.width < 1 || wanted.height > kMaxImageSide || wanted.width > kMaxImageSide) {
    fail(Status::kUsage, "network input is %u x %u (height x width); expected sides of 1 to %zu", wanted.height,
         wanted.width, kMaxImageSide);
  }
  for (size_t c = 0; c < 3; ++c) {
    if (!is_finite_normalization(wanted.mean[c], wanted.std[c])) {
      fail(Status::kUsage,
           "normalization of channel %zu is mean %g, std %g; expected finite values, std > 0 and finite network inputs",
           c, static_cast<double>(wanted.mean[c]), static_cast<double>(wanted.std[c]));
    }
  }
}

}  // namespace

bool is_finite_normalization(float mean, float std) noexcept {
  return std::isfinite(mean) && std::isfinite(std) && std > 0 && std::isfinite((0.0f - mean) / std) &&
         std::isfinite((1.0f - mean) / std);
}

size_t pixel_bytes(PixelFormat format) {
  const PixelLayout layout = layout_of(format);
  return layout.channels * layout.sample_bytes;
}

namespace {

void check_stride(const char* what, ptrdiff_t stride_bytes, size_t width, size_t pixel) {
  const auto row_bytes = static_cast<ptrdiff_t>(width * pixel);
  if (stride_bytes < row_bytes && stride_bytes > -row_bytes) {
    fail(Status::kInput, "%s rows are %td bytes apart, but a row of %zu pixels takes %td", what, stride_bytes, width,
         row_bytes);
  }
}

void check_nv12(const ImageView& image) {
  if (image.chroma == nullptr) fail(Status::kInput, "NV12 image has no chroma plane (null pointer)");
  if (image.height % 2 != 0 || image.width % 2 != 0) {
    fail(Status::kInput, "NV12 image is %zu x %zu pixels (height x width); expected even sides", image.height,
         image.width);
  }
  if (image.matrix > YuvMatrix::kBt709Full) {
    fail(Status::kInput, "NV12 image has color matrix %u; expected 0 to 3", static_cast<unsigned>(image.matrix));
  }
  check_stride("chroma", image.chroma_stride_bytes, image.width, 1);
}

}  // namespace

void check_image(const ImageView& image) {
  const bool nv12 = image.format == PixelFormat::kNv12;
  const size_t pixel = nv12 ? 1 : pixel_bytes(image.format);
  if (image.data == nullptr) fail(Status::kInput, "image has no data (null pointer)");
  if (std::min(image.height, image.width) < kMinImageSide || std::max(image.height, image.width) > kMaxImageSide) {
    fail(Status::kInput, "image is %zu x %zu pixels (height x width); expected sides of %zu to %zu", image.height,
         image.width, kMinImageSide, kMaxImageSide);
  }
  if (image.height * image.width > kMaxImagePixels) {
    fail(Status::kInput, "image is %zu x %zu pixels, %zu in all; at most %zu are accepted: crop it or scale it down",
         image.height, image.width, image.height * image.width, kMaxImagePixels);
  }
  check_stride("image", image.stride_bytes, image.width, pixel);
  if (nv12) check_nv12(image);
}

ImageView cut_out(const ImageView& image, size_t top, size_t left, size_t height, size_t width) {
  const bool nv12 = image.format == PixelFormat::kNv12;
  ImageView part = image;
  part.data += static_cast<ptrdiff_t>(top) * image.stride_bytes +
               static_cast<ptrdiff_t>(left * (nv12 ? 1 : pixel_bytes(image.format)));
  if (nv12) {  // a pair of bytes for a pair of columns
    part.chroma += static_cast<ptrdiff_t>(top / 2) * image.chroma_stride_bytes + static_cast<ptrdiff_t>(left);
  }
  part.height = height;
  part.width = width;
  return part;
}

void Preparer::Axis::allocate(size_t output_size, Memory& memory) {
  first = Buffer<uint32_t>(memory, output_size, "resize table");
  count = Buffer<uint32_t>(memory, output_size, "resize table");
  offset = Buffer<uint32_t>(memory, output_size, "resize table");
  // An open interval of length 2·max(1, scale) holds at most 2·max(1, scale) + 1 pixel centers.
  weight = Buffer<float>(memory, 2 * std::max(kMaxImageSide, output_size) + output_size, "resize weights");
}

void Preparer::Axis::plan(size_t new_input_size) {
  if (new_input_size == input_size) return;
  const double scale = static_cast<double>(new_input_size) / static_cast<double>(first.size());
  const double support = std::max(1.0, scale);
  const auto last_input = static_cast<double>(new_input_size - 1);
  uint32_t used = 0;
  for (size_t i = 0; i < first.size(); ++i) {
    const double center = (static_cast<double>(i) + 0.5) * scale;
    const auto from = static_cast<uint32_t>(std::clamp(std::floor(center - support), 0.0, last_input));
    const auto to = static_cast<uint32_t>(std::clamp(std::ceil(center + support), 0.0, last_input));
    const auto triangle = [&](uint32_t j) { return 1.0 - std::abs(j + 0.5 - center) / support; };
    double sum = 0;
    offset[i] = used;
    count[i] = 0;
    for (uint32_t j = from; j <= to; ++j) {
      if (triangle(j) <= 0) continue;
      if (count[i]++ == 0) first[i] = j;
      sum += triangle(j);
    }
    for (uint32_t k = 0; k < count[i]; ++k) weight[used++] = static_cast<float>(triangle(first[i] + k) / sum);
  }
  input_size = new_input_size;
}

Preparer::Preparer(const Preprocessing& preprocessing, Memory& memory, const KernelTable& table)
    : preprocessing_(preprocessing), table_(table) {
  check_preprocessing(preprocessing);
  vertical_.allocate(preprocessing.height, memory);
  horizontal_.allocate(preprocessing.width, memory);
  input_row_ = Buffer<float>(memory, kMaxImageSide * kMaxChannels, "resize input row");
  output_row_ = Buffer<float>(memory, kMaxChannels * preprocessing.width, "resize output row");
  rgb_row_ = Buffer<uint8_t>(memory, kMaxImageSide * 3, "NV12 row");
  normalized_ = Buffer<float>(memory, size_t{3} * 256, "normalization table");
  for (size_t c = 0; c < 3; ++c) {
    for (size_t value = 0; value < 256; ++value) {
      normalized_[c * 256 + value] =
          (static_cast<float>(value) / 255.0f - preprocessing.mean[c]) / preprocessing.std[c];
    }
  }
}

void Preparer::blend(const ImageView& image, const PixelLayout& layout, size_t y) {
  const size_t first = vertical_.first[y], count = vertical_.count[y];
  const float* weight = &vertical_.weight[vertical_.offset[y]];
  const size_t samples = image.width * layout.channels;
  if (layout.planar) {
    std::fill_n(input_row_.data(), samples, 0.0f);
    for (size_t i = 0; i < count; ++i) {
      nv12_row_to_rgb(image, first + i, rgb_row_.data(), table_);
      table_.add_row_u8(rgb_row_.data(), weight[i], samples, input_row_.data());
    }
    return;
  }
  const auto blend_rows = layout.sample_bytes == 1 ? table_.blend_rows_u8 : table_.blend_rows_u16;
  const uint8_t* first_row = image.data + static_cast<ptrdiff_t>(first) * image.stride_bytes;
  blend_rows(first_row, image.stride_bytes, weight, count, samples, input_row_.data());
}

void Preparer::filter(const ImageView& image, const PixelLayout& layout) {
  const ResizeTaps taps = {horizontal_.first.data(), horizontal_.count.data(), horizontal_.offset.data(),
                           horizontal_.weight.data(), preprocessing_.width};
  float* out = output_row_.data();
  if (layout.colors == 1 || layout.planar) {
    for (size_t c = 0; c < layout.colors; ++c) {
      table_.filter_samples_f32(input_row_.data() + c * image.width, taps, out + c * taps.outputs);
    }
    return;
  }
  float* planes[kMaxChannels];
  planes[kMaxChannels - 1] = out + 3 * taps.outputs;  // alpha, or nothing
  for (size_t c = 0; c < 3; ++c) planes[layout.channel[c]] = out + c * taps.outputs;
  table_.filter_pixels_f32(input_row_.data(), layout.channels, taps, planes);
}

template <typename Emit>
void Preparer::resize(const ImageView& image, const PixelLayout& layout, Emit&& emit) {
  vertical_.plan(image.height);
  horizontal_.plan(image.width);
  for (size_t y = 0; y < preprocessing_.height; ++y) {
    blend(image, layout, y);
    filter(image, layout);
    emit(y, output_row_.data());
  }
}

void Preparer::run_u8(const ImageView& image, const PixelLayout& layout, float* out) {
  const size_t width = preprocessing_.width;
  const size_t plane = width * preprocessing_.height;
  const size_t color_stride = layout.colors == 1 ? 0 : width;  // gray: one row feeds all planes
  resize(image, layout, [&](size_t y, const float* row) {
    for (size_t c = 0; c < 3; ++c) {
      table_.look_up_levels_f32(row + c * color_stride, &normalized_[c * 256], width, out + c * plane + y * width);
    }
  });
}

void Preparer::run_u16(const ImageView& image, const PixelLayout& layout, float* out) {
  const size_t width = preprocessing_.width;
  const size_t plane = width * preprocessing_.height;
  const size_t color_stride = layout.colors == 1 ? 0 : width;
  resize(image, layout, [&](size_t y, const float* row) {
    for (size_t c = 0; c < 3; ++c) {
      const float mean = preprocessing_.mean[c], std = preprocessing_.std[c];
      float* to = out + c * plane + y * width;
      for (size_t x = 0; x < width; ++x) to[x] = (row[c * color_stride + x] / 65535.0f - mean) / std;
    }
  });
}

void Preparer::run(const ImageView& image, float* out) {
  check_image(image);
  const PixelLayout layout = layout_of(image.format);
  if (layout.sample_bytes == 1) {
    run_u8(image, layout, out);
  } else {
    run_u16(image, layout, out);
  }
}

void Preparer::resize_u8(const ImageView& image, uint8_t* out) {
  check_image(image);
  const PixelLayout layout = layout_of(image.format);
  if (layout.sample_bytes != 1) {
    fail(Status::kInput, "image has 16 bits per sample; resize to uint8 takes 8-bit images (prepare takes both)");
  }
  const size_t width = preprocessing_.width;
  const size_t color_stride = layout.colors == 1 ? 0 : width;
  resize(image, layout, [&](size_t y, const float* row) {
    for (size_t x = 0; x < width; ++x) {
      for (size_t c = 0; c < 3; ++c) out[(y * width + x) * 3 + c] = round_u8(row[c * color_stride + x]);
    }
  });
}

}  // namespace onceover
