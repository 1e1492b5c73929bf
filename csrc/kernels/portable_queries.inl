// Part of portable.inl: from a float query to codes in lanes.

uint32_t center_f32(const float* query, const float* mean, size_t dims, float* x) {
  Ints largest[kParts] = {};
  size_t i = 0;
  for (; i + kQueryLanes <= dims; i += kQueryLanes) {
    for (size_t p = 0; p < kParts; ++p) {
      const Floats value = load_as<Floats>(query + i + p * kWidth) - load_as<Floats>(mean + i + p * kWidth);
      store_to(x + i + p * kWidth, value);
      const Ints magnitude = bits_of(value) & 0x7fffffff;
      largest[p] = magnitude > largest[p] ? magnitude : largest[p];
    }
  }
  int32_t lanes[kQueryLanes];
  __builtin_memcpy(lanes, largest, sizeof lanes);
  for (; i < dims; ++i) {
    x[i] = query[i] - mean[i];
    int32_t magnitude;
    __builtin_memcpy(&magnitude, x + i, sizeof magnitude);
    magnitude &= 0x7fffffff;
    if (magnitude > lanes[0]) lanes[0] = magnitude;
  }
  int32_t found = 0;
  for (size_t lane = 0; lane < kQueryLanes; ++lane) found = lanes[lane] > found ? lanes[lane] : found;
  return static_cast<uint32_t>(found);
}

void along_axes_f32(const float* x, const float* axes, size_t stride, size_t dims, float* out) {
  constexpr size_t kAxes = 4;
  Floats sums[kAxes] = {};
  size_t i = 0;
  for (; i + kWidth <= dims; i += kWidth) {
    const Floats values = load_as<Floats>(x + i);
    for (size_t a = 0; a < kAxes; ++a) sums[a] += values * load_as<Floats>(axes + a * stride + i);
  }
  Four quarters[kAxes] = {fold(sums[0]), fold(sums[1]), fold(sums[2]), fold(sums[3])};
  transpose_4x4(quarters);
  store_to(out, (quarters[0] + quarters[1]) + (quarters[2] + quarters[3]));
  for (size_t a = 0; a < kAxes; ++a) {
    for (size_t j = i; j < dims; ++j) out[a] += x[j] * axes[a * stride + j];
  }
}

PlaneSums quantize_f32(const float* x, size_t dims, float step, const KernelTable& table, int8_t* high, int8_t* low) {
  const float inverse = 1.0f / step;
  const int32_t limit = table.query_limit, offset = table.query_offset;
  const int32_t shift = limit == 127 ? 8 : 7;  // base = 2^shift
  Floats error[kParts] = {};
  Doubles squares[kWideParts] = {};
  for (size_t i = 0; i < dims; i += kQueryLanes) {
    for (size_t p = 0; p < kParts; ++p) {
      const Floats value = load_as<Floats>(x + i + p * kWidth);
      const Ints whole = nearest_integer(value * inverse);
      const Ints upper = (whole + (limit + 1)) >> shift;
      ONCEOVER_NARROW_TO_BYTES(high + i + p * kWidth, upper + offset);
      ONCEOVER_NARROW_TO_BYTES(low + i + p * kWidth, whole - (upper << shift) + offset);
      const Floats back = __builtin_convertvector(whole, Floats);
      const Floats missed = value - back * step;
      error[p] += missed * missed;
      for (size_t half = 0; half < 2; ++half) {
        const HalfFloats part = load_as<HalfFloats>(reinterpret_cast<const char*>(&back) + half * sizeof(HalfFloats));
        const Doubles wide = __builtin_convertvector(part, Doubles);
        squares[2 * p + half] += wide * wide;
      }
    }
  }
  float errors[kQueryLanes];
  double wholes[kQueryLanes];
  __builtin_memcpy(errors, error, sizeof errors);
  __builtin_memcpy(wholes, squares, sizeof wholes);
  PlaneSums sums = {0, 0};
  for (size_t lane = 0; lane < kQueryLanes; ++lane) {
    sums.error += errors[lane];
    sums.squares += wholes[lane];
  }
  return sums;
}

void pack_tiles(const int8_t* plane, size_t dims, size_t word_bytes, int8_t* tiles) {
  for (size_t lane = 0; lane < kQueryLanes; ++lane) {
    const int8_t* from = plane + lane * dims;
    int8_t* to = tiles + lane * word_bytes;
    if (word_bytes == 4) {
      for (size_t j = 0; j < dims; j += 4) __builtin_memcpy(to + j * kQueryLanes, from + j, 4);
    } else {
      for (size_t j = 0; j < dims; j += 8) __builtin_memcpy(to + j * kQueryLanes, from + j, 8);
    }
  }
}

void transpose_lanes(const float* from, size_t rows, float* to) {
  for (size_t row = 0; row < rows; row += 4) {
    for (size_t lane = 0; lane < kQueryLanes; lane += 4) {
      Four square[4];
      for (size_t r = 0; r < 4; ++r) square[r] = load_as<Four>(from + (row + r) * kQueryLanes + lane);
      transpose_4x4(square);
      for (size_t l = 0; l < 4; ++l) store_to(to + (lane + l) * rows + row, square[l]);
    }
  }
}

void combine_planes(const int32_t* high, const int32_t* low, const int32_t* offset_sums, size_t row_count, int32_t base,
                    const double* scale, float* z, double* squares) {
  Doubles scales[kWideParts], sums[kWideParts];
  for (size_t p = 0; p < kWideParts; ++p) {
    scales[p] = load_as<Doubles>(scale + p * kWide);
    sums[p] = load_as<Doubles>(squares + p * kWide);
  }
  for (size_t row = 0; row < row_count; ++row) {
    for (size_t p = 0; p < kWideParts; ++p) {
      const size_t at = row * kQueryLanes + p * kWide;
      const HalfInts upper = load_as<HalfInts>(high + at) - offset_sums[row];
      const HalfInts lower = load_as<HalfInts>(low + at) - offset_sums[row];
      const Doubles whole =
          __builtin_convertvector(upper, Doubles) * static_cast<double>(base) + __builtin_convertvector(lower, Doubles);
      sums[p] += whole * whole;
      store_to(z + at, __builtin_convertvector(whole * scales[p], HalfFloats));
    }
  }
  for (size_t p = 0; p < kWideParts; ++p) store_to(squares + p * kWide, sums[p]);
}

void encode_lanes(const float* z, size_t dims, const float* step, const KernelTable& table, int8_t* tile,
                  int32_t* norms, float* error) {
  const size_t words = table.word_bytes / 4;  // of 4 coordinates, side by side for one query
  const auto limit = static_cast<float>(table.query_limit);
  for (size_t p = 0; p < kParts; ++p) {
    const Floats steps = load_as<Floats>(step + p * kWidth);
    const Floats inverse = 1.0f / steps;
    Ints norm = {};
    Floats missed = {};
    for (size_t j = 0; j < dims; j += 4) {
      Ints packed = {};
      for (size_t byte = 0; byte < 4; ++byte) {
        const Floats value = load_as<Floats>(z + (j + byte) * kQueryLanes + p * kWidth);
        Floats scaled = value * inverse;
        scaled = scaled > limit ? splat(limit) : scaled;
        scaled = scaled < -limit ? splat(-limit) : scaled;
        const Ints code = nearest_integer(scaled);
        const Floats left = value - __builtin_convertvector(code, Floats) * steps;
        missed += left * left;
        norm += code * code;
        packed |= ((code + table.query_offset) & 255) << static_cast<int32_t>(8 * byte);
      }
      int8_t* group = tile + (j / 4 / words) * (kQueryLanes * table.word_bytes);
      if (words == 1) {
        store_to(group + p * kWidth * 4, packed);
      } else {
        for (size_t lane = 0; lane < kWidth; ++lane) {
          const int32_t word = packed[lane];
          __builtin_memcpy(group + ((p * kWidth + lane) * words + (j / 4) % words) * 4, &word, sizeof word);
        }
      }
    }
    store_to(norms + p * kWidth, norm);
    store_to(error + p * kWidth, missed);
  }
}
