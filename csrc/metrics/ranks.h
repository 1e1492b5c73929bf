// The distinct anomalous scores, highest first, with their ranks among the normal scores: one walk down the counters.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "metrics/segmentation_state.h"

namespace onceover {

struct RankedScore {
  uint32_t key;
  uint64_t count;         // anomalous pixels with this score
  double weight;          // Σ 1 / area of their regions
  double channel_weight;  // Σ 1 / saturation area of the channel pixels with this score
  uint64_t above;         // normal scores that are certainly higher
  uint64_t tied;          // equal ones
  uint64_t uncertain;     // not to be told from it, because low bits were dropped: higher, equal or lower
};

// Counts the normal scores above a key that comes down.
class RankReader {
 public:
  RankReader(const KeyCounter& normals, const KernelTable& table) : normals_(normals), table_(table) {}

  // Sets how many keys are above and equal to `key`, which is never higher than in the call before.
  void move_to(uint32_t key);
  uint64_t above() const { return above_; }
  uint64_t equal() const { return equal_; }

 private:
  uint64_t sum(size_t first, size_t end) const;

  const KeyCounter& normals_;
  const KernelTable& table_;
  size_t page_ = kPages;  // of `counts_`; pages from here on are in `above_`, but for the low parts below `end_`
  size_t end_ = 0;
  std::vector<uint8_t> scratch_;
  PageCounts counts_;
  size_t extras_ = 0;  // of counts_.extras, those not yet in `above_`
  uint64_t above_ = 0, equal_ = 0;
};

// The sum of 1 / area, in an order that depends on the areas alone.
double sum_of_weights(const WeightedKey* entries, size_t count, std::vector<uint32_t>& scratch);

// Calls visit(RankedScore) for every distinct score of `pixels`, descending. Both are sorted by key; the keys of
// `channel_pixels` are among those of `pixels`.
template <typename Visit>
void visit_ranked(SegmentationState& state, const std::vector<WeightedKey>& pixels,
                  const std::vector<WeightedKey>& channel_pixels, const Visit& visit) {
  RankReader ranks(state.settled_normals(), state.table());
  const std::vector<std::pair<uint32_t, uint64_t>> coded = state.coded_normals();
  std::vector<uint32_t> scratch;
  size_t pixel = pixels.size(), channel_pixel = channel_pixels.size(), code = coded.size();
  uint64_t coded_above = 0;
  const auto weigh = [&](const std::vector<WeightedKey>& entries, size_t& end, uint32_t key, uint64_t& count) {
    size_t first = end;
    while (first > 0 && entries[first - 1] >> 32 >= key) --first;
    count = end - first;
    const double weight = sum_of_weights(entries.data() + first, end - first, scratch);
    end = first;
    return weight;
  };
  while (pixel > 0) {
    RankedScore score{};
    uint64_t ignored;
    score.key = static_cast<uint32_t>(pixels[pixel - 1] >> 32);
    score.weight = weigh(pixels, pixel, score.key, score.count);
    score.channel_weight = weigh(channel_pixels, channel_pixel, score.key, ignored);
    ranks.move_to(score.key >> state.dropped_bits());
    for (; code > 0 && coded[code - 1].first > score.key; --code) coded_above += coded[code - 1].second;
    score.above = ranks.above() + coded_above;
    score.tied = code > 0 && coded[code - 1].first == score.key ? coded[code - 1].second : 0;
    (state.dropped_bits() > 0 ? score.uncertain : score.tied) += ranks.equal();
    visit(score);
  }
}

}  // namespace onceover
