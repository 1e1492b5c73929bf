// Bilinear resize and Gaussian blur of float maps, row by row, in blocks of columns small enough for the stack.
#include "image/anomaly_map.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.h"

namespace onceover {
namespace {

struct Interpolation {  // one output coordinate: (1 − fraction)·in[low] + fraction·in[high]
  size_t low, high;
  float fraction;
};

Interpolation interpolate(size_t output, double scale, size_t input_size) {
  const double source = std::max(0.0, (static_cast<double>(output) + 0.5) * scale - 0.5);
  const size_t low = std::min(static_cast<size_t>(source), input_size - 1);
  return {low, std::min(low + 1, input_size - 1), static_cast<float>(source - static_cast<double>(low))};
}

// Edge sample repeated, period 2·size: … 1 0 | 0 1 … n−1 | n−1 n−2 …; right for any distance outside.
size_t reflect(ptrdiff_t i, size_t size) {
  if (i >= 0 && i < static_cast<ptrdiff_t>(size)) return static_cast<size_t>(i);
  const auto period = static_cast<ptrdiff_t>(2 * size);
  const auto folded = static_cast<size_t>((i % period + period) % period);
  return folded < size ? folded : 2 * size - 1 - folded;
}

size_t blur_radius(float sigma) {
  if (!(sigma >= 0 && sigma <= kMaxBlurSigma)) {
    fail(Status::kUsage, "blur sigma is %g pixels; expected 0 (no blur) to %g", static_cast<double>(sigma),
         static_cast<double>(kMaxBlurSigma));
  }
  return static_cast<size_t>(4.0 * static_cast<double>(sigma) + 0.5);
}

}  // namespace

void resize_bilinear(MatrixView<const float> in, MatrixView<float> out, const KernelTable& table) {
  constexpr size_t kBlock = 512;  // columns; 10 KB of stack
  const double scale_y = static_cast<double>(in.rows) / static_cast<double>(out.rows);
  const double scale_x = static_cast<double>(in.columns) / static_cast<double>(out.columns);
  uint32_t low[kBlock], high[kBlock];
  float fraction[kBlock], lines[2][kBlock];  // two input rows, interpolated across
  for (size_t start = 0; start < out.columns; start += kBlock) {
    const size_t n = std::min(kBlock, out.columns - start);
    for (size_t x = 0; x < n; ++x) {
      const Interpolation across = interpolate(start + x, scale_x, in.columns);
      low[x] = static_cast<uint32_t>(across.low), high[x] = static_cast<uint32_t>(across.high);
      fraction[x] = across.fraction;
    }
    float *upper = lines[0], *lower = lines[1];
    const auto fill = [&](const float* row, float* line) {
      for (size_t x = 0; x < n; ++x) line[x] = (1 - fraction[x]) * row[low[x]] + fraction[x] * row[high[x]];
    };
    size_t filled_low = in.rows, filled_high = in.rows;  // the input rows they hold; none yet
    for (size_t y = 0; y < out.rows; ++y) {
      const Interpolation down = interpolate(y, scale_y, in.rows);
      if (down.low != filled_low) {
        if (down.low == filled_high) {
          std::swap(upper, lower);
        } else {
          fill(in.row(down.low), upper);
        }
        fill(in.row(down.high), lower);
        filled_low = down.low, filled_high = down.high;
      }
      table.mix_rows_f32(upper, lower, down.fraction, n, out.row(y) + start);
    }
  }
}

GaussianBlur::GaussianBlur(float sigma, size_t height, size_t width, Memory& memory, const KernelTable& table)
    : radius_(blur_radius(sigma)), table_(table) {
  if (height == 0 || width == 0)
    fail(Status::kUsage, "anomaly map is %zu x %zu; expected at least 1 x 1", height, width);
  taps_ = Buffer<float>(memory, radius_ + 1, "blur taps");
  if (radius_ == 0) {
    taps_[0] = 1;
    return;
  }
  scratch_ = Buffer<float>(memory, height * width + width + 2 * radius_, "blur scratch");
  lines_ = Buffer<const float*>(memory, 2 * radius_ + 1, "blur rows");
  const auto gaussian = [&](size_t k) {
    const double z = static_cast<double>(k) / static_cast<double>(sigma);
    return std::exp(-0.5 * z * z);
  };
  double sum = 1;
  for (size_t k = radius_; k > 0; --k) sum += 2 * gaussian(k);
  for (size_t k = 0; k <= radius_; ++k) taps_[k] = static_cast<float>(gaussian(k) / sum);
}

void GaussianBlur::run(MatrixView<float> map) {
  if (radius_ == 0) return;
  const auto radius = static_cast<ptrdiff_t>(radius_);
  const float** center = lines_.data() + radius;
  float* blurred = scratch_.data();  // (H, W), vertically
  for (size_t y = 0; y < map.rows; ++y) {
    for (ptrdiff_t k = -radius; k <= radius; ++k) {
      center[k] = map.row(reflect(static_cast<ptrdiff_t>(y) + k, map.rows));
    }
    table_.blur_lines_f32(center, taps_.data(), radius_, map.columns, blurred + y * map.columns);
  }
  float* padded = blurred + map.rows * map.columns;  // (radius + W + radius)
  for (ptrdiff_t k = -radius; k <= radius; ++k) center[k] = padded + radius + k;
  for (size_t y = 0; y < map.rows; ++y) {
    const float* row = blurred + y * map.columns;
    std::copy_n(row, map.columns, padded + radius_);
    for (size_t k = 0; k < radius_; ++k) {
      padded[k] = row[reflect(static_cast<ptrdiff_t>(k) - radius, map.columns)];
      padded[radius_ + map.columns + k] = row[reflect(static_cast<ptrdiff_t>(map.columns + k), map.columns)];
    }
    table_.blur_lines_f32(center, taps_.data(), radius_, map.columns, map.row(y));
  }
}

AnomalyMap::AnomalyMap(size_t grid_height, size_t grid_width, size_t height, size_t width, float sigma, Memory& memory,
                       const KernelTable& table)
    : table_(table),
      grid_height_(grid_height),
      grid_width_(grid_width),
      height_(height),
      width_(width),
      map_(memory, height * width, "anomaly map"),
      blur_(sigma, height, width, memory, table) {
  if (grid_height == 0 || grid_width == 0) {
    fail(Status::kUsage, "patch grid is %zu x %zu; expected at least 1 x 1", grid_height, grid_width);
  }
}

MatrixView<const float> AnomalyMap::draw(const float* patch_scores) {
  MatrixView<float> drawn(map_.data(), height_, width_);
  resize_bilinear({patch_scores, grid_height_, grid_width_}, drawn, table_);
  blur_.run(drawn);
  return map();
}

float AnomalyMap::maximum() const { return table_.largest_f32(map_.data(), map_.size()); }

MatrixView<const float> AnomalyMap::map() const { return {map_.data(), height_, width_}; }

void AnomalyMap::resize_to(MatrixView<float> out) const { resize_bilinear(map(), out, table_); }

}  // namespace onceover
