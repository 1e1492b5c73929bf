// The contract of every kernel: one table of function pointers per instruction set. Plain C types only, because ISA
// files include nothing but intrinsics, this header and the shared bodies in portable.inl.
//
// Two kinds of kernels, two promises (scoring/EXACTNESS.md proves what follows from them):
// - Integer and order-fixed kernels return the same bits on every instruction set. Sums of squares take 16 partial sums
//   (element i goes to partial i mod 16; multiply and add rounded separately, no FMA), reduced as ((p[j] + p[j+8]) for
//   j < 8, then + 4, + 2, + 1). Tails are zero-padded: adding (0 − 0)² changes no partial sum.
// - Bounding kernels (scan_f32) may sum in any order, with FMA or without: callers rely on a stated error bound only.
//
// Lanes: 16 queries stand side by side in every integer kernel, one per 32-bit lane. A "tile" holds 16 queries × 64
// coordinates as bytes, words of `word_bytes` coordinates interleaved: [64 / word_bytes][16 queries][word_bytes].
#pragma once

#include <cstddef>
#include <cstdint>

namespace onceover {

inline constexpr size_t kQueryLanes = 16;                    // queries per tile
inline constexpr size_t kTileDims = 64;                      // coordinates per tile
inline constexpr size_t kTileBytes = 1024;                   // kQueryLanes · kTileDims
inline constexpr size_t kBlockRows = 32;                     // bank rows that share one screened maximum
inline constexpr size_t kPanelRows = 8;                      // bank rows of one scan_f32 panel
inline constexpr int32_t kEmptySlotNorm = int32_t{1} << 30;  // norm of a slot without a row: it never scores high

inline constexpr int32_t kNoHit = INT32_MAX;  // threshold of a lane that no row of a block can hit

// Codes of a memory bank, |code| ≤ 127. Block b has 32 rows in two halves of 16: codes[b][half][tile][row][64].
struct CodeBlocks {
  const int8_t* codes;
  const int32_t* norms;  // (32 · blocks) 2·floor(|code|² / 4): even, at most |code|²/2; kEmptySlotNorm if no row
  const int32_t* sums;   // (32 · blocks) sum of the codes of a row
  size_t tiles;          // per row: coordinates / 64
  size_t first = 0;      // coordinates before it are left out of scores, norms and sums; a multiple of screen_unit
};

// The codes of 16 queries, stored as code + query_offset, |code| ≤ query_limit. `shifts` (16), or null for all zero:
// a lane with shift p stands for codes 2^p times as large (a coarser step for a query far out).
struct QueryTile {
  const int8_t* codes;    // [tile][1024]
  const int32_t* shifts;  // each ≥ 0
};

// What a block must score so that one of its rows can be near enough, per lane, in units of the screen:
// base − curve · (reach + block error)². A lane that takes no part has base = +inf.
struct LaneBounds {
  float screen_base[kQueryLanes];  // base of the scores of the coordinates screened; base is of all that are coded
  float base[kQueryLanes], curve[kQueryLanes], reach[kQueryLanes];
};

// YUV → RGB in whole numbers with kYuvFraction fractional bits; |sum| < 2^16 · (1.17 · 255 + 2.2 · 128) < 2^31.
inline constexpr int kYuvFraction = 16;
struct YuvToRgb {
  int32_t luma_offset, luma, v_to_red, u_to_green, v_to_green, u_to_blue;
};

// The filter of a resize along a row: output x is Σ_t weights[offsets[x] + t] · input[firsts[x] + t], t < counts[x].
struct ResizeTaps {
  const uint32_t *firsts, *counts, *offsets;
  const float* weights;
  size_t outputs;
};

// Of one query cut into two planes of codes (quantize_f32).
struct PlaneSums {
  double squares;  // Σ X², exact: X² ≤ 2^30 and at most 2^16 of them
  float error;     // Σ (x − step · X)²
};

struct KernelTable {
  const char* name;
  int32_t query_limit;   // 127; 63 where products are summed in pairs in int16 (2 · 127 · 127 < 2^15)
  int32_t query_offset;  // 128, 64 or 0: what the instruction wants added to make a code unsigned
  int32_t unit_shift;    // screen scores are counted in units of 2^unit_shift; a lane's step is that many times finer
  size_t word_bytes;     // 4, or 8: see "tile" above
  size_t screen_unit;    // of CodeBlocks::first: 16, or 64 where a tile is multiplied as a whole
  // With the same instructions and scalar's query_limit, unit_shift and screen_unit; null: this one has them.
  const KernelTable* counting;

  // score(row, lane) = ((a · c) << shift) − (norm >> unit_shift), a the query's codes, c the row's, both from
  // coordinate blocks.first < 64 · tiles on: exact in int32 for dims · 127² · 2^shift ≤ 2^29. Writes for every tile t
  // and block b in [0, block_count) the largest score of the block's rows: maxima[t][16 · b + lane].
  void (*screen_i8)(const CodeBlocks& blocks, size_t block_count, const QueryTile* tiles, size_t tile_count,
                    int32_t* const* maxima);

  // For each listed block: bit `lane` of hits[32 · i + row] tells whether score(row, lane) ≥ thresholds[16 · i + lane],
  // which is kNoHit for lanes that need not be looked at.
  void (*hit_rows_i8)(const CodeBlocks& blocks, const QueryTile& tile, const uint32_t* block_list, size_t count,
                      const int32_t* thresholds, uint16_t* hits);

  // Raw dot products, offset included, of `row_count` rows (a multiple of 16; rows[row / 16][tile][row % 16][64]) with
  // two tiles: high[16 · row + lane], low[16 · row + lane]. Exact: |sum| ≤ tiles · 64 · 255 · 127 < 2^31.
  void (*dot_i8)(const int8_t* rows, size_t row_count, size_t tiles, const int8_t* high_tile, const int8_t* low_tile,
                 int32_t* high, int32_t* low);

  // scores = start[row] + query · row, of `tile_count` tiles of 16 float queries ([tile][dims][16]) and one panel of 8
  // rows ([dims][8]); raises maxima[16 · tile + lane] to the largest. Error at most (dims + 2) · u relative to
  // |start| + Σ|q_i b_i|, first order, u = 2^-24. NaN never wins.
  void (*scan_f32)(const float* tiles, size_t tile_count, size_t dims, const float* panel, const float* start,
                   float* maxima);

  // --- portable.inl: written once, compiled for each instruction set, same bits from each ---

  // x = query − mean, rounded; the largest |x| comes back as its bit pattern, which for NaN and infinity is ≥
  // 0x7f800000.
  uint32_t (*center_f32)(const float* query, const float* mean, size_t dims, float* x);

  // out[a] = x · axes[a], a < 4, axes (4, stride); in no promised order of sums, for putting queries in order.
  void (*along_axes_f32)(const float* x, const float* axes, size_t stride, size_t dims, float* out);

  // X = round(x / step) in two planes, X = base · high + low, base = 2 · limit + 2, high within ±limit, low from −limit
  // − 1 to limit, stored with the table's query_offset added. dims is a multiple of 16; |x| ≤ step · (base + 1) ·
  // limit.
  PlaneSums (*quantize_f32)(const float* x, size_t dims, float step, const KernelTable& table, int8_t* high,
                            int8_t* low);

  // One plane of 16 queries, (16, dims) bytes, into tiles of `word_bytes`; dims is a multiple of 64.
  void (*pack_tiles)(const int8_t* plane, size_t dims, size_t word_bytes, int8_t* tiles);

  // (rows, 16) → (16, rows) float32; rows is a multiple of 16.
  void (*transpose_lanes)(const float* from, size_t rows, float* to);

  // z[16 · row + lane] = scale[lane] · (base · high + low), rounded once to float32; adds Σ (base · high + low)² to
  // squares[lane] in float64 (relative error < rows · 2^-52). offset_sums[row] is what the offset added to the row.
  void (*combine_planes)(const int32_t* high, const int32_t* low, const int32_t* offset_sums, size_t row_count,
                         int32_t base, const double* scale, float* z, double* squares);

  // Codes round(z / step) clamped to ±limit, written as `dims` / 64 tiles; norms = Σ code²; error = Σ (z − step ·
  // code)² (relative error ≤ (dims + 3) · 2^-24). dims is a multiple of 16.
  void (*encode_lanes)(const float* z, size_t dims, const float* step, const KernelTable& table, int8_t* tile,
                       int32_t* norms, float* error);

  // Largest maximum of each lane and the first block that has it.
  void (*best_blocks)(const int32_t* maxima, size_t block_count, int32_t* best, int32_t* best_block);

  // Blocks in [first, last) where any lane's maximum reaches its bound by screen_base; stops after `capacity` of them.
  // Writes them and 16 thresholds each, which are the bounds by base, or kNoHit where the lane's maximum does not reach
  // its bound, and sets `first` to where to go on. The float32 bound is rounded down: callers give bases, curve and
  // reach with room for it.
  size_t (*find_hits)(const int32_t* maxima, const float* block_errors, size_t* first, size_t last,
                      const LaneBounds& bounds, size_t capacity, uint32_t* blocks, int32_t* thresholds);

  // For each pair slot · 16 + lane: Σ_{j < rank1} (z_j − weights_j · (256 · codes_j + refine_j))² +
  // Σ_{rank1 ≤ j < rank2} (z_j − weights_j · refine_j)² in 16 partial sums, with z the lane's row of (16, rank2), codes
  // the slot's row of the blocks, refine its row of (slots, rank2). rank1 = 64 · blocks.tiles; rank2 a multiple of 16.
  void (*refine_rows)(const float* z, const float* weights, const CodeBlocks& blocks, const int8_t* refine,
                      size_t rank2, const uint32_t* pairs, size_t count, float* squared);

  // |a − b|² of float32 vectors in float32 and in float64, the order of sums above. Float32: with k = ⌈dims/16⌉ + 6
  // roundings, relative error ≤ k·u / (1 − k·u), u = 2^-24 (8.3e-7 at 128), plus dims · 2^-150; float64: ≤ (k + 1) ·
  // 2^-53, and no overflow or underflow for float32 values.
  float (*squared_f32)(const float* a, const float* b, size_t dims);
  double (*squared_f64)(const float* a, const float* b, size_t dims);

  // Eight rows − mean, each value rounded once, interleaved: panel[8 · k + row]. A null row becomes zeros.
  void (*pack_panel_f32)(const float* const* rows, const float* mean, size_t dims, float* panel);

  // Greedy k-center step: min_squared[i] ← min(min_squared[i], squared_f32(points[i], center)) for points (row_count,
  // dims); returns the lowest index of the largest updated value. min_squared holds no NaN; row_count < 2^32.
  size_t (*lower_to_center_f32)(const float* points, size_t row_count, size_t dims, const float* center,
                                float* min_squared);

  // out (rows, columns) += left (rows, inner) · right (inner, columns), float64; columns a multiple of 16. Strides in
  // elements. For building an index: PCA, projection.
  void (*multiply_f64)(const double* left, size_t left_stride, const double* right, size_t right_stride, double* out,
                       size_t out_stride, size_t rows, size_t inner, size_t columns);

  // Keys of scores: unsigned integers in the order of the scores, −0 the same as 0, then shifted right by `shift` < 32.
  // From the bits alone, so that flushing of subnormals changes nothing.
  void (*keys_f32)(const float* scores, size_t count, uint32_t shift, uint32_t* keys);

  size_t (*count_nan_f32)(const float* scores, size_t count);

  // Bit i % 64 of words[i / 64] tells whether bytes[i] is not 0; the bits beyond `count` are 0.
  void (*nonzero_bits)(const uint8_t* bytes, size_t count, uint64_t* words);

  // Bit i % 64 of words[i / 64] tells whether values[i] > threshold; the bits beyond `count` are 0.
  void (*above_bits_f32)(const float* values, size_t count, float threshold, uint64_t* words);

  uint64_t (*sum_bytes)(const uint8_t* bytes, size_t count);

  // sum[i] = Σ_t weights[t] · row_t[i], i < samples, t ascending from 0 to count − 1 ≥ 0; row_t at first + t · stride.
  void (*blend_rows_u8)(const uint8_t* first, ptrdiff_t stride_bytes, const float* weights, size_t count,
                        size_t samples, float* sum);
  void (*blend_rows_u16)(const uint8_t* first, ptrdiff_t stride_bytes, const float* weights, size_t count,
                         size_t samples, float* sum);
  // sum[i] += weight · row[i]
  void (*add_row_u8)(const uint8_t* row, float weight, size_t samples, float* sum);

  // Sums in order of t, each multiplied and added with its own rounding. Pixels of 3 or 4 channels → 4 planes (of 3
  // channels the last one is waste, and reads one sample beyond the last pixel); or samples one by one.
  void (*filter_pixels_f32)(const float* pixels, size_t channels, const ResizeTaps& taps, float* const* planes);
  void (*filter_samples_f32)(const float* samples, const ResizeTaps& taps, float* out);

  // out[i] = table[values[i] rounded half up, kept within 0 to 255]
  void (*look_up_levels_f32)(const float* values, const float* table, size_t count, float* out);

  // A row of luma and the row of U, V pairs that it shares → three rows of `width` bytes, rounded half up.
  void (*nv12_row)(const uint8_t* luma, const uint8_t* chroma, size_t width, const YuvToRgb& by, uint8_t* red,
                   uint8_t* green, uint8_t* blue);

  // out[x] = Σ_t weights[t] · lines[t · stride + x], x < columns, t ascending from 0 to count − 1 ≥ 0.
  void (*blend_lines_f32)(const float* lines, size_t stride, const float* weights, size_t count, size_t columns,
                          float* out);

  // out[y · out_stride + lane] = Σ_t weights[16 · t + lane] · rows[y · stride + t], lane < 16, t ascending from 0 to
  // count − 1 ≥ 0.
  void (*filter_lanes_f32)(const float* rows, size_t stride, size_t row_count, const float* weights, size_t count,
                           float* out, size_t out_stride);

  // out[x] = (1 − fractions[x]) · row[lows[x]] + fractions[x] · row[min(lows[x] + 1, inputs − 1)]; lows ascend.
  void (*mix_columns_f32)(const float* row, size_t inputs, const uint32_t* lows, const float* fractions, size_t columns,
                          float* out);

  // out[y · stride + x] = (1 − fractions[y]) · upper[x] + fractions[y] · lower[x], y < rows.
  void (*mix_rows_f32)(const float* upper, const float* lower, const float* fractions, size_t rows, size_t columns,
                       float* out, size_t stride);

  // A NaN never wins; -infinity where there is nothing else.
  float (*largest_f32)(const float* values, size_t count);

  // out (rows, columns) = left (rows, inner) · right (inner, columns), each sum in order of `inner`. Rows of `right`
  // are padded with anything to a multiple of 16 columns.
  void (*multiply_f32)(const float* left, const float* right, float* out, size_t rows, size_t inner, size_t columns);
};

}  // namespace onceover
