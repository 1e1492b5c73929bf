// A row b beats another for query q when S = q·b − |b|²/2 is larger (both centered): |q − b|² = |q|² − 2S. The float32
// scan computes S plus what rounding may have taken from it, row by row, and keeps the largest of each block of 32
// rows. A block is looked at again, in float64, unless that largest value proves that all its rows are farther than k
// found.
#include "scoring/scan.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "scoring/bounds.h"
#include "scoring/scratch.h"

namespace onceover {
namespace {

constexpr size_t kPanels = kBlockRows / kPanelRows;
constexpr size_t kTilesAtOnce = 3;  // what the widest scan_f32 keeps in registers
constexpr float kNever = -std::numeric_limits<float>::infinity();

// Queries and rows get one coordinate more, whose product is the rounding error's bound: share · |q| times |b|.
struct ScanBuffers {
  size_t dims, blocks;
  float* tiles;     // [kScanLanes / 16][dims + 1][16] centered queries
  float* centered;  // (padded) one query
  float* panels;    // [4][dims + 1][8] centered rows of a block
  float* start;     // [32] −|b|²/2 and its part of the bound
  float* maxima;    // [blocks][kScanLanes]
  double* squared;  // [kScanLanes] |q|²
  uint64_t* order;  // [blocks] of one query

  ScanBuffers(Scratch& scratch, const SearchIndex& index)
      : dims(index.dims),
        blocks((index.row_count + kBlockRows - 1) / kBlockRows),
        tiles(scratch.take<float>(kScanLanes * (dims + 1))),
        centered(scratch.take<float>(index.padded_dims())),
        panels(scratch.take<float>(kBlockRows * (dims + 1))),
        start(scratch.take<float>(kBlockRows)),
        maxima(scratch.take<float>(blocks * kScanLanes)),
        squared(scratch.take<double>(kScanLanes)),
        order(scratch.take<uint64_t>(blocks)) {}
};

double squared_norm(const float* query, const float* mean, size_t dims) {
  double squares[4] = {};
  for (size_t k = 0; k < dims; ++k) {
    const double x = double{query[k]} - double{mean[k]};
    squares[k % 4] += x * x;
  }
  return (squares[0] + squares[1]) + (squares[2] + squares[3]);
}

void pack_queries(const SearchIndex& index, MatrixView<const float> queries, const uint32_t* which, size_t count,
                  const KernelTable& table, ScanBuffers& to) {
  const size_t lanes = (count + kQueryLanes - 1) / kQueryLanes * kQueryLanes, dims = index.dims;
  for (size_t lane = 0; lane < lanes; ++lane) {
    float* tile = to.tiles + lane / kQueryLanes * (dims + 1) * kQueryLanes + lane % kQueryLanes;
    if (lane < count) {
      const float* query = queries.row(which[lane]);
      table.center_f32(query, index.mean, dims, to.centered);
      to.squared[lane] = squared_norm(query, index.mean, dims);
      for (size_t k = 0; k < dims; ++k) tile[k * kQueryLanes] = to.centered[k];
      tile[dims * kQueryLanes] = round_up(scan_error(dims) * std::sqrt(to.squared[lane]));
    } else {
      for (size_t k = 0; k <= dims; ++k) tile[k * kQueryLanes] = 0;
    }
  }
}

// Centered rows of a block, interleaved by 8; a row that is not searched starts at −inf and never scores. False: none
// is.
bool pack_rows(const SearchIndex& index, size_t block, const KernelTable& table, ScanBuffers& to) {
  const double share = scan_error(index.dims);
  bool any = false;
  for (size_t panel = 0; panel < kPanels; ++panel) {
    const float* rows[kPanelRows] = {};
    float* packed = to.panels + panel * (index.dims + 1) * kPanelRows;
    for (size_t row = 0; row < kPanelRows; ++row) {
      const size_t id = block * kBlockRows + panel * kPanelRows + row;
      float& start = to.start[panel * kPanelRows + row];
      start = kNever;
      packed[index.dims * kPanelRows + row] = 0;
      if (id >= index.row_count || index.states[id] != RowState::kFirst) continue;
      const double norm = double{index.row_norms[id]};  // rounded up by less than the share allows for
      rows[row] = index.rows.row(id);
      packed[index.dims * kPanelRows + row] = index.row_norms[id];
      start = static_cast<float>(-norm * norm / 2 * (1 - share - 3 * kExactSquare) + scan_underflow(index.dims));
      any = true;
    }
    if (any) table.pack_panel_f32(rows, index.mean, index.dims, packed);
  }
  return any;
}

// Eight rows of the next block on their way while this one is worked on: short rows are over before the CPU notices.
void prefetch_rows(const SearchIndex& index, size_t first) {
  for (size_t id = first; id < std::min(index.row_count, first + kPanelRows); ++id) {
    const float* row = index.rows.row(id);
    for (size_t k = 0; k < index.dims; k += 16) __builtin_prefetch(row + k, 0, 2);
  }
}

// Exact distances of the rows of one block.
void measure_block(const SearchIndex& index, size_t block, const float* query, Neighbors& found,
                   const KernelTable& table, SearchStats& stats) {
  const double lower = measured_lower(index.dims);
  const size_t end = std::min(index.row_count, (block + 1) * kBlockRows);
  for (size_t id = block * kBlockRows; id < end; ++id) {
    if (index.states[id] != RowState::kFirst) continue;
    const double limit = found.limit();
    if (limit >= kSmallestMeasured) {
      ++stats.measured_rows;
      if (double{table.squared_f32(query, index.rows.row(id), index.dims)} * lower > limit) continue;  // (S8)
    }
    ++stats.exact_rows;
    found.offer(table.squared_f64(query, index.rows.row(id), index.dims), static_cast<uint32_t>(id));
  }
}

// The bits of a float, ordered as the floats are.
uint32_t ordered_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits >> 31 != 0 ? ~bits : bits | 0x80000000u;
}

void prove_lane(const SearchIndex& index, size_t lane, const float* query, size_t k, Neighbors found,
                const KernelTable& table, ScanBuffers& from, SearchStats& stats) {
  // The k most promising blocks first: they bound the distance for all others.
  const size_t seeds = std::min(k, from.blocks);
  for (size_t block = 0; block < from.blocks; ++block) {
    from.order[block] = uint64_t{~ordered_bits(from.maxima[block * kScanLanes + lane])} << 32 | block;
  }
  if (seeds == 1) {
    std::swap(from.order[0], *std::min_element(from.order, from.order + from.blocks));
  } else {
    std::partial_sort(from.order, from.order + seeds, from.order + from.blocks);
  }
  const double squared = from.squared[lane];
  for (size_t i = 0; i < from.blocks; ++i) {
    const auto block = static_cast<size_t>(from.order[i] & 0xffffffffu);
    // A row within the limit has S ≥ (|q|² − limit)/2; (S9), (S1): what is not in the score already.
    const double bar = (squared * (1 - 3 * kExactSquare) - found.limit() * (1 + 3 * kExactSquare)) / 2;
    const float score = from.maxima[block * kScanLanes + lane];
    if (i < seeds || (double{score} >= bar && score > kNever)) measure_block(index, block, query, found, table, stats);
  }
  found.add_copies(index);
}

}  // namespace

size_t scan_scratch_bytes(const SearchIndex& index) {
  Scratch scratch(nullptr);
  ScanBuffers buffers(scratch, index);
  return scratch.used();
}

void scan(const SearchIndex& index, MatrixView<const float> queries, const uint32_t* which, size_t count, size_t k,
          Neighbor* entries, const KernelTable& table, uint8_t* scratch_bytes, SearchStats& stats) noexcept {
  Scratch scratch(scratch_bytes);
  ScanBuffers buffers(scratch, index);
  for (size_t first = 0; first < count; first += kScanLanes) {
    const size_t lanes = std::min(kScanLanes, count - first);
    const size_t tiles = (lanes + kQueryLanes - 1) / kQueryLanes;
    pack_queries(index, queries, which + first, lanes, table, buffers);
    for (size_t block = 0; block < buffers.blocks; ++block) {
      float* maxima = buffers.maxima + block * kScanLanes;
      std::fill_n(maxima, tiles * kQueryLanes, kNever);
      if (!pack_rows(index, block, table, buffers)) continue;
      for (size_t t = 0; t < tiles; t += kTilesAtOnce) {  // these tiles stay near while the four panels pass
        for (size_t panel = 0; panel < kPanels; ++panel) {
          if (t == 0) prefetch_rows(index, (block + 1) * kBlockRows + panel * kPanelRows);
          table.scan_f32(buffers.tiles + t * (index.dims + 1) * kQueryLanes, std::min(kTilesAtOnce, tiles - t),
                         index.dims + 1, buffers.panels + panel * (index.dims + 1) * kPanelRows,
                         buffers.start + panel * kPanelRows, maxima + t * kQueryLanes);
        }
      }
    }
    for (size_t lane = 0; lane < lanes; ++lane) {
      Neighbors found(entries + (first + lane) * k, k);
      found.clear();
      prove_lane(index, lane, queries.row(which[first + lane]), k, found, table, buffers, stats);
    }
  }
  stats.scanned_queries += count;
}

void scan_float64(const SearchIndex& index, const float* query, Neighbors found, const KernelTable& table,
                  SearchStats& stats) noexcept {
  found.clear();
  for (size_t id = 0; id < index.row_count; ++id) {
    if (index.states[id] != RowState::kFirst) continue;
    found.offer(table.squared_f64(query, index.rows.row(id), index.dims), static_cast<uint32_t>(id));
    ++stats.exact_rows;
  }
  found.add_copies(index);
  ++stats.float64_queries;
}

}  // namespace onceover
