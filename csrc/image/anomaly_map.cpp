// Bilinear resize and Gaussian blur of float maps, in column blocks small enough for registers and the stack.
#include "image/anomaly_map.h"

#include <algorithm>
#include <cmath>

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

constexpr size_t kBlock = 64;

// out[x] ← taps[0]·lines(0)[x] + Σ_k taps[k]·(lines(−k)[x] + lines(k)[x]) for x < n ≤ kBlock.
template <typename Lines>
void convolve_block(const Buffer<float>& taps, const Lines& lines, float* out, size_t n) {
  float sum[kBlock];
  const float* center = lines(0);
  for (size_t x = 0; x < n; ++x) sum[x] = taps[0] * center[x];
  const auto taps_end = static_cast<ptrdiff_t>(taps.size());
  ptrdiff_t k = 1;
  for (; k + 2 <= taps_end; k += 2) {  // two taps at a time spare half of the loads and stores of sum
    const float tap = taps[static_cast<size_t>(k)], next_tap = taps[static_cast<size_t>(k + 1)];
    const float *before = lines(-k), *after = lines(k), *next_before = lines(-k - 1), *next_after = lines(k + 1);
    for (size_t x = 0; x < n; ++x) {
      sum[x] = (sum[x] + tap * (before[x] + after[x])) + next_tap * (next_before[x] + next_after[x]);
    }
  }
  for (; k < taps_end; ++k) {
    const float tap = taps[static_cast<size_t>(k)];
    const float* before = lines(-k);
    const float* after = lines(k);
    for (size_t x = 0; x < n; ++x) sum[x] += tap * (before[x] + after[x]);
  }
  std::copy_n(sum, n, out);
}

}  // namespace

void resize_bilinear(MatrixView<const float> in, MatrixView<float> out) {
  const double scale_y = static_cast<double>(in.rows) / static_cast<double>(out.rows);
  const double scale_x = static_cast<double>(in.columns) / static_cast<double>(out.columns);
  Interpolation across[kBlock];
  float upper[kBlock], lower[kBlock];  // input rows low and high, interpolated across
  for (size_t start = 0; start < out.columns; start += kBlock) {
    const size_t n = std::min(kBlock, out.columns - start);
    for (size_t x = 0; x < n; ++x) across[x] = interpolate(start + x, scale_x, in.columns);
    const auto fill = [&](const float* row, float* line) {
      for (size_t x = 0; x < n; ++x) {
        line[x] = (1 - across[x].fraction) * row[across[x].low] + across[x].fraction * row[across[x].high];
      }
    };
    size_t filled = in.rows;  // the input row `upper` holds; none yet
    for (size_t y = 0; y < out.rows; ++y) {
      const Interpolation down = interpolate(y, scale_y, in.rows);
      if (down.low != filled) {
        fill(in.row(down.low), upper);
        fill(in.row(down.high), lower);
        filled = down.low;
      }
      float* to = out.row(y) + start;
      for (size_t x = 0; x < n; ++x) to[x] = (1 - down.fraction) * upper[x] + down.fraction * lower[x];
    }
  }
}

GaussianBlur::GaussianBlur(float sigma, size_t height, size_t width, Memory& memory) : radius_(blur_radius(sigma)) {
  if (height == 0 || width == 0)
    fail(Status::kUsage, "anomaly map is %zu x %zu; expected at least 1 x 1", height, width);
  taps_ = Buffer<float>(memory, radius_ + 1, "blur taps");
  if (radius_ == 0) {
    taps_[0] = 1;
    return;
  }
  scratch_ = Buffer<float>(memory, height * width + width + 2 * radius_, "blur scratch");
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
  float* blurred = scratch_.data();  // (H, W), vertically
  for (size_t y = 0; y < map.rows; ++y) {
    for (size_t start = 0; start < map.columns; start += kBlock) {
      const auto lines = [&](ptrdiff_t k) { return map.row(reflect(static_cast<ptrdiff_t>(y) + k, map.rows)) + start; };
      convolve_block(taps_, lines, blurred + y * map.columns + start, std::min(kBlock, map.columns - start));
    }
  }
  float* padded = blurred + map.rows * map.columns;  // (radius + W + radius)
  for (size_t y = 0; y < map.rows; ++y) {
    const float* row = blurred + y * map.columns;
    std::copy_n(row, map.columns, padded + radius_);
    for (size_t k = 0; k < radius_; ++k) {
      padded[k] = row[reflect(static_cast<ptrdiff_t>(k) - static_cast<ptrdiff_t>(radius_), map.columns)];
      padded[radius_ + map.columns + k] = row[reflect(static_cast<ptrdiff_t>(map.columns + k), map.columns)];
    }
    for (size_t start = 0; start < map.columns; start += kBlock) {
      const auto lines = [&](ptrdiff_t k) { return padded + static_cast<ptrdiff_t>(radius_ + start) + k; };
      convolve_block(taps_, lines, map.row(y) + start, std::min(kBlock, map.columns - start));
    }
  }
}

AnomalyMap::AnomalyMap(size_t grid_height, size_t grid_width, size_t height, size_t width, float sigma, Memory& memory)
    : grid_height_(grid_height),
      grid_width_(grid_width),
      height_(height),
      width_(width),
      map_(memory, height * width, "anomaly map"),
      blur_(sigma, height, width, memory) {
  if (grid_height == 0 || grid_width == 0) {
    fail(Status::kUsage, "patch grid is %zu x %zu; expected at least 1 x 1", grid_height, grid_width);
  }
}

MatrixView<const float> AnomalyMap::draw(const float* patch_scores) {
  MatrixView<float> drawn(map_.data(), height_, width_);
  resize_bilinear({patch_scores, grid_height_, grid_width_}, drawn);
  blur_.run(drawn);
  return map();
}

MatrixView<const float> AnomalyMap::map() const { return {map_.data(), height_, width_}; }

void AnomalyMap::resize_to(MatrixView<float> out) const { resize_bilinear(map(), out); }

}  // namespace onceover
