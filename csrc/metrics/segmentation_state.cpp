#include "metrics/segmentation_state.h"

#include <algorithm>
#include <functional>
#include <numeric>

#include "base/error.h"
#include "metrics/score_key.h"

namespace onceover {
namespace {

constexpr size_t kCodes = 65536;
constexpr size_t kKeysAtOnce = 1024;

template <typename T>
const T* row_of(const ScoreView& map, size_t y) {
  return reinterpret_cast<const T*>(static_cast<const uint8_t*>(map.data) +
                                    static_cast<ptrdiff_t>(y) * map.stride_bytes);
}

float score_of(const ScoreView& map, size_t y, size_t x) {
  switch (map.type) {
    case ScoreType::kFloat32:
      return row_of<float>(map, y)[x];
    case ScoreType::kFloat16:
      return score_of_f16(row_of<uint16_t>(map, y)[x]);
    case ScoreType::kUint8:
      return row_of<uint8_t>(map, y)[x];
    case ScoreType::kUint16:
      break;
  }
  return row_of<uint16_t>(map, y)[x];
}

void add_codes(std::vector<uint64_t>& to, const std::vector<uint64_t>& from) {
  if (from.empty()) return;
  to.resize(kCodes);
  for (size_t i = 0; i < kCodes; ++i) to[i] += from[i];
}

template <typename Convert>
void append_counts(const std::vector<uint64_t>& codes, const Convert& convert,
                   std::vector<std::pair<uint32_t, uint64_t>>& counts) {
  for (size_t code = 0; code < codes.size(); ++code) {
    if (codes[code] > 0) counts.push_back({key_of_score(convert(static_cast<uint16_t>(code))), codes[code]});
  }
}

// normal(y, first, end) and anomalous(run) for all pixels, row by row.
template <typename Normal, typename Anomalous>
void visit_pixels(const ScoreView& map, const std::vector<Run>& runs, const Normal& normal,
                  const Anomalous& anomalous) {
  size_t next = 0;
  for (size_t y = 0; y < map.height; ++y) {
    size_t x = 0;
    for (; next < runs.size() && runs[next].row == y; ++next) {
      if (runs[next].first > x) normal(y, x, runs[next].first);
      anomalous(runs[next]);
      x = runs[next].end;
    }
    if (x < map.width) normal(y, x, map.width);
  }
}

}  // namespace

SegmentationState::SegmentationState(int connectivity, size_t page_budget_bytes, const KernelTable& table)
    : table_(&table), finder_(connectivity, table), page_budget_bytes_(page_budget_bytes) {
  if (page_budget_bytes != 0 && page_budget_bytes < kMinBudgetBytes) {
    fail(Status::kUsage, "page budget of %zu bytes; expected at least %zu (4 MiB), or 0 for none", page_budget_bytes,
         kMinBudgetBytes);
  }
}

size_t SegmentationState::update(const ScoreView& map, const MaskView& mask, size_t group) {
  check(map);
  check_group(group);
  finder_.find(mask);
  if (groups_.size() <= group) groups_.resize(group + 1);
  take(map, groups_[group]);
  const size_t regions = finder_.areas().size();
  finder_.forget_much();
  return regions;
}

size_t SegmentationState::update_channels(const ScoreView& map, const std::vector<MaskView>& channels,
                                          const std::vector<uint32_t>& saturation_areas, size_t group) {
  check(map);
  check_group(group);
  if (channels.size() != saturation_areas.size()) {
    fail(Status::kUsage, "%zu channels and %zu saturation areas; expected one for each", channels.size(),
         saturation_areas.size());
  }
  std::vector<uint8_t> all(map.height * map.width, 0);
  std::vector<WeightedKey> highest;
  for (size_t channel = 0; channel < channels.size(); ++channel) {
    std::vector<uint32_t> keys;
    for (size_t y = 0; y < map.height; ++y) {
      const uint8_t* row = channels[channel].row(y);
      for (size_t x = 0; x < map.width; ++x) {
        if (row[x] == 0) continue;
        all[y * map.width + x] = 1;
        keys.push_back(key_of_score(score_of(map, y, x)));
      }
    }
    const uint32_t area = saturation_areas[channel];
    if (area < 1 || area > keys.size()) {
      fail(Status::kInput, "image %llu: saturation area %u of channel %zu, which has %zu pixels; expected 1 to that",
           static_cast<unsigned long long>(images_), area, channel, keys.size());
    }
    std::nth_element(keys.begin(), keys.begin() + (area - 1), keys.end(), std::greater<>());
    for (size_t i = 0; i < area; ++i) highest.push_back(weighted_key(keys[i], area));
  }
  finder_.find({all.data(), map.height, map.width, static_cast<ptrdiff_t>(map.width)});
  if (groups_.size() <= group) groups_.resize(group + 1);
  take(map, groups_[group]);
  groups_[group].channels += channels.size();
  is_whole_ = false;
  for (const WeightedKey entry : highest) groups_[group].channel_pixels.add(entry);
  is_whole_ = true;
  const size_t regions = finder_.areas().size();
  finder_.forget_much();
  return regions;
}

void SegmentationState::check_group(size_t group) const {
  if (group >= kMaxGroups) fail(Status::kUsage, "group %zu; expected 0 to %zu", group, kMaxGroups - 1);
}

void SegmentationState::check_whole() const {
  if (is_whole_) return;
  fail(Status::kMemory, "these metrics ran out of memory while an image was added and lack a part of it; gather again");
}

void SegmentationState::check(const ScoreView& map) const {
  check_whole();
  if (map.height == 0 || map.width == 0) {
    fail(Status::kInput, "image %llu: the anomaly map is %zu × %zu; it has no pixels",
         static_cast<unsigned long long>(images_), map.height, map.width);
  }
  size_t count = 0;
  for (size_t y = 0; y < map.height; ++y) {
    if (map.type == ScoreType::kFloat32) {
      count += table_->count_nan_f32(row_of<float>(map, y), map.width);
    } else if (map.type == ScoreType::kFloat16) {
      const uint16_t* row = row_of<uint16_t>(map, y);
      for (size_t x = 0; x < map.width; ++x) count += is_nan_f16(row[x]) ? 1 : 0;
    }
  }
  if (count > 0) {
    fail(Status::kInput, "image %llu: %zu of %zu scores are NaN; a NaN has no rank, find out where it comes from",
         static_cast<unsigned long long>(images_), count, map.height * map.width);
  }
}

void SegmentationState::take(const ScoreView& map, DefectGroup& group) {
  is_whole_ = false;  // until the end is reached
  const std::vector<uint32_t>& areas = finder_.areas();
  const auto anomalous = [&](const Run& run) {
    for (size_t x = run.first; x < run.end; ++x) {
      group.pixels.add(weighted_key(key_of_score(score_of(map, run.row, x)), areas[run.region]));
    }
  };
  const auto count_codes = [&](auto first_code, Codes& codes) {
    codes.resize(kCodes);
    visit_pixels(
        map, finder_.runs(),
        [&](size_t y, size_t first, size_t end) {
          const auto* row = row_of<decltype(first_code)>(map, y);
          for (size_t x = first; x < end; ++x) ++codes[row[x]];
        },
        anomalous);
  };
  if (map.type == ScoreType::kFloat16) {
    count_codes(uint16_t{}, half_codes_);
  } else if (map.type == ScoreType::kUint8) {
    count_codes(uint8_t{}, whole_codes_);
  } else if (map.type == ScoreType::kUint16) {
    count_codes(uint16_t{}, whole_codes_);
  } else {
    visit_pixels(
        map, finder_.runs(),
        [&](size_t y, size_t first, size_t end) {
          const float* row = row_of<float>(map, y);
          uint32_t keys[kKeysAtOnce];
          for (size_t x = first; x < end; x += kKeysAtOnce) {
            const size_t count = std::min(kKeysAtOnce, end - x);
            table_->keys_f32(row + x, count, static_cast<uint32_t>(dropped_bits_), keys);
            normals_.add(keys, count);
          }
        },
        anomalous);
  }
  group.regions += areas.size();
  ++images_;
  keep_budget();
  is_whole_ = true;
}

void SegmentationState::merge(const SegmentationState& other, const std::vector<size_t>& groups) {
  if (!groups.empty() && groups.size() != other.groups_.size()) {
    fail(Status::kUsage, "%zu numbers for %zu groups; expected one for each", groups.size(), other.groups_.size());
  }
  for (const size_t group : groups) check_group(group);
  check_whole();
  other.check_whole();
  if (connectivity() != other.connectivity()) {
    fail(Status::kUsage, "one side was gathered with %d-connected regions, the other with %d-connected ones",
         connectivity(), other.connectivity());
  }
  if (&other == this) {
    SegmentationState copy(connectivity(), 0, *table_);
    copy.merge(*this);
    merge(copy, groups);
    return;
  }
  is_whole_ = false;  // until the end is reached
  if (other.dropped_bits_ > dropped_bits_) drop_bits(other.dropped_bits_ - dropped_bits_);
  normals_.absorb(other.normals_, dropped_bits_ - other.dropped_bits_);
  add_codes(half_codes_, other.half_codes_);
  add_codes(whole_codes_, other.whole_codes_);
  for (size_t i = 0; i < other.groups_.size(); ++i) {
    const DefectGroup& from = other.groups_[i];
    const size_t number = groups.empty() ? i : groups[i];
    if (groups_.size() <= number) groups_.resize(number + 1);
    DefectGroup& to = groups_[number];
    to.pixels.absorb(from.pixels);
    to.channel_pixels.absorb(from.channel_pixels);
    to.regions += from.regions;
    to.channels += from.channels;
  }
  images_ += other.images_;
  keep_budget();
  is_whole_ = true;
}

uint64_t SegmentationState::normal_pixels() const {
  const uint64_t halves = std::accumulate(half_codes_.begin(), half_codes_.end(), uint64_t{0});
  return std::accumulate(whole_codes_.begin(), whole_codes_.end(), normals_.total() + halves);
}

uint64_t SegmentationState::anomalous_pixels() const {
  uint64_t count = 0;
  for (const DefectGroup& group : groups_) count += group.pixels.size();
  return count;
}

size_t SegmentationState::size_bytes() const {
  size_t bytes = sizeof *this + normals_.size_bytes() + finder_.size_bytes() +
                 (half_codes_.size() + whole_codes_.size()) * sizeof(uint64_t);
  for (const DefectGroup& group : groups_) {
    bytes += sizeof group + group.pixels.size_bytes() + group.channel_pixels.size_bytes();
  }
  return bytes;
}

std::vector<std::pair<uint32_t, uint64_t>> SegmentationState::coded_normals() const {
  std::vector<std::pair<uint32_t, uint64_t>> counts;
  append_counts(half_codes_, score_of_f16, counts);
  append_counts(whole_codes_, [](uint16_t code) { return static_cast<float>(code); }, counts);
  std::sort(counts.begin(), counts.end());
  size_t kept = 0;
  for (const auto& each : counts) {
    if (kept > 0 && counts[kept - 1].first == each.first) {
      counts[kept - 1].second += each.second;
    } else {
      counts[kept++] = each;
    }
  }
  counts.resize(kept);
  return counts;
}

void SegmentationState::drop_bits(int bits) {
  KeyCounter coarser;
  coarser.absorb(normals_, bits);
  normals_ = std::move(coarser);
  dropped_bits_ += bits;
}

void SegmentationState::keep_budget() {
  if (page_budget_bytes_ == 0 || normals_.size_bytes() <= page_budget_bytes_) return;
  normals_.settle();  // what waits takes most room
  while (normals_.size_bytes() > page_budget_bytes_ && dropped_bits_ < kMaxDroppedBits) {
    drop_bits(1);
    normals_.settle();
  }
}

}  // namespace onceover
