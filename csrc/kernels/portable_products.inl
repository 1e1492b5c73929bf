// Part of portable.inl: matrix products.

// Tiles of 4 rows × 16 columns stay in registers; `inner` is walked once per tile.
void multiply_f64(const double* left, size_t left_stride, const double* right, size_t right_stride, double* out,
                  size_t out_stride, size_t rows, size_t inner, size_t columns) {
  constexpr size_t kRows = 4, kColumns = 16, kVectors = kColumns / kWide;
  for (size_t column = 0; column < columns; column += kColumns) {
    for (size_t row = 0; row < rows; row += kRows) {
      const size_t valid = rows - row < kRows ? rows - row : kRows;
      const double* from[kRows];
      for (size_t r = 0; r < kRows; ++r) from[r] = left + (row + (r < valid ? r : 0)) * left_stride;
      Doubles sums[kRows][kVectors] = {};
      for (size_t k = 0; k < inner; ++k) {
        for (size_t v = 0; v < kVectors; ++v) {
          const Doubles values = load_as<Doubles>(right + k * right_stride + column + v * kWide);
          for (size_t r = 0; r < kRows; ++r) sums[r][v] += values * from[r][k];
        }
      }
      for (size_t r = 0; r < valid; ++r) {
        for (size_t v = 0; v < kVectors; ++v) {
          double* to = out + (row + r) * out_stride + column + v * kWide;
          store_to(to, load_as<Doubles>(to) + sums[r][v]);
        }
      }
    }
  }
}

// Eight registers of sums, each output's in order of `inner`.
void multiply_f32(const float* left, const float* right, float* out, size_t rows, size_t inner, size_t columns) {
  constexpr size_t kRows = 8 / kParts;
  const size_t stride = (columns + kQueryLanes - 1) / kQueryLanes * kQueryLanes;
  for (size_t column = 0; column < columns; column += kQueryLanes) {
    const size_t width = columns - column < kQueryLanes ? columns - column : kQueryLanes;
    for (size_t row = 0; row < rows; row += kRows) {
      const size_t valid = rows - row < kRows ? rows - row : kRows;
      const float* from[kRows];
      for (size_t r = 0; r < kRows; ++r) from[r] = left + (row + (r < valid ? r : 0)) * inner;
      Floats sums[kRows][kParts] = {};
      for (size_t k = 0; k < inner; ++k) {
        for (size_t p = 0; p < kParts; ++p) {
          const Floats values = load_as<Floats>(right + k * stride + column + p * kWidth);
          for (size_t r = 0; r < kRows; ++r) sums[r][p] += values * from[r][k];
        }
      }
      for (size_t r = 0; r < valid; ++r) {
        __builtin_memcpy(out + (row + r) * columns + column, sums[r], width * sizeof(float));
      }
    }
  }
}
