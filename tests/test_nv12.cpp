// NV12 frames against the equations of the standards in float64, and against the same frame given as RGB.
#include <algorithm>
#include <cmath>
#include <vector>

#include "check.h"
#include "image/nv12.h"
#include "image/prepare.h"
#include "kernel_tables.h"

using namespace onceover;

namespace {

// Row y of the frame, pixel by pixel, from every table alike.
void row_to_rgb(const ImageView& image, size_t y, uint8_t* rgb) {
  std::vector<uint8_t> first;
  for (const KernelTable* table : tables_under_test()) {
    std::vector<uint8_t> planes(3 * image.width);
    nv12_row_to_rgb(image, y, planes.data(), *table);
    if (first.empty()) first = planes;
    CHECK(planes == first);
  }
  for (size_t i = 0; i < first.size(); ++i) rgb[i % image.width * 3 + i / image.width] = first[i];
}

constexpr YuvMatrix kMatrices[] = {YuvMatrix::kBt601Limited, YuvMatrix::kBt601Full, YuvMatrix::kBt709Limited,
                                   YuvMatrix::kBt709Full};

struct Frame {
  size_t height, width, stride;
  std::vector<uint8_t> luma, chroma;
  ImageView view;
};

Frame noise_frame(size_t height, size_t width, YuvMatrix matrix) {
  Frame frame{height,
              width,
              width + 5,
              std::vector<uint8_t>(height * (width + 5)),
              std::vector<uint8_t>(height / 2 * (width + 9)),
              {}};
  uint32_t state = 7;
  const auto next = [&state] { return static_cast<uint8_t>((state = state * 1664525u + 1013904223u) >> 24); };
  std::generate(frame.luma.begin(), frame.luma.end(), next);
  std::generate(frame.chroma.begin(), frame.chroma.end(), next);
  frame.view.data = frame.luma.data();
  frame.view.height = height;
  frame.view.width = width;
  frame.view.stride_bytes = static_cast<ptrdiff_t>(frame.stride);
  frame.view.format = PixelFormat::kNv12;
  frame.view.chroma = frame.chroma.data();
  frame.view.chroma_stride_bytes = static_cast<ptrdiff_t>(width + 9);
  frame.view.matrix = matrix;
  return frame;
}

// RGB → YUV as the standards define it; for what was converted exactly, this leads back.
void yuv_of(const double* rgb, YuvMatrix matrix, double* yuv) {
  const bool bt709 = matrix == YuvMatrix::kBt709Limited || matrix == YuvMatrix::kBt709Full;
  const bool limited = matrix == YuvMatrix::kBt601Limited || matrix == YuvMatrix::kBt709Limited;
  const double kr = bt709 ? 0.2126 : 0.299, kb = bt709 ? 0.0722 : 0.114;
  const double y = kr * rgb[0] + (1 - kr - kb) * rgb[1] + kb * rgb[2];
  const double u = (rgb[2] - y) / (2 * (1 - kb)), v = (rgb[0] - y) / (2 * (1 - kr));
  yuv[0] = limited ? 16 + y * 219 / 255 : y;
  yuv[1] = 128 + u * (limited ? 224.0 / 255 : 1);
  yuv[2] = 128 + v * (limited ? 224.0 / 255 : 1);
}

void test_colors_are_those_of_the_standards() {
  for (const YuvMatrix matrix : kMatrices) {
    const Frame frame = noise_frame(64, 64, matrix);
    std::vector<uint8_t> rgb(3 * frame.width);
    size_t compared = 0;
    for (size_t y = 0; y < frame.height; ++y) {
      row_to_rgb(frame.view, y, rgb.data());
      for (size_t x = 0; x < frame.width; ++x) {
        const uint8_t* pixel = &rgb[3 * x];
        if (*std::min_element(pixel, pixel + 3) == 0 || *std::max_element(pixel, pixel + 3) == 255)
          continue;  // clamped
        const double exact[3] = {double{1} * pixel[0], double{1} * pixel[1], double{1} * pixel[2]};
        double yuv[3];
        yuv_of(exact, matrix, yuv);
        const uint8_t* chroma = &frame.chroma[y / 2 * (frame.width + 9) + x / 2 * 2];
        // Rounding RGB moves each of these by at most half a level (the rows of the matrix sum to at most 1).
        CHECK(std::abs(yuv[0] - frame.luma[y * frame.stride + x]) <= 0.51);
        CHECK(std::abs(yuv[1] - chroma[0]) <= 0.51 && std::abs(yuv[2] - chroma[1]) <= 0.51);
        ++compared;
      }
    }
    CHECK(compared > 300);
  }
}

void test_black_white_and_gray_are_exact() {
  for (const YuvMatrix matrix : kMatrices) {
    const bool limited = matrix == YuvMatrix::kBt601Limited || matrix == YuvMatrix::kBt709Limited;
    Frame frame = noise_frame(8, 8, matrix);
    std::fill(frame.chroma.begin(), frame.chroma.end(), uint8_t{128});
    frame.luma[0] = limited ? 16 : 0;
    frame.luma[1] = limited ? 235 : 255;
    std::vector<uint8_t> rgb(24);
    row_to_rgb(frame.view, 0, rgb.data());
    for (size_t i = 0; i < 3; ++i) CHECK(rgb[i] == 0 && rgb[3 + i] == 255);
  }
}

void test_a_frame_is_prepared_as_the_rgb_image_it_stands_for() {
  for (const auto& [height, width] : {std::pair<uint32_t, uint32_t>{32, 48}, {7, 5}, {96, 128}}) {
    const Frame frame = noise_frame(58, 74, YuvMatrix::kBt709Full);
    std::vector<uint8_t> pixels(3 * frame.height * frame.width);
    for (size_t y = 0; y < frame.height; ++y) row_to_rgb(frame.view, y, &pixels[3 * y * frame.width]);
    const ImageView rgb = {pixels.data(), frame.height, frame.width, static_cast<ptrdiff_t>(3 * frame.width),
                           PixelFormat::kRgb8};
    Preprocessing wanted;
    wanted.height = height, wanted.width = width;
    Memory memory;
    Preparer preparer(wanted, memory);
    std::vector<float> from_rgb(3 * height * width), from_nv12(from_rgb.size(), -1), from_flipped(from_rgb.size(), -1);
    preparer.run(rgb, from_rgb.data());
    preparer.run(frame.view, from_nv12.data());
    CHECK(from_rgb == from_nv12);

    Frame flipped = frame;  // the same rows from the last to the first, read by negative strides
    for (size_t y = 0; y < frame.height; ++y) {
      std::copy_n(&frame.luma[y * frame.stride], frame.width, &flipped.luma[(frame.height - 1 - y) * frame.stride]);
    }
    const size_t chroma_stride = frame.width + 9, chroma_rows = frame.height / 2;
    for (size_t y = 0; y < chroma_rows; ++y) {
      std::copy_n(&frame.chroma[y * chroma_stride], frame.width,
                  &flipped.chroma[(chroma_rows - 1 - y) * chroma_stride]);
    }
    flipped.view.data = &flipped.luma[(frame.height - 1) * frame.stride];
    flipped.view.stride_bytes = -frame.view.stride_bytes;
    flipped.view.chroma = &flipped.chroma[(chroma_rows - 1) * chroma_stride];
    flipped.view.chroma_stride_bytes = -frame.view.chroma_stride_bytes;
    preparer.run(flipped.view, from_flipped.data());
    CHECK(from_rgb == from_flipped);
  }
}

void test_frames_that_cannot_be_read_are_refused() {
  const Frame frame = noise_frame(16, 16, YuvMatrix::kBt601Full);
  ImageView view = frame.view;
  view.chroma = nullptr;
  CHECK_THROWS(check_image(view), Status::kInput, "no chroma plane");
  view = frame.view, view.height = 15;
  CHECK_THROWS(check_image(view), Status::kInput, "even sides");
  view = frame.view, view.width = 15;
  CHECK_THROWS(check_image(view), Status::kInput, "even sides");
  view = frame.view, view.chroma_stride_bytes = -15;
  CHECK_THROWS(check_image(view), Status::kInput, "chroma rows are -15 bytes apart");
  view = frame.view, view.stride_bytes = 15;
  CHECK_THROWS(check_image(view), Status::kInput, "image rows are 15 bytes apart");
  view = frame.view, view.matrix = static_cast<YuvMatrix>(4);
  CHECK_THROWS(check_image(view), Status::kInput, "color matrix 4");
}

}  // namespace

int main() {
  test_colors_are_those_of_the_standards();
  test_black_white_and_gray_are_exact();
  test_a_frame_is_prepared_as_the_rgb_image_it_stands_for();
  test_frames_that_cannot_be_read_are_refused();
  return check::summary("nv12");
}
