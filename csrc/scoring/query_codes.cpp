#include "scoring/query_codes.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/finite.h"
#include "scoring/bounds.h"

namespace onceover {
namespace {

constexpr uint32_t kInfinityBits = 0x7f800000u;
constexpr int64_t kScoreRoom = int64_t{1} << 29;  // |a · c| · 2^shift stays below (kernel_table.h, screen_i8)

float float_of_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// Codes of z [rank1][16] on the finest step that does not lose more by clamping than it wins: a lane far out takes a
// step 2, 4, … times as coarse.
void choose_codes(const SearchIndex& index, const KernelTable& table, const float* z, QueryGroup& group) {
  const int64_t room = kScoreRoom / (static_cast<int64_t>(index.rank1) * 127 * 127);
  float steps[kQueryLanes], errors[kQueryLanes], tried_steps[kQueryLanes], tried_errors[kQueryLanes];
  int32_t shifts[kQueryLanes] = {}, norms[kQueryLanes];
  const float unit = index.step * static_cast<float>(1 << table.unit_shift);
  std::fill_n(steps, kQueryLanes, unit);
  table.encode_lanes(z, index.rank1, steps, table, group.tile, norms, errors);
  const auto clamped = [&](size_t lane) {  // more error than rounding alone can make
    return errors[lane] > static_cast<float>(index.rank1) * steps[lane] * steps[lane] * 0.2501f;
  };
  bool improving = true, changed = false;
  while (improving) {
    improving = false;
    std::copy_n(steps, kQueryLanes, tried_steps);
    for (size_t lane = 0; lane < kQueryLanes; ++lane) {
      if (clamped(lane) && (int64_t{2} << (shifts[lane] + table.unit_shift)) <= room)
        tried_steps[lane] *= 2, improving = true;
    }
    if (!improving) break;
    table.encode_lanes(z, index.rank1, tried_steps, table, group.tile, norms, tried_errors);
    improving = false;
    for (size_t lane = 0; lane < kQueryLanes; ++lane) {
      if (tried_steps[lane] == steps[lane] || !(tried_errors[lane] < errors[lane])) continue;
      steps[lane] = tried_steps[lane];
      errors[lane] = tried_errors[lane];
      ++shifts[lane];
      improving = true;
    }
    changed = true;
  }
  if (changed) table.encode_lanes(z, index.rank1, steps, table, group.tile, norms, errors);
  int32_t screen_norms[kQueryLanes];
  const size_t left_out = (index.rank1 - index.screened) * kQueryLanes;
  std::copy_n(norms, kQueryLanes, screen_norms);
  if (left_out > 0) {  // codes the last coordinates once more, to the same, for their norms
    table.encode_lanes(z + left_out, index.screened, steps, table, group.tile + left_out, screen_norms, tried_errors);
  }
  group.has_shifts = false;
  for (size_t lane = 0; lane < kQueryLanes; ++lane) {
    group.shifts[lane] = shifts[lane];
    group.has_shifts = group.has_shifts || shifts[lane] != 0;
    QueryBounds& bounds = group.bounds[lane];
    bounds.code_error = std::sqrt(double{errors[lane]}) * error_norm(index.rank1) + bounds.refined_error;  // (S4)
    const int shift = shifts[lane] + table.unit_shift;
    bounds.half_norm = std::ldexp(static_cast<double>(norms[lane]), 2 * shift - 1);
    bounds.screen_half_norm = std::ldexp(static_cast<double>(screen_norms[lane]), 2 * shift - 1);
  }
}

// kRank: x of every lane in two planes of codes, projected exactly; z [rank2][16] and the tails.
void project_group(const SearchIndex& index, const KernelTable& table, const double* steps, const double* squares,
                   CodingBuffers& buffers, QueryGroup& group) {
  const size_t rank1 = index.rank1, rank2 = index.rank2;
  for (size_t plane = 0; plane < 2; ++plane) {
    table.pack_tiles(buffers.planes[plane], index.padded_dims(), table.word_bytes, buffers.tiles[plane]);
  }
  table.dot_i8(index.projection, rank2, index.plane_tiles(), buffers.tiles[0], buffers.tiles[1], buffers.products[0],
               buffers.products[1]);
  const int32_t base = 2 * table.query_limit + 2;
  double scales[kQueryLanes], head[kQueryLanes] = {}, tails[kQueryLanes];
  for (size_t lane = 0; lane < kQueryLanes; ++lane) scales[lane] = index.scale * steps[lane];
  const auto combine = [&](size_t begin, size_t end) {
    table.combine_planes(buffers.products[0] + begin * kQueryLanes, buffers.products[1] + begin * kQueryLanes,
                         buffers.offset_sums + begin, end - begin, base, scales, buffers.lanes + begin * kQueryLanes,
                         head);
    for (size_t lane = 0; lane < kQueryLanes; ++lane) {  // |x|² − |Px|², (S5)
      const double rest = squares[lane] - index.scale * index.scale * head[lane];
      tails[lane] = steps[lane] * std::sqrt(std::max(rest, 0.0));
    }
  };
  combine(0, rank1);
  for (size_t lane = 0; lane < kQueryLanes; ++lane) {
    const bool coded = group.bounds[lane].kind == QueryKind::kCoded;
    buffers.lanes[index.tail_coordinate() * kQueryLanes + lane] =
        coded ? static_cast<float>(tails[lane] - double{index.tail_mean}) : 0.0f;
  }
  combine(rank1, rank2);
  for (size_t lane = 0; lane < kQueryLanes; ++lane) group.bounds[lane].tail = static_cast<float>(tails[lane]);
}

}  // namespace

CodingBuffers::CodingBuffers(Scratch& scratch, const SearchIndex& index) {
  const size_t padded = index.padded_dims();
  x = scratch.take<float>(padded);
  for (size_t plane = 0; plane < 2; ++plane) {
    planes[plane] = scratch.take<int8_t>(kQueryLanes * padded);
    tiles[plane] = scratch.take<int8_t>(kQueryLanes * padded);
    products[plane] = scratch.take<int32_t>(kQueryLanes * index.rank2);
  }
  offset_sums = scratch.take<int32_t>(index.rank2);
  lanes = scratch.take<float>(kQueryLanes * index.rank2);
}

QueryKind judge(const SearchIndex& index, const float* query, uint32_t largest_bits) noexcept {
  if (largest_bits >= kInfinityBits && !all_finite(query, index.dims)) return QueryKind::kNotFinite;
  if (largest_bits >= kInfinityBits) return QueryKind::kFloat64;  // finite, but not its difference to the mean
  if (!index.safe_scale || float_of_bits(largest_bits) > kLargestSafe) return QueryKind::kFloat64;
  return index.representation == Representation::kScan ? QueryKind::kScan : QueryKind::kCoded;
}

void code_group(const SearchIndex& index, MatrixView<const float> queries, const KernelTable& table,
                CodingBuffers& buffers, QueryGroup& group) noexcept {
  const size_t padded = index.padded_dims(), rank2 = index.rank2;
  const bool is_rank = index.representation == Representation::kRank;
  const int32_t base = 2 * table.query_limit + 2;
  const int32_t largest_code = (base + 1) * table.query_limit;
  double steps[kQueryLanes], squares[kQueryLanes];
  std::fill_n(buffers.x + index.dims, padded - index.dims, 0.0f);
  if (is_rank) {
    for (size_t row = 0; row < rank2; ++row) buffers.offset_sums[row] = table.query_offset * index.projection_sums[row];
  }
  for (size_t lane = 0; lane < kQueryLanes; ++lane) {
    QueryBounds& bounds = group.bounds[lane];
    bounds = {QueryKind::kAbsent, 0, 0, 0, 0, 0};
    steps[lane] = squares[lane] = 0;
    float largest = 0;
    if (lane < group.count) {
      const uint32_t bits = table.center_f32(queries.row(group.which[lane]), index.mean, index.dims, buffers.x);
      bounds.kind = judge(index, queries.row(group.which[lane]), bits);
      largest = float_of_bits(bits);
    }
    const bool coded = bounds.kind == QueryKind::kCoded;
    if (!coded || largest < kSmallestSafe) std::fill_n(buffers.x, index.dims, 0.0f);  // all of it counts as error
    double norm = 0;
    if (is_rank) {
      int8_t* high = buffers.planes[0] + lane * padded;
      int8_t* low = buffers.planes[1] + lane * padded;
      const float step = coded && largest >= kSmallestSafe ? largest / static_cast<float>(largest_code) : 1.0f;
      const PlaneSums sums = table.quantize_f32(buffers.x, padded, step, table, high, low);
      steps[lane] = double{step};
      squares[lane] = sums.squares;
      norm = double{step} * std::sqrt(sums.squares);
      bounds.refined_error = std::sqrt(double{sums.error}) * error_norm(padded);  // (S4)
    } else {
      for (size_t j = 0; j < padded; ++j) buffers.lanes[j * kQueryLanes + lane] = buffers.x[j];
      for (size_t j = 0; j < padded; ++j) norm += double{buffers.x[j]} * double{buffers.x[j]};
      norm = std::sqrt(norm);
    }
    if (largest < kSmallestSafe) bounds.refined_error = double{largest} * std::sqrt(static_cast<double>(padded)) * 1.01;
    bounds.refined_error += norm * (kCenterShare + kProjectionShare + kRefinedShare) +         // (S3), (S5), (S7)
                            std::fabs(double{index.tail_mean}) * kTailMeanShare + kUnderflow;  // (S5), (S2)
  }
  if (is_rank) project_group(index, table, steps, squares, buffers, group);
  choose_codes(index, table, buffers.lanes, group);
  if (is_rank) {  // the second bound takes `tail` instead; its weight there is 0
    std::fill_n(buffers.lanes + index.tail_coordinate() * kQueryLanes, kQueryLanes, 0.0f);
  }
  table.transpose_lanes(buffers.lanes, rank2, group.z);
}

}  // namespace onceover
