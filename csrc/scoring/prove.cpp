#include "scoring/prove.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "scoring/bounds.h"

namespace onceover {
namespace {

constexpr size_t kHitsAtOnce = 64;
constexpr size_t kMostPairs = 4096;
constexpr size_t kRowsAhead = 3;

// Rough costs in cycles, to compare a proof with a scan; only speed depends on them.
double scan_cost(const SearchIndex& index) {
  return static_cast<double>(index.row_count) * (static_cast<double>(index.dims) + 16) / 14;
}
double refine_cost(const SearchIndex& index) { return 40 + static_cast<double>(index.rank2) / 4; }
double measure_cost(const SearchIndex& index) { return 100 + static_cast<double>(index.dims) / 2; }
double block_cost(const SearchIndex& index) { return 10 * static_cast<double>(index.rank1); }
constexpr double kLaneShare = 0.35;  // of a scan, that a lane's own rows may cost
constexpr double kGroupShare = 0.3;  // of 16 scans, that looking at blocks again may cost

class GroupProof {
 public:
  GroupProof(const SearchIndex& index, const CodeBlocks& screened, MatrixView<const float> queries, size_t k,
             QueryGroup& group, Neighbor* entries, const KernelTable& table, ProofBuffers& buffers, SearchStats& stats)
      : index_(index),
        screened_(screened),
        queries_(queries),
        k_(k),
        group_(group),
        entries_(entries),
        table_(table),
        buffers_(buffers),
        stats_(stats),
        tile_{group.tile, group.has_shifts ? group.shifts : nullptr},
        refined_lower_(refined_lower(index.rank2)),
        refined_lower_f32_(static_cast<float>(refined_lower_)),
        measured_lower_(measured_lower(index.dims)),
        lane_budget_(kLaneShare * scan_cost(index)),
        refine_cost_(refine_cost(index)),
        measure_cost_(measure_cost(index)) {
    for (size_t lane = 0; lane < kQueryLanes; ++lane) {
      cost_[lane] = 0;
      lane_tail_[lane] = group.bounds[lane].tail;
      neighbors(lane).clear();
      if (is_coded(lane) && group.shifts[lane] != 0) ++stats.coarse_queries;
    }
  }

  void run(int32_t* maxima) {
    if (k_ == 1) {
      seed_nearest(maxima);
    } else {
      for (size_t lane = 0; lane < kQueryLanes; ++lane) {
        if (is_coded(lane)) seed_lane(maxima, lane);
      }
    }
    const double group_budget = kGroupShare * kQueryLanes * scan_cost(index_);
    double spent = 0;
    size_t position = 0;
    while (position < index_.block_count()) {
      set_bounds();
      const size_t count = table_.find_hits(maxima, index_.block_errors, &position, index_.block_count(), bounds_,
                                            kHitsAtOnce, buffers_.blocks, buffers_.thresholds);
      if (count == 0) continue;
      stats_.hit_blocks += count;
      spent += static_cast<double>(count) * block_cost(index_);
      if (spent > group_budget) return give_up_all();
      look_again(count);
    }
  }

 private:
  bool is_coded(size_t lane) const { return group_.bounds[lane].kind == QueryKind::kCoded; }
  Neighbors neighbors(size_t lane) { return {entries_ + lane * k_, k_}; }
  const float* query(size_t lane) const { return queries_.row(group_.which[lane]); }

  // All coordinates of the listed blocks' codes, by the thresholds beside them.
  void look_again(size_t count) {
    table_.hit_rows_i8(index_.blocks, tile_, buffers_.blocks, count, buffers_.thresholds, buffers_.hits);
    examine(count);
  }

  void give_up_all() {
    for (size_t lane = 0; lane < kQueryLanes; ++lane) {
      if (is_coded(lane)) group_.bounds[lane].kind = QueryKind::kScan;
    }
  }
  // Books what a lane is about to cost. False: a scan is cheaper, and the lane is left to it.
  bool spend(size_t lane, double cost) {
    cost_[lane] += cost;
    if (cost_[lane] <= lane_budget_) return true;
    group_.bounds[lane].kind = QueryKind::kScan;
    return false;
  }

  void offer_exact(size_t lane, uint32_t id) {
    ++stats_.exact_rows;
    neighbors(lane).offer(table_.squared_f64(query(lane), index_.rows.row(id), index_.dims), id);
  }

  // The row of `block` that screens best for `lane`: bit `lane` of its hits at the block's own maximum.
  uint32_t best_row(size_t at, size_t lane) const {
    const uint16_t* hits = buffers_.hits + at * kBlockRows;
    for (size_t row = 0; row < kBlockRows; ++row) {
      if (hits[row] >> lane & 1) return index_.facts[buffers_.blocks[at] * kBlockRows + row].id;
    }
    return kNoRow;
  }

  // k = 1: every lane's best screened row is measured, which bounds its distance from above.
  void seed_nearest(int32_t* maxima) {
    int32_t best[kQueryLanes], block[kQueryLanes];
    size_t at[kQueryLanes], count = 0;
    table_.best_blocks(maxima, index_.block_count(), best, block);
    for (size_t lane = 0; lane < kQueryLanes; ++lane) {
      if (!is_coded(lane)) continue;
      size_t i = 0;
      while (i < count && buffers_.blocks[i] != static_cast<uint32_t>(block[lane])) ++i;
      if (i == count) {
        buffers_.blocks[count++] = static_cast<uint32_t>(block[lane]);
        std::fill_n(buffers_.thresholds + i * kQueryLanes, kQueryLanes, INT32_MAX);
      }
      buffers_.thresholds[i * kQueryLanes + lane] = best[lane];
      at[lane] = i;
    }
    table_.hit_rows_i8(screened_, tile_, buffers_.blocks, count, buffers_.thresholds, buffers_.hits);
    uint32_t ids[kQueryLanes];
    for (size_t lane = 0; lane < kQueryLanes; ++lane) {
      ids[lane] = is_coded(lane) ? best_row(at[lane], lane) : kNoRow;
      if (ids[lane] != kNoRow && lane < 4) prefetch_row(ids[lane]);
    }
    for (size_t lane = 0; lane < kQueryLanes; ++lane) {
      if (lane + 4 < kQueryLanes && ids[lane + 4] != kNoRow) prefetch_row(ids[lane + 4]);
      if (ids[lane] != kNoRow) offer_exact(lane, ids[lane]);
    }
    if (screened_.first > 0) examine_first(maxima, count);
  }

  // A part of the coordinates seldom screens the nearest row best, but a near one, whose block has nearer ones: looking
  // at those first tightens the bounds of all other blocks.
  void examine_first(int32_t* maxima, size_t count) {
    uint32_t blocks[kQueryLanes];
    std::copy_n(buffers_.blocks, count, blocks);
    set_bounds();
    size_t hits = 0;
    for (size_t i = 0; i < count; ++i) {
      size_t position = blocks[i];
      hits += table_.find_hits(maxima, index_.block_errors, &position, position + 1, bounds_, 1, buffers_.blocks + hits,
                               buffers_.thresholds + hits * kQueryLanes);
    }
    stats_.hit_blocks += hits;
    look_again(hits);
    for (size_t i = 0; i < count; ++i) std::fill_n(maxima + blocks[i] * kQueryLanes, kQueryLanes, INT32_MIN);  // done
  }

  // k > 1: the best rows of the k best blocks.
  void seed_lane(const int32_t* maxima, size_t lane) {
    const size_t blocks = index_.block_count(), wanted = std::min(k_, blocks);
    for (size_t block = 0; block < blocks; ++block) {  // largest score first, then lowest block, as one number
      const auto score = static_cast<uint32_t>(maxima[block * kQueryLanes + lane]) ^ 0x80000000u;
      buffers_.order[block] = uint64_t{~score} << 32 | block;
    }
    std::partial_sort(buffers_.order, buffers_.order + wanted, buffers_.order + blocks);
    for (size_t i = 0; i < wanted; ++i) {
      buffers_.blocks[i] = static_cast<uint32_t>(buffers_.order[i]);
      std::fill_n(buffers_.thresholds + i * kQueryLanes, kQueryLanes, INT32_MAX);
      buffers_.thresholds[i * kQueryLanes + lane] = maxima[buffers_.blocks[i] * kQueryLanes + lane];
    }
    table_.hit_rows_i8(screened_, tile_, buffers_.blocks, wanted, buffers_.thresholds, buffers_.hits);
    for (size_t i = 0; i < wanted; ++i) {
      const uint32_t id = best_row(i, lane);
      if (id != kNoRow) offer_exact(lane, id);
    }
  }

  // How far a row may be in real arithmetic (S1), and by the second bound.
  void set_reach(size_t lane) {
    limit_[lane] = std::sqrt(neighbors(lane).limit()) * kExactDistance;
    refined_reach_[lane] = limit_[lane] + group_.bounds[lane].refined_error;
    lane_reach_[lane] = static_cast<float>(refined_reach_[lane]);
  }

  void set_bounds() {  // EXACTNESS.md section 4
    const double step = double{index_.step}, unit = std::ldexp(1.0, -table_.unit_shift);
    for (size_t lane = 0; lane < kQueryLanes; ++lane) {
      const QueryBounds& query_bounds = group_.bounds[lane];
      if (!is_coded(lane)) {
        bounds_.base[lane] = bounds_.screen_base[lane] = std::numeric_limits<float>::infinity();
        bounds_.curve[lane] = bounds_.reach[lane] = 0;
        continue;
      }
      set_reach(lane);
      bounds_.reach[lane] = round_up((limit_[lane] + query_bounds.code_error) * kReachUpper);
      const double screen_half_norm = screened_.first > 0 ? query_bounds.screen_half_norm : query_bounds.half_norm;
      bounds_.base[lane] = static_cast<float>((query_bounds.half_norm * kBoundLower) * unit - kBoundUnits);  // (S6)
      bounds_.screen_base[lane] = static_cast<float>((screen_half_norm * kBoundLower) * unit - kBoundUnits);
      bounds_.curve[lane] = static_cast<float>(kBoundUpper * unit / (2 * step * step));
    }
  }

  // Rows of the listed blocks that the codes do not rule out take the second bound; what is left is measured.
  void examine(size_t count) {
    size_t pairs = 0;
    uint64_t busy[kHitsAtOnce];  // which bytes of a block's hits, of eight lanes of a row each, are not zero: few
    static_assert(kBlockRows * sizeof *buffers_.hits == 64);
    const auto* bytes = reinterpret_cast<const uint8_t*>(buffers_.hits);
    table_.nonzero_bits(bytes, count * 64, busy);
    for (size_t i = 0; i < count; ++i) {
      if (pairs + kBlockRows * kQueryLanes > kMostPairs) {
        examine_pairs(pairs);
        pairs = 0;
      }
      for (; busy[i] != 0; busy[i] &= busy[i] - 1) {
        const auto byte = static_cast<size_t>(__builtin_ctzll(busy[i]));
        const size_t first = buffers_.blocks[i] * kBlockRows * kQueryLanes + 8 * byte;
        __builtin_prefetch(index_.facts + first / kQueryLanes);
        for (uint32_t eight = bytes[64 * i + byte]; eight != 0; eight &= eight - 1) {
          buffers_.pairs[pairs++] = static_cast<uint32_t>(first + static_cast<size_t>(__builtin_ctz(eight)));
        }
      }
    }
    examine_pairs(pairs);
  }

  void examine_pairs(size_t count) {
    // Books what each lane is about to cost; one for which a scan is cheaper is left to it.
    uint32_t lane_pairs[kQueryLanes] = {};
    for (size_t i = 0; i < count; ++i) ++lane_pairs[buffers_.pairs[i] & 15];
    bool left = false;
    for (size_t lane = 0; lane < kQueryLanes; ++lane) left |= !spend(lane, lane_pairs[lane] * refine_cost_);
    if (left) {
      size_t kept = 0;
      for (size_t i = 0; i < count; ++i) {
        if (is_coded(buffers_.pairs[i] & 15)) buffers_.pairs[kept++] = buffers_.pairs[i];
      }
      count = kept;
    }
    table_.refine_rows(group_.z, index_.weights, index_.blocks, index_.refine, index_.rank2, buffers_.pairs, count,
                       buffers_.squared);
    stats_.refined_rows += count;
    // Most pairs fall by a comparison in float32 that lets through all that the one in float64 does (`measure`).
    size_t kept = 0;
    for (size_t i = 0; i < count; ++i) {
      const uint32_t pair = buffers_.pairs[i];
      const SlotFacts& facts = index_.facts[pair >> 4];
      const float tail = lane_tail_[pair & 15] - facts.tail, reach = lane_reach_[pair & 15] + facts.refined_error;
      buffers_.candidates[kept] = Candidate(buffers_.squared[i], pair);
      kept +=
          (buffers_.squared[i] + tail * tail) * refined_lower_f32_ > reach * reach * kComparedUpper + kComparedUnderflow
              ? 0
              : 1;
    }
    size_t candidates = 0;
    for (size_t i = 0; i < kept; ++i) {
      const Candidate candidate = buffers_.candidates[i];
      const SlotFacts& facts = index_.facts[candidate.pair() >> 4];
      if (facts.id == kNoRow) continue;
      __builtin_prefetch(index_.rows.row(facts.id));
      buffers_.candidates[candidates++] = candidate;
    }
    measure(candidates);
  }

  // The second bound, squared: real arithmetic's is not below it (S7).
  double bound(float head, size_t lane, const SlotFacts& facts) const {
    const double tail = double{group_.bounds[lane].tail} - double{facts.tail};
    return (double{head} + tail * tail) * refined_lower_;
  }

  const SlotFacts& facts_of(const Candidate& candidate) const { return index_.facts[candidate.pair() >> 4]; }

  // As far as is known by now.
  bool can_be_near(const Candidate& candidate) const {
    const size_t lane = candidate.pair() & 15;
    const SlotFacts& facts = facts_of(candidate);
    const double reach = refined_reach_[lane] + double{facts.refined_error};
    return is_coded(lane) && !(bound(candidate.squared(), lane, facts) > reach * reach);  // NaN can
  }

  // Nearest by the second bound first, so that the limits fall quickly.
  void measure(size_t count) {
    Candidate* list = buffers_.candidates;
    std::sort(list, list + count);
    uint64_t measured = 0;
    for (size_t i = 0; i < std::min(count, kRowsAhead); ++i) prefetch_row(facts_of(list[i]).id);
    for (size_t i = 0; i < count; ++i) {
      if (i + kRowsAhead < count && can_be_near(list[i + kRowsAhead])) prefetch_row(facts_of(list[i + kRowsAhead]).id);
      const size_t lane = list[i].pair() & 15;
      const SlotFacts& facts = facts_of(list[i]);
      Neighbors found = neighbors(lane);
      const double limit = found.limit();
      if (!can_be_near(list[i]) || found.has(facts.id)) continue;
      if (!spend(lane, measure_cost_)) continue;
      if (limit >= kSmallestMeasured) {
        ++measured;
        const float squared = table_.squared_f32(query(lane), index_.rows.row(facts.id), index_.dims);
        if (double{squared} * measured_lower_ > limit) continue;  // (S8)
      }
      offer_exact(lane, facts.id);
      set_reach(lane);
    }
    stats_.measured_rows += measured;
  }

  void prefetch_row(uint32_t id) const {
    const float* row = index_.rows.row(id);
    for (size_t i = 0; i < std::min<size_t>(index_.dims, 512); i += 16) __builtin_prefetch(row + i);
  }

  const SearchIndex& index_;
  const CodeBlocks& screened_;
  MatrixView<const float> queries_;
  size_t k_;
  QueryGroup& group_;
  Neighbor* entries_;
  const KernelTable& table_;
  ProofBuffers& buffers_;
  SearchStats& stats_;
  QueryTile tile_;
  double refined_lower_;
  float refined_lower_f32_;
  double measured_lower_;
  double lane_budget_, refine_cost_, measure_cost_;
  LaneBounds bounds_;
  float lane_reach_[kQueryLanes] = {}, lane_tail_[kQueryLanes];
  double limit_[kQueryLanes] = {}, refined_reach_[kQueryLanes] = {}, cost_[kQueryLanes];
};

}  // namespace

ProofBuffers::ProofBuffers(Scratch& scratch, const SearchIndex& index)
    : blocks(scratch.take<uint32_t>(kHitsAtOnce)),
      thresholds(scratch.take<int32_t>(kHitsAtOnce * kQueryLanes)),
      hits(scratch.take<uint16_t>(kHitsAtOnce * kBlockRows)),
      pairs(scratch.take<uint32_t>(kMostPairs)),
      squared(scratch.take<float>(kMostPairs)),
      candidates(scratch.take<Candidate>(kMostPairs)),
      order(scratch.take<uint64_t>(index.block_count())) {}

void prove_group(const SearchIndex& index, const CodeBlocks& screened, MatrixView<const float> queries, size_t k,
                 int32_t* maxima, QueryGroup& group, Neighbor* entries, const KernelTable& table, ProofBuffers& buffers,
                 SearchStats& stats) noexcept {
  bool any = false;
  for (size_t lane = 0; lane < kQueryLanes; ++lane) any = any || group.bounds[lane].kind == QueryKind::kCoded;
  if (any) GroupProof(index, screened, queries, k, group, entries, table, buffers, stats).run(maxima);
}

void Neighbors::add_copies(const SearchIndex& index) {
  if (index.copy_count == 0) return;
  Neighbor found[kMaxNeighbors];
  std::copy_n(entries_, k_, found);
  for (size_t i = 0; i < k_ && found[i].id != kNoRow; ++i) {
    const uint32_t* end = index.copies + 2 * index.copy_count;
    size_t low = 0, high = index.copy_count;  // first pair of this row
    while (low < high) {
      const size_t middle = (low + high) / 2;
      if (index.copies[2 * middle] < found[i].id) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    for (const uint32_t* pair = index.copies + 2 * low; pair != end && pair[0] == found[i].id; pair += 2) {
      offer(found[i].squared, pair[1]);
    }
  }
}

}  // namespace onceover
