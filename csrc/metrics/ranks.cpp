#include "metrics/ranks.h"

#include <cstring>

namespace onceover {

void sort_by_key(std::vector<WeightedKey>& entries) {
  constexpr size_t kFew = 4096;
  if (entries.size() < kFew) {
    std::sort(entries.begin(), entries.end());
    return;
  }
  constexpr size_t kBuckets = 2048;
  constexpr int kShifts[] = {32, 43, 54};  // 11, 11 and 10 bits of the key
  std::vector<size_t> starts(3 * kBuckets, 0);
  for (const WeightedKey entry : entries) {
    for (size_t pass = 0; pass < 3; ++pass) ++starts[pass * kBuckets + ((entry >> kShifts[pass]) & (kBuckets - 1))];
  }
  std::vector<WeightedKey> other(entries.size());
  for (size_t pass = 0; pass < 3; ++pass) {
    size_t* start = starts.data() + pass * kBuckets;
    if (*std::max_element(start, start + kBuckets) == entries.size()) continue;  // all alike
    size_t sum = 0;
    for (size_t i = 0; i < kBuckets; ++i) sum += std::exchange(start[i], sum);
    for (const WeightedKey entry : entries) other[start[(entry >> kShifts[pass]) & (kBuckets - 1)]++] = entry;
    entries.swap(other);
  }
}

double sum_of_weights(const WeightedKey* entries, size_t count, std::vector<uint32_t>& scratch) {
  if (count == 0) return 0;
  if (count == 1) return 1.0 / static_cast<double>(static_cast<uint32_t>(entries[0]));
  scratch.resize(count);
  for (size_t i = 0; i < count; ++i) scratch[i] = static_cast<uint32_t>(entries[i]);
  std::sort(scratch.begin(), scratch.end());
  double weight = 0;
  for (size_t i = 0; i < count;) {
    size_t next = i + 1;
    while (next < count && scratch[next] == scratch[i]) ++next;
    weight += static_cast<double>(next - i) / scratch[i];
    i = next;
  }
  return weight;
}

void RankReader::move_to(uint32_t key) {
  const size_t page = key >> kLowBits, low = key & (kPageKeys - 1);
  if (page != page_) {
    if (page_ < kPages) {  // what is left of the page before
      above_ += sum(0, end_);
      for (; extras_ > 0; --extras_) above_ += counts_.extras[extras_ - 1].count;
    }
    for (size_t skipped = page_; skipped-- > page + 1;) {
      if (!normals_.is_empty(skipped)) above_ += normals_.page_total(skipped, table_);
    }
    page_ = page;
    normals_.read_page(page, scratch_, counts_);
    end_ = kPageKeys;
    extras_ = counts_.extras.size();
  }
  above_ += sum(low + 1, end_);
  end_ = low + 1;
  for (; extras_ > 0 && counts_.extras[extras_ - 1].low > low; --extras_) above_ += counts_.extras[extras_ - 1].count;
  equal_ = counts_.counts[low];
  if (extras_ > 0 && counts_.extras[extras_ - 1].low == low) equal_ += counts_.extras[extras_ - 1].count;
}

uint64_t RankReader::sum(size_t first, size_t end) const {
  constexpr size_t kShort = 96;  // below, a call of the kernel costs more
  constexpr uint64_t kEven = 0x00ff00ff00ff00ffu;
  if (first >= end) return 0;
  const uint8_t* counts = counts_.counts;
  if (end - first > kShort) return table_.sum_bytes(counts + first, end - first);
  uint64_t pairs = 0, word;  // four sums, each of at most 2 · 13 bytes
  const auto add = [&] { pairs += (word & kEven) + (word >> 8 & kEven); };
  for (; first + 8 <= end; first += 8) {
    std::memcpy(&word, counts + first, sizeof word);
    add();
  }
  if (first < end && end >= 8) {  // the last few bytes, from a word that ends with them
    std::memcpy(&word, counts + end - 8, sizeof word);
    word >>= 8 * (8 - (end - first));
    add();
    first = end;
  }
  uint64_t total = pairs * 0x0001000100010001u >> 48;
  for (; first < end; ++first) total += counts[first];
  return total;
}

}  // namespace onceover
