// Part of portable.inl: camera frames to rows of samples, rows to rows; anomaly maps. Each output is one sum in one
// order, whatever the width of a register.

// One block of samples stays in the first cache while the rows go by, four at a time to spare loads and stores of sum.
template <typename Sample>
ONCEOVER_INLINE float sample_at(const uint8_t* row, size_t i) {
  Sample sample;  // 16-bit rows of a camera may lie at odd addresses
  __builtin_memcpy(&sample, row + i * sizeof(Sample), sizeof(Sample));
  return static_cast<float>(sample);
}

template <typename Sample>
ONCEOVER_INLINE void blend_rows(const uint8_t* first, ptrdiff_t stride_bytes, const float* weights, size_t count,
                                size_t samples, float* sum_row) {
  constexpr size_t kBlock = 2048;
  for (size_t start = 0; start < samples; start += kBlock) {
    const size_t n = samples - start < kBlock ? samples - start : kBlock;
    const auto row = [&](size_t t) {
      return first + static_cast<ptrdiff_t>(t) * stride_bytes + start * sizeof(Sample);
    };
    float* __restrict sum = sum_row + start;
    const uint8_t* __restrict a = row(0);
    for (size_t i = 0; i < n; ++i) sum[i] = weights[0] * sample_at<Sample>(a, i);
    size_t t = 1;
    for (; t + 4 <= count; t += 4) {
      const float w0 = weights[t], w1 = weights[t + 1], w2 = weights[t + 2], w3 = weights[t + 3];
      a = row(t);
      const uint8_t* __restrict b = row(t + 1);
      const uint8_t* __restrict c = row(t + 2);
      const uint8_t* __restrict d = row(t + 3);
      for (size_t i = 0; i < n; ++i) {
        sum[i] =
            (((sum[i] + w0 * sample_at<Sample>(a, i)) + w1 * sample_at<Sample>(b, i)) + w2 * sample_at<Sample>(c, i)) +
            w3 * sample_at<Sample>(d, i);
      }
    }
    for (; t < count; ++t) {
      const float w = weights[t];
      a = row(t);
      for (size_t i = 0; i < n; ++i) sum[i] += w * sample_at<Sample>(a, i);
    }
  }
}

void blend_rows_u8(const uint8_t* first, ptrdiff_t stride_bytes, const float* weights, size_t count, size_t samples,
                   float* sum) {
  blend_rows<uint8_t>(first, stride_bytes, weights, count, samples, sum);
}

void blend_rows_u16(const uint8_t* first, ptrdiff_t stride_bytes, const float* weights, size_t count, size_t samples,
                    float* sum) {
  blend_rows<uint16_t>(first, stride_bytes, weights, count, samples, sum);
}

void add_row_u8(const uint8_t* __restrict row, float weight, size_t samples, float* __restrict sum) {
  for (size_t i = 0; i < samples; ++i) sum[i] += weight * static_cast<float>(row[i]);
}

void filter_pixels_f32(const float* pixels, size_t channels, const ResizeTaps& taps, float* const* planes) {
  const auto pixel = [&](size_t x) {
    const float* weights = taps.weights + taps.offsets[x];
    const float* in = pixels + taps.firsts[x] * channels;
    Four sum = {};
    for (size_t t = 0; t < taps.counts[x]; ++t) sum += load_as<Four>(in + t * channels) * weights[t];
    return sum;
  };
  size_t x = 0;
  for (; x + 4 <= taps.outputs; x += 4) {
    Four sums[4] = {pixel(x), pixel(x + 1), pixel(x + 2), pixel(x + 3)};
    transpose_4x4(sums);
    for (size_t c = 0; c < 4; ++c) store_to(planes[c] + x, sums[c]);
  }
  for (; x < taps.outputs; ++x) {
    const Four sum = pixel(x);
    for (size_t c = 0; c < 4; ++c) planes[c][x] = sum[c];
  }
}

void filter_samples_f32(const float* samples, const ResizeTaps& taps, float* out) {
  for (size_t x = 0; x < taps.outputs; ++x) {
    const float* weights = taps.weights + taps.offsets[x];
    const float* in = samples + taps.firsts[x];
    float sum = 0;
    for (size_t t = 0; t < taps.counts[x]; ++t) sum += weights[t] * in[t];
    out[x] = sum;
  }
}

// Levels a block at a time, so that only the looking up goes one by one.
void look_up_levels_f32(const float* values, const float* table, size_t count, float* out) {
  constexpr size_t kBlock = 64;
  uint8_t levels[kBlock];
  for (size_t start = 0; start < count; start += kBlock) {
    const size_t n = count - start < kBlock ? count - start : kBlock;
    for (size_t i = 0; i < n; ++i) {
      const float half_up = values[start + i] + 0.5f;
      const float from_zero = half_up < 0 ? 0 : half_up;
      levels[i] = static_cast<uint8_t>(static_cast<int32_t>(from_zero > 255 ? 255 : from_zero));
    }
    for (size_t i = 0; i < n; ++i) out[start + i] = table[levels[i]];
  }
}

ONCEOVER_INLINE uint8_t yuv_to_u8(int32_t value) {
  const int32_t rounded = (value + (1 << (kYuvFraction - 1))) >> kYuvFraction;
  const int32_t positive = rounded < 0 ? 0 : rounded;
  return static_cast<uint8_t>(positive > 255 ? 255 : positive);
}

void nv12_row(const uint8_t* __restrict luma, const uint8_t* __restrict chroma, size_t width, const YuvToRgb& by,
              uint8_t* __restrict red, uint8_t* __restrict green, uint8_t* __restrict blue) {
  constexpr size_t kPairs = 256;
  int32_t gray[2 * kPairs], color[3][kPairs];
  for (size_t start = 0; start < width / 2; start += kPairs) {
    const size_t n = width / 2 - start < kPairs ? width / 2 - start : kPairs;
    const uint8_t *y = luma + 2 * start, *uv = chroma + 2 * start;
    for (size_t i = 0; i < 2 * n; ++i) gray[i] = by.luma * (y[i] - by.luma_offset);
    for (size_t i = 0; i < n; ++i) {
      const int32_t u = uv[2 * i] - 128, v = uv[2 * i + 1] - 128;
      color[0][i] = by.v_to_red * v;
      color[1][i] = -by.u_to_green * u - by.v_to_green * v;
      color[2][i] = by.u_to_blue * u;
    }
    uint8_t* const planes[3] = {red + 2 * start, green + 2 * start, blue + 2 * start};
    for (size_t c = 0; c < 3; ++c) {
      uint8_t* __restrict to = planes[c];
      const int32_t* __restrict of_pair = color[c];
      for (size_t i = 0; i < n; ++i) {
        to[2 * i] = yuv_to_u8(gray[2 * i] + of_pair[i]);
        to[2 * i + 1] = yuv_to_u8(gray[2 * i + 1] + of_pair[i]);
      }
    }
  }
}

// kBlend registers of sums from column `x` on.
template <typename Lanes, size_t kBlend>
ONCEOVER_INLINE void blend_columns(const float* lines, size_t stride, const float* weights, size_t count, size_t x,
                                   float* out) {
  constexpr size_t kLanes = sizeof(Lanes) / sizeof(float);
  Lanes sums[kBlend];
  for (size_t b = 0; b < kBlend; ++b) sums[b] = load_as<Lanes>(lines + x + b * kLanes) * weights[0];
  for (size_t t = 1; t < count; ++t) {
    const float* line = lines + t * stride + x;
    for (size_t b = 0; b < kBlend; ++b) sums[b] += load_as<Lanes>(line + b * kLanes) * weights[t];
  }
  for (size_t b = 0; b < kBlend; ++b) store_to(out + x + b * kLanes, sums[b]);
}

void blend_lines_f32(const float* lines, size_t stride, const float* weights, size_t count, size_t columns,
                     float* out) {
  typedef float One __attribute__((vector_size(4)));
  size_t x = 0;
  for (; x + 8 * kWidth <= columns; x += 8 * kWidth) blend_columns<Floats, 8>(lines, stride, weights, count, x, out);
  for (; x + kWidth <= columns; x += kWidth) blend_columns<Floats, 1>(lines, stride, weights, count, x, out);
  for (; x < columns; ++x) blend_columns<One, 1>(lines, stride, weights, count, x, out);
}

void filter_lanes_f32(const float* rows, size_t stride, size_t row_count, const float* weights, size_t count,
                      float* out, size_t out_stride) {
  for (size_t y = 0; y < row_count; ++y) {
    const float* row = rows + y * stride;
    Floats sums[kParts];
    for (size_t p = 0; p < kParts; ++p) sums[p] = load_as<Floats>(weights + p * kWidth) * row[0];
    for (size_t t = 1; t < count; ++t) {
      for (size_t p = 0; p < kParts; ++p) {
        sums[p] += load_as<Floats>(weights + t * kQueryLanes + p * kWidth) * row[t];
      }
    }
    for (size_t p = 0; p < kParts; ++p) store_to(out + y * out_stride + p * kWidth, sums[p]);
  }
}

void mix_columns_f32(const float* row, size_t inputs, const uint32_t* lows, const float* fractions, size_t columns,
                     float* __restrict out) {
  const size_t last = inputs - 1;
  const auto mix = [&](size_t from, size_t to) {
    for (size_t x = from; x < to; ++x) {
      const size_t low = lows[x], high = low < last ? low + 1 : last;
      out[x] = (1 - fractions[x]) * row[low] + fractions[x] * row[high];
    }
  };
  size_t x = 0;
#ifdef ONCEOVER_PICK_LANES  // a register of outputs from registers of inputs, unless those lie further apart
  const size_t last_load = inputs < kWidth ? 0 : inputs - kWidth;
  for (; inputs >= kWidth && x + kWidth <= columns; x += kWidth) {
    const size_t first = lows[x];
    if (lows[x + kWidth - 1] - first >= kWidth) {
      mix(x, x + kWidth);
      continue;
    }
    const size_t low_load = first < last_load ? first : last_load;
    const size_t high_load = first + 1 < last_load ? first + 1 : last_load;
    const Ints low = load_as<Ints>(lows + x), limit = splat(static_cast<int32_t>(last));
    const Ints high = low < limit ? low + 1 : limit;
    const Floats from = ONCEOVER_PICK_LANES(load_as<Floats>(row + low_load), low - static_cast<int32_t>(low_load));
    const Floats to = ONCEOVER_PICK_LANES(load_as<Floats>(row + high_load), high - static_cast<int32_t>(high_load));
    const Floats fraction = load_as<Floats>(fractions + x);
    store_to(out + x, (1 - fraction) * from + fraction * to);
  }
#endif
  mix(x, columns);
}

// Several rows of outputs from one reading of the inputs: the map of a large frame does not fit a cache, and so more
// lines of it are on their way from memory at a time.
template <size_t kRows>
ONCEOVER_INLINE void mix_together(const float* upper, const float* lower, const float* fractions, size_t columns,
                                  float* out, size_t stride) {
  size_t x = 0;
  for (; x + kWidth <= columns; x += kWidth) {
    const Floats above = load_as<Floats>(upper + x), below = load_as<Floats>(lower + x);
    for (size_t y = 0; y < kRows; ++y) {
      store_to(out + y * stride + x, above * (1 - fractions[y]) + below * fractions[y]);
    }
  }
  for (; x < columns; ++x) {
    for (size_t y = 0; y < kRows; ++y) {
      out[y * stride + x] = (1 - fractions[y]) * upper[x] + fractions[y] * lower[x];
    }
  }
}

void mix_rows_f32(const float* upper, const float* lower, const float* fractions, size_t rows, size_t columns,
                  float* out, size_t stride) {
  size_t y = 0;
  for (; y + 8 <= rows; y += 8) mix_together<8>(upper, lower, fractions + y, columns, out + y * stride, stride);
  for (; y + 4 <= rows; y += 4) mix_together<4>(upper, lower, fractions + y, columns, out + y * stride, stride);
  for (; y + 2 <= rows; y += 2) mix_together<2>(upper, lower, fractions + y, columns, out + y * stride, stride);
  for (; y < rows; ++y) mix_together<1>(upper, lower, fractions + y, columns, out + y * stride, stride);
}

float largest_f32(const float* values, size_t count) {
  constexpr float kNone = -__builtin_inff();
  float largest = kNone;
  size_t i = 0;
  if (count >= kWidth) {
    Floats lanes = splat(kNone);
    for (; i + kWidth <= count; i += kWidth) {
      const Floats more = load_as<Floats>(values + i);
      lanes = more > lanes ? more : lanes;
    }
    for (size_t lane = 0; lane < kWidth; ++lane) largest = lanes[lane] > largest ? lanes[lane] : largest;
  }
  for (; i < count; ++i) largest = values[i] > largest ? values[i] : largest;
  return largest;
}
