// Every map is drawn across first, rows of the few inputs, then down: each output row is a sum of those lines.
#include "image/anomaly_map.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.h"

namespace onceover {
namespace {

struct Interpolation {  // one output coordinate: (1 − fraction)·in[low] + fraction·in[high]
  size_t low, high;
  double fraction;
};

Interpolation interpolate(size_t output, double scale, size_t input_size) {
  const double source = std::max(0.0, (static_cast<double>(output) + 0.5) * scale - 0.5);
  const size_t low = std::min(static_cast<size_t>(source), input_size - 1);
  return {low, std::min(low + 1, input_size - 1), source - static_cast<double>(low)};
}

// Edge sample repeated, period 2·size: … 1 0 | 0 1 … n−1 | n−1 n−2 …; right for any distance outside.
size_t reflect(ptrdiff_t i, size_t size) {
  if (i >= 0 && i < static_cast<ptrdiff_t>(size)) return static_cast<size_t>(i);
  const auto period = static_cast<ptrdiff_t>(2 * size);
  const auto folded = static_cast<size_t>((i % period + period) % period);
  return folded < size ? folded : 2 * size - 1 - folded;
}

double ratio_of(size_t inputs, size_t outputs) { return static_cast<double>(inputs) / static_cast<double>(outputs); }

// The width in whole blocks.
size_t checked_line(size_t grid_height, size_t grid_width, size_t height, size_t width, float sigma) {
  if (grid_height == 0 || grid_width == 0) {
    fail(Status::kUsage, "patch grid is %zu x %zu; expected at least 1 x 1", grid_height, grid_width);
  }
  if (height == 0 || width == 0) {
    fail(Status::kUsage, "anomaly map is %zu x %zu; expected at least 1 x 1", height, width);
  }
  if (!(sigma >= 0 && sigma <= kMaxBlurSigma)) {
    fail(Status::kUsage, "blur sigma is %g pixels; expected 0 (no blur) to %g", static_cast<double>(sigma),
         static_cast<double>(kMaxBlurSigma));
  }
  return (width + kQueryLanes - 1) / kQueryLanes * kQueryLanes;
}

}  // namespace

MapResize::MapResize(Memory& memory, const KernelTable& table)
    : table_(table),
      lows_(memory, kColumns, "map columns"),
      fractions_(memory, kColumns, "map columns"),
      lines_(memory, 2 * kColumns, "map columns") {}

void MapResize::run(MatrixView<const float> in, MatrixView<float> out) {
  constexpr size_t kRows = 8;
  const double scale_y = ratio_of(in.rows, out.rows), scale_x = ratio_of(in.columns, out.columns);
  for (size_t start = 0; start < out.columns; start += kColumns) {
    const size_t n = std::min(kColumns, out.columns - start);
    for (size_t x = 0; x < n; ++x) {
      const Interpolation across = interpolate(start + x, scale_x, in.columns);
      lows_[x] = static_cast<uint32_t>(across.low), fractions_[x] = static_cast<float>(across.fraction);
    }
    const auto fill = [&](size_t row, float* line) {
      table_.mix_columns_f32(in.row(row), in.columns, lows_.data(), fractions_.data(), n, line);
    };
    float *upper = lines_.data(), *lower = upper + kColumns;
    size_t filled_low = in.rows, filled_high = in.rows;  // the input rows they hold; none yet
    size_t rows = 0;
    for (size_t y = 0; y < out.rows; y += rows) {
      const Interpolation down = interpolate(y, scale_y, in.rows);
      if (down.low != filled_low) {
        if (down.low == filled_high) {
          std::swap(upper, lower);
        } else {
          fill(down.low, upper);
        }
        fill(down.high, lower);
        filled_low = down.low, filled_high = down.high;
      }
      float between[kRows];  // of the next rows, as many as lie between the same two
      for (rows = 0; rows < std::min(kRows, out.rows - y); ++rows) {
        const Interpolation next = interpolate(y + rows, scale_y, in.rows);
        if (next.low != down.low) break;
        between[rows] = static_cast<float>(next.fraction);
      }
      table_.mix_rows_f32(upper, lower, between, rows, n, out.row(y) + start, out.stride);
    }
  }
}

MapAxis::MapAxis(size_t inputs, size_t outputs, float sigma, size_t lanes, Memory& memory) : lanes_(lanes) {
  const auto radius = static_cast<size_t>(4.0 * static_cast<double>(sigma) + 0.5);  // as scipy
  const double scale = ratio_of(inputs, outputs);
  const size_t blocks = (outputs + lanes - 1) / lanes;
  firsts_ = Buffer<uint32_t>(memory, blocks, "map weights");
  starts_ = Buffer<size_t>(memory, blocks + 1, "map weights");
  size_t most = 0;
  for (size_t block = 0; block < blocks; ++block) {
    // A window's outputs, those reflected at an edge included, lie between its ends or the edges.
    const size_t begin = block * lanes, last = std::min(outputs, begin + lanes) - 1;
    const size_t low = interpolate(begin > radius ? begin - radius : 0, scale, inputs).low;
    const Interpolation end = interpolate(std::min(last + radius, outputs - 1), scale, inputs);
    const size_t count = (end.fraction > 0 ? end.high : end.low) - low + 1;
    firsts_[block] = static_cast<uint32_t>(low);
    starts_[block + 1] = starts_[block] + count * lanes;
    most = std::max(most, count);
  }
  weights_ = Buffer<float>(memory, starts_[blocks], "map weights");

  Buffer<double> taps(memory, radius + 1, "blur taps"), sums(memory, most, "map weights");
  const auto gaussian = [&](size_t k) {
    const double z = static_cast<double>(k) / static_cast<double>(sigma);
    return std::exp(-0.5 * z * z);
  };
  double whole = 1;
  for (size_t k = radius; k > 0; --k) whole += 2 * gaussian(k);
  taps[0] = 1 / whole;
  for (size_t k = 1; k <= radius; ++k) taps[k] = gaussian(k) / whole;

  for (size_t output = 0; output < outputs; ++output) {
    const size_t block = output / lanes, lane = output % lanes;
    std::fill(sums.begin(), sums.end(), 0.0);
    for (size_t k = 0; k <= 2 * radius; ++k) {
      const ptrdiff_t step = static_cast<ptrdiff_t>(k) - static_cast<ptrdiff_t>(radius);
      const double tap = taps[static_cast<size_t>(std::abs(step))];
      const Interpolation at = interpolate(reflect(static_cast<ptrdiff_t>(output) + step, outputs), scale, inputs);
      sums[at.low - first(block)] += tap * (1 - at.fraction);
      if (at.fraction > 0) sums[at.high - first(block)] += tap * at.fraction;
    }
    float* column = weights_.data() + starts_[block] + lane;
    for (size_t t = 0; t < this->count(block); ++t) column[t * lanes] = static_cast<float>(sums[t]);
  }
}

MapDrawing::MapDrawing(size_t grid_height, size_t grid_width, size_t height, size_t width, float sigma, Memory& memory,
                       const KernelTable& table)
    : table_(table),
      line_(checked_line(grid_height, grid_width, height, width, sigma)),
      across_(grid_width, width, sigma, kQueryLanes, memory),
      down_(grid_height, height, sigma, 1, memory),
      lines_(memory, grid_height * line_, "map lines") {}

void MapDrawing::run(MatrixView<const float> patch_scores, MatrixView<float> out) {
  for (size_t block = 0; block < across_.blocks(); ++block) {
    table_.filter_lanes_f32(patch_scores.data + across_.first(block), patch_scores.stride, patch_scores.rows,
                            across_.weights(block), across_.count(block), lines_.data() + block * kQueryLanes, line_);
  }
  for (size_t y = 0; y < out.rows; ++y) {
    table_.blend_lines_f32(lines_.data() + down_.first(y) * line_, line_, down_.weights(y), down_.count(y), out.columns,
                           out.row(y));
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
      drawing_(grid_height, grid_width, height, width, sigma, memory, table),
      resize_(memory, table) {}

MatrixView<const float> AnomalyMap::draw(const float* patch_scores) {
  drawing_.run({patch_scores, grid_height_, grid_width_}, {map_.data(), height_, width_});
  return map();
}

float AnomalyMap::maximum() const { return table_.largest_f32(map_.data(), map_.size()); }

MatrixView<const float> AnomalyMap::map() const { return {map_.data(), height_, width_}; }

void AnomalyMap::resize_to(MatrixView<float> out) { resize_.run(map(), out); }

}  // namespace onceover
