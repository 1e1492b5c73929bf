// One batch of queries at a time: code them, screen all blocks, then prove group by group; what the screen cannot prune
// cheaply is scanned.
#include "scoring/search.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "scoring/bounds.h"
#include "scoring/neighbors.h"
#include "scoring/prove.h"
#include "scoring/query_codes.h"
#include "scoring/query_order.h"
#include "scoring/scan.h"
#include "scoring/scratch.h"

namespace onceover {
namespace {

constexpr size_t kMaximaBytes = 256 * 1024;  // of one batch: stays in the second-level cache
constexpr size_t kMostGroups = 64;
constexpr size_t kFewestForPart = 32;      // queries for which fewer screened coordinates pay for unpacking their norms
constexpr size_t kMostForPart = 2;         // neighbors
constexpr size_t kChunkBytes = 16 * 1024;  // codes that stay in the first-level cache while all groups pass over them

size_t batch_groups(const SearchIndex& index) {
  if (index.block_count() == 0) return 8;
  const size_t fit = kMaximaBytes / (index.block_count() * kQueryLanes * sizeof(int32_t));
  return std::clamp<size_t>(fit / 2 * 2, 4, kMostGroups);
}

struct BatchBuffers {
  size_t groups;
  QueryGroup* group;                    // [groups]
  QueryTile* tiles;                     // [groups]
  int32_t** maxima;                     // [groups] → [blocks][16]
  int32_t** chunk;                      // [groups] → where the chunk being screened goes
  OrderedQuery* ordered;                // [kOrderWindow]
  uint32_t* order;                      // [kOrderWindow]
  size_t scan_room;                     // queries to scan, of one batch or several: a scan takes many at once
  uint32_t* scanned;                    // [scan_room]
  Neighbor* found;                      // [16][k] of one group
  Neighbor* scan_found;                 // [scan_room][k]
  int32_t *screen_norms, *screen_sums;  // [slots] where not all coordinates are screened
  CodingBuffers coding;
  ProofBuffers proof;
  uint8_t* scan_scratch;

  BatchBuffers(Scratch& scratch, const SearchIndex& index, size_t k)
      : groups(batch_groups(index)),
        group(scratch.take<QueryGroup>(groups)),
        tiles(scratch.take<QueryTile>(groups)),
        maxima(scratch.take<int32_t*>(groups)),
        chunk(scratch.take<int32_t*>(groups)),
        ordered(scratch.take<OrderedQuery>(kOrderWindow)),
        order(scratch.take<uint32_t>(kOrderWindow)),
        scan_room(std::max(2 * kScanLanes, groups * kQueryLanes)),
        scanned(scratch.take<uint32_t>(scan_room)),
        found(scratch.take<Neighbor>(kQueryLanes * k)),
        scan_found(scratch.take<Neighbor>(scan_room * k)),
        screen_norms(scratch.take<int32_t>(index.screened < index.rank1 ? index.slot_count : 0)),
        screen_sums(scratch.take<int32_t>(index.screened < index.rank1 ? index.slot_count : 0)),
        coding(scratch, index),
        proof(scratch, index),
        scan_scratch(scratch.take<uint8_t>(scan_scratch_bytes(index))) {
    for (size_t g = 0; g < groups; ++g) {
      QueryGroup next = {};
      next.tile = scratch.take<int8_t>(index.rank1 * kQueryLanes);
      next.shifts = scratch.take<int32_t>(kQueryLanes);
      next.z = scratch.take<float>(index.rank2 * kQueryLanes);
      next.bounds = scratch.take<QueryBounds>(kQueryLanes);
      int32_t* scores = scratch.take<int32_t>(index.block_count() * kQueryLanes);
      if (group == nullptr) continue;
      group[g] = next;
      maxima[g] = scores;
    }
  }
};

// The codes of the coordinates that are screened, with their norms and sums, if there are enough queries to pay for
// these; else all of them. Of many neighbors, the farthest is so far that a part of the coordinates lets too much pass.
// To AMX 32 coordinates cost what 64 do, and all prune better.
CodeBlocks screened_blocks(const SearchIndex& index, size_t query_count, size_t k, const KernelTable& table,
                           BatchBuffers& buffers) {
  CodeBlocks blocks = index.blocks;
  const size_t left_out = index.rank1 - index.screened;
  if (query_count < kFewestForPart || k > kMostForPart || left_out == 0 || left_out % table.screen_unit != 0)
    return blocks;
  for (size_t slot = 0; slot < index.slot_count; ++slot) {
    const SlotFacts& facts = index.facts[slot];
    buffers.screen_norms[slot] = facts.id == kNoRow ? kEmptySlotNorm : screen_norm(facts.screen);
    buffers.screen_sums[slot] = screen_sum(facts.screen);
  }
  blocks.norms = buffers.screen_norms;
  blocks.sums = buffers.screen_sums;
  blocks.first = left_out;
  return blocks;
}

void screen(const SearchIndex& index, const CodeBlocks& all, size_t group_count, const KernelTable& table,
            BatchBuffers& buffers) {
  for (size_t g = 0; g < group_count; ++g) {
    const QueryGroup& group = buffers.group[g];
    buffers.tiles[g] = {group.tile, group.has_shifts ? group.shifts : nullptr};
  }
  const size_t blocks = index.block_count();
  const size_t step = std::max<size_t>(1, kChunkBytes / (kBlockRows * index.rank1));
  for (size_t block = 0; block < blocks; block += step) {
    const size_t slot = block * kBlockRows;
    CodeBlocks part = all;
    part.codes += slot * index.rank1;
    part.norms += slot;
    part.sums += slot;
    for (size_t g = 0; g < group_count; ++g) buffers.chunk[g] = buffers.maxima[g] + block * kQueryLanes;
    table.screen_i8(part, std::min(step, blocks - block), buffers.tiles, group_count, buffers.chunk);
  }
}

// Without codes, queries are only judged.
void judge_group(const SearchIndex& index, MatrixView<const float> queries, const KernelTable& table,
                 CodingBuffers& buffers, QueryGroup& group) {
  for (size_t lane = 0; lane < group.count; ++lane) {
    const float* query = queries.row(group.which[lane]);
    group.bounds[lane].kind = judge(index, query, table.center_f32(query, index.mean, index.dims, buffers.x));
  }
}

class Search {
 public:
  Search(const SearchIndex& index, MatrixView<const float> queries, size_t k, float* distances, uint32_t* indices,
         const KernelTable& table, uint8_t* scratch_bytes, SearchStats& stats,
         const std::function<bool(const SearchStats&)>* needless = nullptr)
      : index_(index),
        queries_(queries),
        k_(k),
        distances_(distances),
        indices_(indices),
        table_(table),
        stats_(stats),
        needless_(needless),
        scratch_(scratch_bytes),
        buffers_(scratch_, index, k),
        has_codes_(index.representation != Representation::kScan && index.block_count() > 0),
        blocks_(screened_blocks(index, queries.rows, k, table, buffers_)) {}

  void run() {
    stats_.queries += queries_.rows;
    const size_t batch = buffers_.groups * kQueryLanes;
    for (size_t first = 0; first < queries_.rows; first += kOrderWindow) {
      const size_t window = std::min(kOrderWindow, queries_.rows - first);
      if (has_codes_ && window > kQueryLanes) {
        order_queries(index_, queries_, first, window, table_, buffers_.ordered, buffers_.order);
      } else {
        for (size_t i = 0; i < window; ++i) buffers_.order[i] = static_cast<uint32_t>(first + i);
      }
      for (size_t at = 0; at < window; at += batch) run_batch(buffers_.order + at, std::min(batch, window - at));
    }
    scan_those_left();
  }

 private:
  void run_batch(const uint32_t* which, size_t count) {
    const size_t group_count = (count + kQueryLanes - 1) / kQueryLanes;
    for (size_t g = 0; g < group_count; ++g) {
      QueryGroup& group = buffers_.group[g];
      group.which = which + g * kQueryLanes;
      group.count = std::min(kQueryLanes, count - g * kQueryLanes);
      (has_codes_ ? code_group : judge_group)(index_, queries_, table_, buffers_.coding, group);
    }
    if (has_codes_) screen(index_, blocks_, group_count, table_, buffers_);
    if (to_scan_ + count > buffers_.scan_room) scan_those_left();
    for (size_t g = 0; g < group_count; ++g) {
      QueryGroup& group = buffers_.group[g];
      if (has_codes_) {
        prove_group(index_, blocks_, queries_, k_, buffers_.maxima[g], group, buffers_.found, table_, buffers_.proof,
                    stats_);
      }
      for (size_t lane = 0; lane < group.count; ++lane) {
        if (!answer(group.bounds[lane].kind, group.which[lane], {buffers_.found + lane * k_, k_})) {
          buffers_.scanned[to_scan_++] = group.which[lane];
        }
      }
    }
  }

  void scan_those_left() {
    if (to_scan_ == 0) return;
    if (needless_ != nullptr) {
      SearchStats known = stats_;
      known.scanned_queries += to_scan_;
      if ((*needless_)(known)) {
        stats_ = known;
        to_scan_ = 0;
        return;
      }
    }
    scan(index_, queries_, buffers_.scanned, to_scan_, k_, buffers_.scan_found, table_, buffers_.scan_scratch, stats_);
    for (size_t i = 0; i < to_scan_; ++i) write(buffers_.scanned[i], {buffers_.scan_found + i * k_, k_});
    to_scan_ = 0;
  }

  // False: to be scanned.
  bool answer(QueryKind kind, uint32_t query, Neighbors found) {
    switch (kind) {
      case QueryKind::kCoded:
        found.add_copies(index_);
        break;
      case QueryKind::kScan:
        return false;
      case QueryKind::kFloat64:
        scan_float64(index_, queries_.row(query), found, table_, stats_);
        break;
      case QueryKind::kNotFinite:
      case QueryKind::kAbsent:
        found.clear();
        break;
    }
    write(query, found);
    return true;
  }

  void write(uint32_t query, const Neighbors& found) {
    found.write(distances_ + size_t{query} * k_, indices_ + size_t{query} * k_);
  }

  const SearchIndex& index_;
  MatrixView<const float> queries_;
  size_t k_;
  float* distances_;
  uint32_t* indices_;
  const KernelTable& table_;
  SearchStats& stats_;
  const std::function<bool(const SearchStats&)>* needless_;  // count_search's
  Scratch scratch_;
  BatchBuffers buffers_;
  bool has_codes_;
  CodeBlocks blocks_;  // as they are screened
  size_t to_scan_ = 0;
};

}  // namespace

void add_to(SearchStats& total, const SearchStats& part) noexcept {
  total.queries += part.queries;
  total.coarse_queries += part.coarse_queries;
  total.hit_blocks += part.hit_blocks;
  total.refined_rows += part.refined_rows;
  total.measured_rows += part.measured_rows;
  total.exact_rows += part.exact_rows;
  total.scanned_queries += part.scanned_queries;
  total.float64_queries += part.float64_queries;
}

size_t search_scratch_bytes(const SearchIndex& index, size_t k) {
  Scratch scratch(nullptr);
  BatchBuffers buffers(scratch, index, k);
  return scratch.used();
}

void search(const SearchIndex& index, MatrixView<const float> queries, size_t k, float* distances, uint32_t* indices,
            const KernelTable& table, uint8_t* scratch, SearchStats& stats) noexcept {
  Search(index, queries, k, distances, indices, table, scratch, stats).run();
}

void count_search(const SearchIndex& index, MatrixView<const float> queries, size_t k, const KernelTable& table,
                  const std::function<bool(const SearchStats&)>& needless, Memory& memory, SearchStats& stats) {
  Buffer<uint8_t> scratch(memory, search_scratch_bytes(index, k), "search scratch");
  std::vector<float> distances(queries.rows * k);
  std::vector<uint32_t> ids(queries.rows * k);
  Search(index, queries, k, distances.data(), ids.data(), table, scratch.data(), stats, &needless).run();
}

}  // namespace onceover
