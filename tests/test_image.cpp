// The resize, the normalization and the anomaly map against numbers worked out by hand. Agreement with Pillow, scipy
// and torch is in test_image_core.py.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <new>
#include <vector>

#include "check.h"
#include "image/anomaly_map.h"
#include "image/prepare.h"
#include "kernel_tables.h"

using namespace onceover;

namespace {
size_t allocations = 0;  // of this process through operator new
}

// Not inlined, or the compiler sees malloc without its free and warns.
[[gnu::noinline]] void* operator new(size_t size) {
  ++allocations;
  if (void* pointer = std::malloc(size)) return pointer;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* pointer) noexcept { std::free(pointer); }
[[gnu::noinline]] void operator delete(void* pointer, size_t) noexcept { std::free(pointer); }

namespace {

std::vector<uint8_t> noise(size_t size) {
  std::vector<uint8_t> bytes(size);
  uint32_t state = 1;
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>((state = state * 1664525u + 1013904223u) >> 24);
  return bytes;
}

Preprocessing size_of(uint32_t height, uint32_t width) {
  Preprocessing wanted;
  wanted.height = height;
  wanted.width = width;
  return wanted;
}

ImageView view(const std::vector<uint8_t>& bytes, size_t height, size_t width, PixelFormat format) {
  return {bytes.data(), height, width, static_cast<ptrdiff_t>(width * pixel_bytes(format)), format};
}

std::vector<uint8_t> resize(const ImageView& image, uint32_t height, uint32_t width) {
  Memory memory;
  std::vector<uint8_t> out(size_t{height} * width * 3);
  Preparer(size_of(height, width), memory).resize_u8(image, out.data());
  return out;
}

std::vector<float> prepare(const ImageView& image, const Preprocessing& wanted) {
  Memory memory;
  std::vector<float> out(size_t{wanted.height} * wanted.width * 3);
  Preparer(wanted, memory).run(image, out.data());
  return out;
}

void resize_bilinear(MatrixView<const float> in, MatrixView<float> out) {
  Memory memory;
  MapResize(memory).run(in, out);
}

bool near(double got, double expected, double tolerance) { return std::abs(got - expected) <= tolerance; }

void test_images_that_cannot_be_inspected_are_refused() {
  const std::vector<uint8_t> bytes = noise(64 * 64 * 3);
  ImageView image = view(bytes, 64, 64, PixelFormat::kRgb8);
  check_image(image);  // sound
  const auto refused = [&](auto change, const char* text) {
    ImageView bad = image;
    change(bad);
    CHECK_THROWS(check_image(bad), Status::kInput, text);
  };
  refused([](ImageView& bad) { bad.data = nullptr; }, "no data");
  refused([](ImageView& bad) { bad.height = 7; }, "7 x 64");
  refused([](ImageView& bad) { bad.width = 0; }, "64 x 0");
  refused([](ImageView& bad) { bad.height = 32769; }, "sides of 8 to 32768");
  refused([](ImageView& bad) { bad.height = bad.width = 16384; }, "at most 134217728");
  refused([](ImageView& bad) { bad.stride_bytes = 191; }, "191 bytes apart");
  refused([](ImageView& bad) { bad.stride_bytes = -191; }, "takes 192");
  refused([](ImageView& bad) { bad.format = static_cast<PixelFormat>(99); }, "format 99");
}

void test_preprocessing_that_makes_no_sense_is_refused() {
  Memory memory;
  CHECK_THROWS(Preparer(size_of(0, 8), memory), Status::kUsage, "0 x 8");
  CHECK_THROWS(Preparer(size_of(8, 40000), memory), Status::kUsage, "1 to 32768");
  Preprocessing wanted = size_of(8, 8);
  wanted.std[2] = 0;
  CHECK_THROWS(Preparer(wanted, memory), Status::kUsage, "channel 2");
  wanted.std[2] = 1e-45f;  // positive, but 1 / std is infinite
  CHECK_THROWS(Preparer(wanted, memory), Status::kUsage, "finite network inputs");
  Memory small(heap_allocator(), 1000);
  CHECK_THROWS(Preparer(size_of(8, 8), small), Status::kMemory, "resize");
}

// Half the size: scale 2, support 2. Output 0 is centered at 1: pixel centers ½, 1½, 2½ weigh ¾, ¾, ¼ (sum 1¾); output
// 1 is centered at 3: 1½ … 4½ weigh ¼, ¾, ¾, ¼ (sum 2); the last mirrors the first.
void test_halving_weighs_pixels_as_worked_out_by_hand() {
  std::vector<uint8_t> bytes(8 * 8);
  const int row[8] = {0, 70, 140, 210, 20, 40, 80, 240};
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(row[i % 8]);
  const std::vector<uint8_t> out = resize(view(bytes, 8, 8, PixelFormat::kGray8), 8, 4);
  const double expected[4] = {(0.75 * 0 + 0.75 * 70 + 0.25 * 140) / 1.75, (0.25 * 70 + 0.75 * 140 + 0.75 * 210 + 5) / 2,
                              (0.25 * 210 + 0.75 * 20 + 0.75 * 40 + 0.25 * 80) / 2,
                              (0.25 * 40 + 0.75 * 80 + 0.75 * 240) / 1.75};
  for (size_t i = 0; i < out.size(); ++i) CHECK(out[i] == std::floor(expected[i / 3 % 4] + 0.5));
}

// Twice the size: output 2k + 1 lies ¼ past the center of pixel k, output 2k ¼ before it; the border repeats.
void test_doubling_weighs_pixels_as_worked_out_by_hand() {
  std::vector<uint8_t> bytes(8 * 8);
  for (size_t y = 0; y < 8; ++y) std::fill_n(bytes.begin() + static_cast<ptrdiff_t>(8 * y), 8, uint8_t(y * y * 4));
  const std::vector<uint8_t> out = resize(view(bytes, 8, 8, PixelFormat::kGray8), 16, 8);
  for (size_t y = 0; y < 8; ++y) {
    const double before = y == 0 ? bytes[0] : bytes[8 * (y - 1)], after = y == 7 ? bytes[63] : bytes[8 * (y + 1)];
    CHECK(out[(2 * y) * 24] == std::floor(0.75 * bytes[8 * y] + 0.25 * before + 0.5));
    CHECK(out[(2 * y + 1) * 24] == std::floor(0.75 * bytes[8 * y] + 0.25 * after + 0.5));
  }
}

void test_every_format_is_read_as_rgb_and_the_same_size_changes_nothing() {
  const std::vector<uint8_t> bytes = noise(9 * 11 * 4);
  struct Case {
    PixelFormat format;
    size_t channels, channel[3];
  };
  for (const Case& each : {Case{PixelFormat::kGray8, 1, {0, 0, 0}}, Case{PixelFormat::kRgb8, 3, {0, 1, 2}},
                           Case{PixelFormat::kBgr8, 3, {2, 1, 0}}, Case{PixelFormat::kRgba8, 4, {0, 1, 2}},
                           Case{PixelFormat::kBgra8, 4, {2, 1, 0}}}) {
    const std::vector<uint8_t> out = resize(view(bytes, 9, 11, each.format), 9, 11);
    for (size_t i = 0; i < out.size(); ++i) {
      CHECK(out[i] == bytes[i / 3 * each.channels + each.channel[i % 3]]);
    }
  }
}

void test_normalization_rounds_once_per_operation() {
  const std::vector<uint8_t> bytes = noise(8 * 8 * 3);
  const Preprocessing wanted{8, 8, {0.485f, 0.456f, 0.406f}, {0.229f, 0.224f, 0.225f}};
  const std::vector<float> out = prepare(view(bytes, 8, 8, PixelFormat::kRgb8), wanted);
  for (size_t i = 0; i < out.size(); ++i) {
    const size_t c = i / 64, pixel = i % 64;
    const volatile float scaled = static_cast<float>(bytes[3 * pixel + c]) / 255.0f;
    const volatile float centered = scaled - wanted.mean[c];
    CHECK(out[i] == centered / wanted.std[c]);
  }
}

void test_sixteen_bit_images_stay_real_and_may_lie_at_odd_addresses() {
  const std::vector<uint8_t> bytes = noise(8 * 8 * 8 + 1);
  for (const PixelFormat format : {PixelFormat::kGray16, PixelFormat::kBgr16, PixelFormat::kRgba16}) {
    ImageView image = view(bytes, 8, 8, format);
    ++image.data;
    const std::vector<float> out = prepare(image, size_of(8, 8));
    for (size_t i = 0; i < out.size(); ++i) {
      const size_t c = format == PixelFormat::kGray16 ? 0 : format == PixelFormat::kBgr16 ? 2 - i / 64 : i / 64;
      uint16_t value;
      std::memcpy(&value, image.data + i % 64 * pixel_bytes(format) + 2 * c, 2);
      CHECK(out[i] == static_cast<float>(value) / 65535.0f);
    }
    CHECK_THROWS(resize(image, 8, 8), Status::kInput, "16 bits");
  }
}

void test_a_constant_image_stays_constant_at_any_size() {
  for (const uint8_t level : {0, 1, 127, 254, 255}) {
    const std::vector<uint8_t> bytes(61 * 333, level);
    for (const auto& [height, width] : {std::pair<uint32_t, uint32_t>{8, 8}, {256, 256}, {1, 1}, {61, 20}, {13, 700}}) {
      for (const uint8_t got : resize(view(bytes, 61, 333, PixelFormat::kGray8), height, width)) CHECK(got == level);
    }
  }
}

void test_padded_and_bottom_up_rows_are_followed() {
  const std::vector<uint8_t> bytes = noise(20 * 50);
  ImageView padded{bytes.data(), 20, 30, 50, PixelFormat::kGray8};
  ImageView flipped{bytes.data() + 19 * 50, 20, 30, -50, PixelFormat::kGray8};
  const std::vector<uint8_t> up = resize(padded, 20, 30), down = resize(flipped, 20, 30);
  for (size_t y = 0; y < 20; ++y) {
    for (size_t x = 0; x < 30; ++x) {
      CHECK(up[(y * 30 + x) * 3] == bytes[y * 50 + x]);
      CHECK(down[(y * 30 + x) * 3] == bytes[(19 - y) * 50 + x]);
    }
  }
}

void test_one_preparer_takes_changing_sizes_and_run_allocates_nothing() {
  const std::vector<uint8_t> bytes = noise(300 * 200 * 3);
  const ImageView large = view(bytes, 300, 200, PixelFormat::kRgb8), small = view(bytes, 16, 9, PixelFormat::kGray16);
  const std::vector<float> expected = prepare(large, size_of(32, 40));
  Memory memory;
  Preparer preparer(size_of(32, 40), memory);
  AnomalyMap map(4, 5, 32, 40, 2.0f, memory);
  std::vector<float> out(3 * 32 * 40), resized(50 * 60);
  const size_t used = memory.used_bytes(), before = allocations;
  preparer.run(small, out.data());
  preparer.run(large, out.data());
  map.draw(out.data());
  map.resize_to({resized.data(), 50, 60});
  CHECK(allocations == before);
  CHECK(memory.used_bytes() == used);
  CHECK(out == expected);
}

void test_bilinear_is_half_pixel_and_clamps_at_the_border() {
  const float in[2] = {0, 1};
  float out[4], one[1];
  resize_bilinear({in, 1, 2}, {out, 1, 4});
  CHECK(out[0] == 0 && out[1] == 0.25f && out[2] == 0.75f && out[3] == 1);
  resize_bilinear({in, 2, 1}, {out, 4, 1});
  CHECK(out[0] == 0 && out[1] == 0.25f && out[2] == 0.75f && out[3] == 1);
  resize_bilinear({in, 1, 2}, {one, 1, 1});
  CHECK(one[0] == 0.5f);
}

// Every output is (1 − f)·a + f·b of its two inputs, across and then down, in float32: the same bits.
void test_bilinear_of_any_size_is_the_formula() {
  const std::vector<uint8_t> bytes = noise(50 * 90);
  for (const auto& [rows, columns] : {std::pair<size_t, size_t>{1, 1}, {2, 7}, {5, 17}, {50, 90}}) {
    std::vector<float> in(rows * columns);
    for (size_t i = 0; i < in.size(); ++i) in[i] = 1.0f / (1 + static_cast<float>(bytes[i]));
    for (const auto& [height, width] : {std::pair<size_t, size_t>{1, 1}, {9, 33}, {64, 100}, {71, 2100}, {3, 8200}}) {
      std::vector<float> out(height * width);
      resize_bilinear({in.data(), rows, columns}, {out.data(), height, width});
      const auto at = [](size_t output, size_t inputs, size_t outputs) {
        const double scale = static_cast<double>(inputs) / static_cast<double>(outputs);
        return std::max(0.0, (static_cast<double>(output) + 0.5) * scale - 0.5);
      };
      const auto across = [&](size_t row, double x) {
        const auto low = std::min(static_cast<size_t>(x), columns - 1), high = std::min(low + 1, columns - 1);
        const auto fraction = static_cast<float>(x - static_cast<double>(low));
        return (1 - fraction) * in[row * columns + low] + fraction * in[row * columns + high];
      };
      bool same = true;
      for (size_t i = 0; i < out.size(); ++i) {
        const double x = at(i % width, columns, width), y = at(i / width, rows, height);
        const auto low = std::min(static_cast<size_t>(y), rows - 1), high = std::min(low + 1, rows - 1);
        const auto fraction = static_cast<float>(y - static_cast<double>(low));
        same = same && out[i] == (1 - fraction) * across(low, x) + fraction * across(high, x);
      }
      CHECK(same);
    }
  }
}

// exp(−k²/32) / Σ_{|j| ≤ 16} exp(−j²/32), given to six or seven digits: half a digit and a float32 rounding.
void test_blur_taps_are_those_of_the_formula() {
  Memory memory;
  const MapAxis axis(100, 100, 4.0f, 1, memory);  // as many outputs as inputs: the blur alone
  CHECK(axis.blocks() == 100 && axis.first(50) == 34 && axis.count(50) == 33);
  const float* center = axis.weights(50) + 16;
  CHECK(near(center[0], 0.0997391, 6e-8));
  CHECK(near(center[1], 0.0966705, 6e-8));
  CHECK(near(center[4], 0.0604948, 6e-8));
  CHECK(near(center[16], 3.3459e-5, 5e-10));
  for (size_t k = 1; k <= 16; ++k) CHECK(center[k] == *(center - k));
  CHECK_THROWS(AnomalyMap(4, 4, 8, 8, -1.0f, memory), Status::kUsage, "-1 pixels");
  CHECK_THROWS(AnomalyMap(4, 4, 8, 8, std::nanf(""), memory), Status::kUsage, "nan");
  CHECK_THROWS(AnomalyMap(4, 4, 8, 8, 1e9f, memory), Status::kUsage, "1024");
  CHECK_THROWS(AnomalyMap(4, 4, 0, 8, 1.0f, memory), Status::kUsage, "0 x 8");
  CHECK_THROWS(AnomalyMap(0, 4, 8, 8, 1.0f, memory), Status::kUsage, "0 x 4");
}

// Two inputs, four outputs, bilinear weights of the second input 0, ¼, ¾, 1; taps of sigma ¼ (radius 1): 1 and e^−8,
// over 1 + 2·e^−8. At the edges the repeated sample takes the tap that reaches over it.
void test_an_axis_is_the_product_of_resize_and_blur() {
  Memory memory;
  const MapAxis each(2, 4, 0.25f, 1, memory), together(2, 4, 0.25f, 16, memory);
  const double side = std::exp(-8.0) / (1 + 2 * std::exp(-8.0)), center = 1 - 2 * side;
  const double second[4] = {0.25 * side, 0.25 * center + 0.75 * side, 0.75 * center + side * (0.25 + 1),
                            center + side * (0.75 + 1)};
  CHECK(together.blocks() == 1 && together.first(0) == 0 && together.count(0) == 2);
  for (size_t y = 0; y < 4; ++y) {
    CHECK(each.first(y) == 0 && each.count(y) == 2);
    CHECK(near(each.weights(y)[0], 1 - second[y], 6e-8) && near(each.weights(y)[1], second[y], 6e-8));
    CHECK(together.weights(0)[y] == each.weights(y)[0] && together.weights(0)[16 + y] == each.weights(y)[1]);
  }
  for (size_t lane = 4; lane < 16; ++lane) CHECK(together.weights(0)[lane] == 0 && together.weights(0)[16 + lane] == 0);
}

// Repeating the edge sample keeps the sum of a map, also where the taps reach over it several times.
void test_blur_keeps_the_sum_and_sigma_zero_changes_nothing() {
  for (const auto& [height, width] : {std::pair<size_t, size_t>{1, 1}, {3, 5}, {40, 7}, {70, 130}}) {
    for (const float sigma : {0.0f, 0.1f, 0.7f, 4.0f, 9.0f}) {
      Memory memory;
      MapDrawing blur(height, width, height, width, sigma, memory);
      std::vector<float> map(height * width, 0.0f), blurred(map.size());
      map[height * width / 3] = 1;
      blur.run({map.data(), height, width}, {blurred.data(), height, width});
      double sum = 0;
      for (const float value : blurred) sum += static_cast<double>(value);
      CHECK(near(sum, 1, 1e-5));
      if (sigma < 0.125f) CHECK(blurred == map);  // a radius of 0
      if (sigma > 0.125f && map.size() > 1) CHECK(blurred != map);
    }
  }
}

// Sizes around the widths of registers, and a frame; each table against the plain one.
void test_every_table_prepares_the_same_bits() {
  const std::vector<uint8_t> bytes = noise(250 * 171 * 8);
  for (const PixelFormat format : {PixelFormat::kGray8, PixelFormat::kRgb8, PixelFormat::kBgra8, PixelFormat::kGray16,
                                   PixelFormat::kBgr16, PixelFormat::kRgba16}) {
    for (const auto& [height, width] : {std::pair<size_t, size_t>{8, 8}, {9, 17}, {250, 171}}) {
      for (const auto& [to_height, to_width] : {std::pair<uint32_t, uint32_t>{1, 1}, {31, 33}, {64, 3}}) {
        Preprocessing wanted = size_of(to_height, to_width);
        wanted.mean[1] = 0.4f, wanted.std[2] = 0.3f;
        std::vector<float> expected;
        for (const KernelTable* table : tables_under_test()) {
          Memory memory;
          std::vector<float> got(size_t{3} * to_height * to_width);
          Preparer(wanted, memory, *table).run(view(bytes, height, width, format), got.data());
          if (expected.empty()) expected = got;
          CHECK(std::memcmp(got.data(), expected.data(), got.size() * sizeof(float)) == 0);
        }
      }
    }
  }
}

void test_every_table_draws_the_same_bits() {
  const std::vector<uint8_t> bytes = noise(37 * 29);
  std::vector<float> scores(bytes.size());
  for (size_t i = 0; i < scores.size(); ++i) scores[i] = 1.0f / (1 + static_cast<float>(bytes[i]));
  for (const auto& [height, width] : {std::pair<size_t, size_t>{1, 1}, {5, 130}, {64, 67}, {700, 3}}) {
    for (const float sigma : {0.0f, 0.5f, 4.0f, 30.0f}) {
      std::vector<float> expected, expected_resized;
      for (const KernelTable* table : tables_under_test()) {
        Memory memory;
        AnomalyMap map(37, 29, height, width, sigma, memory, *table);
        const MatrixView<const float> drawn = map.draw(scores.data());
        const std::vector<float> got(drawn.row(0), drawn.row(0) + height * width);
        std::vector<float> resized;  // more columns than a block, as many as inputs, fewer
        for (const auto& [rows, columns] :
             {std::pair<size_t, size_t>{33, 4100}, {height, width}, {29, 20}, {7, 70}, {3, 1}}) {
          resized.resize(resized.size() + rows * columns);
          map.resize_to({resized.data() + resized.size() - rows * columns, rows, columns});
        }
        if (expected.empty()) expected = got, expected_resized = resized;
        CHECK(std::memcmp(got.data(), expected.data(), got.size() * sizeof(float)) == 0);
        CHECK(std::memcmp(resized.data(), expected_resized.data(), resized.size() * sizeof(float)) == 0);
        CHECK(map.maximum() == *std::max_element(got.begin(), got.end()));
      }
    }
  }
}

}  // namespace

int main() {
  test_every_table_prepares_the_same_bits();
  test_every_table_draws_the_same_bits();
  test_images_that_cannot_be_inspected_are_refused();
  test_preprocessing_that_makes_no_sense_is_refused();
  test_halving_weighs_pixels_as_worked_out_by_hand();
  test_doubling_weighs_pixels_as_worked_out_by_hand();
  test_every_format_is_read_as_rgb_and_the_same_size_changes_nothing();
  test_normalization_rounds_once_per_operation();
  test_sixteen_bit_images_stay_real_and_may_lie_at_odd_addresses();
  test_a_constant_image_stays_constant_at_any_size();
  test_padded_and_bottom_up_rows_are_followed();
  test_one_preparer_takes_changing_sizes_and_run_allocates_nothing();
  test_bilinear_is_half_pixel_and_clamps_at_the_border();
  test_bilinear_of_any_size_is_the_formula();
  test_blur_taps_are_those_of_the_formula();
  test_an_axis_is_the_product_of_resize_and_blur();
  test_blur_keeps_the_sum_and_sigma_zero_changes_nothing();
  return check::summary("image");
}
