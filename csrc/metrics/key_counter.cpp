#include "metrics/key_counter.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <utility>

namespace onceover {
namespace {

constexpr size_t kStageBytes = 2 * KeyCounter::kStageLows;
constexpr uint32_t kLowMask = kPageKeys - 1;
constexpr size_t kEqualLows = 32;  // low parts that are counted at once if they are all the same

uint32_t page_of(uint32_t key) { return key >> kLowBits; }
uint32_t key_of(size_t page, uint32_t low) { return static_cast<uint32_t>(page << kLowBits) | low; }

// By page, stable; two passes of 9 and 8 bits.
void sort_by_page(std::vector<uint32_t>& keys) {
  std::vector<uint32_t> other(keys.size());
  for (const int shift : {kLowBits, kLowBits + 9}) {
    size_t starts[513] = {};
    for (const uint32_t key : keys) ++starts[((key >> shift) & 511) + 1];
    for (size_t i = 1; i < 513; ++i) starts[i] += starts[i - 1];
    for (const uint32_t key : keys) other[starts[(key >> shift) & 511]++] = key;
    keys.swap(other);
  }
}

}  // namespace

KeyCounter::Slab::Slab(size_t bytes)
    : data(static_cast<uint8_t*>(::operator new(bytes, std::align_val_t{kStageBytes}))) {}
KeyCounter::Slab::~Slab() {
  if (data != nullptr) ::operator delete(data, std::align_val_t{kStageBytes});
}

template <typename Take>
void KeyCounter::visit_shelved(size_t page, const Take& take) const {
  if (shelves_.empty()) return;
  for (const ShelfPart& part : shelves_[page / kShelfPages]) {
    if (part.count(page % kShelfPages) > 0) take(part.page(page % kShelfPages), part.count(page % kShelfPages));
  }
}

void KeyCounter::add(const uint32_t* keys, size_t count) {
  total_ += count;
  uint16_t** heads = heads_.get();
  for (size_t i = 0; i < count; ++i) {
    const uint32_t key = keys[i], page = page_of(key);
    uint16_t* head = heads == nullptr ? nullptr : heads[page];
    if (head == nullptr) {
      pending_.push_back(key);
      ++waiting_total_;
      if (pending_.size() >= kPendingKeys) {
        shelve_pending();
        heads = heads_.get();
      }
      continue;
    }
    *head++ = static_cast<uint16_t>(key & kLowMask);
    heads[page] = head;
    if (reinterpret_cast<uintptr_t>(head) % kStageBytes == 0) {
      heads[page] = head - kStageLows;
      count_lows(page, head - kStageLows, kStageLows);
    }
  }
}

void KeyCounter::add_times(uint32_t key, uint64_t times) {
  total_ += times;
  make_dense(page_of(key));
  raise(page_of(key), key & kLowMask, times);
}

void KeyCounter::absorb(const KeyCounter& other, int shift) {
  std::vector<uint32_t> keys;
  const auto take = [&](size_t page, const uint16_t* lows, size_t count) {
    keys.resize(count);
    for (size_t i = 0; i < count; ++i) keys[i] = key_of(page, lows[i]) >> shift;
    add(keys.data(), count);
  };
  for (size_t page = 0; other.heads_ != nullptr && page < kPages; ++page) {
    if (!other.is_dense(page)) continue;
    const uint8_t* counts = other.table(page);
    make_dense(page_of(key_of(page, 0) >> shift));
    for (uint32_t low = 0; low < kPageKeys; ++low) {
      if (counts[low] == 0) continue;
      const uint32_t key = key_of(page, low) >> shift;
      raise(page_of(key), key & kLowMask, counts[low]);
      total_ += counts[low];
    }
    const uint16_t* staged = other.stage(page);
    take(page, staged, static_cast<size_t>(other.heads_[page] - staged));
  }
  for (const auto& carry : other.carries_) {
    carries_[carry.first >> shift] += carry.second;
    total_ += carry.second;
  }
  for (size_t page = 0; !other.shelves_.empty() && page < kPages; ++page) {
    other.visit_shelved(page, [&](const uint16_t* lows, size_t count) { take(page, lows, count); });
  }
  keys = other.pending_;
  for (uint32_t& key : keys) key >>= shift;
  add(keys.data(), keys.size());
}

size_t KeyCounter::size_bytes() const {
  size_t bytes = pending_.capacity() * sizeof(uint32_t) + shelves_.capacity() * sizeof(Shelf) +
                 (heads_ == nullptr ? 0 : kPages * sizeof(uint16_t*)) + slabs_.size() * kSlabPages * kDenseBytes +
                 carries_.size() * kCarryBytes;
  for (const Shelf& shelf : shelves_) {
    bytes += shelf.capacity() * sizeof(ShelfPart);
    for (const ShelfPart& part : shelf) bytes += part.starts[kShelfPages] * sizeof(uint16_t);
  }
  return bytes;
}

void KeyCounter::settle() {
  shelve_pending();
  pending_.shrink_to_fit();
  for (size_t shelf = 0; shelf < shelves_.size(); ++shelf) {
    if (shelves_[shelf].size() > 1) fill_shelf(shelf, nullptr, nullptr);
  }
  for (size_t page = 0; heads_ != nullptr && page < kPages; ++page) {
    if (is_dense(page)) empty_stage(page);
  }
  settled_carries_.assign(carries_.begin(), carries_.end());
  std::sort(settled_carries_.begin(), settled_carries_.end());
}

std::vector<std::pair<uint32_t, uint64_t>>::const_iterator KeyCounter::first_carry(size_t page) const {
  return std::lower_bound(settled_carries_.begin(), settled_carries_.end(),
                          std::make_pair(key_of(page, 0), uint64_t{0}));
}

bool KeyCounter::is_empty(size_t page) const { return shelved(page) == 0 && !is_dense(page); }

uint64_t KeyCounter::page_total(size_t page, const KernelTable& kernels) const {
  if (!is_dense(page)) return shelved(page);
  uint64_t sum = kernels.sum_bytes(table(page), kPageKeys);
  for (auto carry = first_carry(page); carry != settled_carries_.end() && page_of(carry->first) == page; ++carry) {
    sum += carry->second;
  }
  return sum;
}

void KeyCounter::read_page(size_t page, std::vector<uint8_t>& scratch, PageCounts& found) const {
  found.extras.clear();
  if (is_dense(page)) {  // what it had on its shelf was counted when it became so
    found.counts = table(page);
    for (auto carry = first_carry(page); carry != settled_carries_.end() && page_of(carry->first) == page; ++carry) {
      found.extras.push_back({carry->first & kLowMask, carry->second});
    }
    return;
  }
  scratch.assign(kPageKeys, 0);
  std::vector<uint16_t> overflows;
  visit_shelved(page, [&](const uint16_t* lows, size_t count) {
    for (size_t i = 0; i < count; ++i) {
      if (++scratch[lows[i]] == 0) overflows.push_back(lows[i]);
    }
  });
  std::sort(overflows.begin(), overflows.end());
  for (const uint16_t low : overflows) {
    if (found.extras.empty() || found.extras.back().low != low) found.extras.push_back({low, 0});
    found.extras.back().count += 256;
  }
  found.counts = scratch.data();
}

void KeyCounter::read_lows(size_t page, std::vector<uint16_t>& lows) const {
  lows.clear();
  visit_shelved(page, [&](const uint16_t* from, size_t count) { lows.insert(lows.end(), from, from + count); });
  std::sort(lows.begin(), lows.end());
  if (!is_dense(page)) return;
  std::vector<uint8_t> unused;
  PageCounts counts;
  read_page(page, unused, counts);
  size_t next = 0;
  for (uint32_t low = 0; low < kPageKeys; ++low) {
    uint64_t times = counts.counts[low];
    if (next < counts.extras.size() && counts.extras[next].low == low) times += counts.extras[next++].count;
    lows.insert(lows.end(), times, static_cast<uint16_t>(low));
  }
}

uint16_t* KeyCounter::stage(size_t page) const {
  const uintptr_t address = reinterpret_cast<uintptr_t>(heads_[page]);
  return reinterpret_cast<uint16_t*>(address - address % kStageBytes);
}

void KeyCounter::make_dense(size_t page) {
  if (is_dense(page)) return;
  if (heads_ == nullptr) heads_ = std::make_unique<uint16_t*[]>(kPages);
  if (slab_used_ == kSlabPages) {
    slabs_.emplace_back(kSlabPages * kDenseBytes);
    slab_used_ = 0;
  }
  ++dense_pages_;
  uint8_t* counts = slabs_.back().data + slab_used_++ * kDenseBytes;
  std::memset(counts, 0, kPageKeys);
  heads_[page] = reinterpret_cast<uint16_t*>(counts + kPageKeys);
  if (shelved(page) == 0) return;
  visit_shelved(page, [&](const uint16_t* lows, size_t count) { count_lows(page, lows, count); });
  fill_shelf(page / kShelfPages, nullptr, nullptr);  // without this page
}

void KeyCounter::empty_stage(size_t page) {
  uint16_t* staged = stage(page);
  count_lows(page, staged, static_cast<size_t>(heads_[page] - staged));
  heads_[page] = staged;
}

void KeyCounter::count_lows(size_t page, const uint16_t* lows, size_t count) {
  constexpr size_t kAhead = 2 * kEqualLows;  // low parts whose counters are on their way
  uint8_t* counts = table(page);
  size_t i = 0;
  for (; i + kEqualLows <= count; i += kEqualLows) {
    uint32_t differ = 0;
    for (size_t j = 1; j < kEqualLows; ++j) differ |= static_cast<uint32_t>(lows[i + j] ^ lows[i]);
    if (differ == 0) {
      raise(page, lows[i], kEqualLows);
      continue;
    }
    if (i + kAhead + kEqualLows <= count) {
      for (size_t j = 0; j < kEqualLows; ++j) __builtin_prefetch(counts + lows[i + kAhead + j], 1);
    }
    for (size_t j = 0; j < kEqualLows; ++j) {
      if (++counts[lows[i + j]] == 0) carries_[key_of(page, lows[i + j])] += 256;
    }
  }
  for (; i < count; ++i) {
    if (++counts[lows[i]] == 0) carries_[key_of(page, lows[i])] += 256;
  }
}

void KeyCounter::raise(size_t page, uint32_t low, uint64_t times) {
  uint8_t& count = table(page)[low];
  const uint64_t sum = count + times;
  count = static_cast<uint8_t>(sum & 255);
  if (sum > 255) carries_[key_of(page, low)] += sum - (sum & 255);
}

void KeyCounter::shelve_pending() {
  if (pending_.empty()) return;
  if (shelves_.empty()) shelves_.resize(kPages / kShelfPages);
  std::vector<uint32_t> keys;
  keys.swap(pending_);
  sort_by_page(keys);
  const uint32_t* at = keys.data();
  const uint32_t* const end = at + keys.size();
  while (at < end) {
    const size_t shelf = page_of(*at) / kShelfPages;
    const uint32_t* next = at;
    while (next < end && page_of(*next) / kShelfPages == shelf) ++next;
    fill_shelf(shelf, at, next);
    at = next;
  }
  keys.clear();
  keys.swap(pending_);  // its memory is used again
}

void KeyCounter::fill_shelf(size_t number, const uint32_t* keys, const uint32_t* const keys_end) {
  Shelf olds = std::move(shelves_[number]);
  shelves_[number].clear();
  const size_t first_page = number * kShelfPages;
  uint32_t added[kShelfPages + 1] = {};  // where each page's keys begin
  for (const uint32_t* key = keys; key < keys_end; ++key) ++added[page_of(*key) - first_page + 1];
  for (size_t i = 0; i < kShelfPages; ++i) added[i + 1] += added[i];
  const auto old_count = [&](size_t i) {
    size_t count = 0;
    for (const ShelfPart& part : olds) count += part.count(i);
    return count;
  };
  // What the keys in dense pages leave over of their worth.
  auto spare = static_cast<int64_t>((total_ - waiting_total_) * kKeyWorth / 32) -
               static_cast<int64_t>(dense_pages_ * kDenseBytes);
  bool moves[kShelfPages], any_moves = false;
  for (size_t i = 0; i < kShelfPages; ++i) {
    const size_t count = old_count(i) + added[i + 1] - added[i];
    moves[i] = is_dense(first_page + i);
    if (!moves[i] && count >= kMinDenseLows) {
      const int64_t left = spare + static_cast<int64_t>(count * kKeyWorth / 32) - static_cast<int64_t>(kDenseBytes);
      moves[i] = count >= kDenseLows || left >= 0;
      if (moves[i]) spare = left;
    }
    any_moves = any_moves || (moves[i] && count > 0);
  }
  const bool anew = any_moves || olds.size() == kShelfParts || keys == nullptr;  // all parts into one
  ShelfPart made;
  for (size_t i = 0; i < kShelfPages; ++i) {
    const size_t kept = moves[i] ? 0 : (anew ? old_count(i) : 0) + added[i + 1] - added[i];
    made.starts[i + 1] = made.starts[i] + static_cast<uint32_t>(kept);
  }
  made.lows.reset(new uint16_t[made.starts[kShelfPages]]);
  std::vector<uint16_t> moved;
  for (size_t i = 0; i < kShelfPages; ++i) {
    const size_t page = first_page + i, new_count = added[i + 1] - added[i];
    uint16_t* to = made.lows.get() + made.starts[i];
    if (moves[i]) {
      if (old_count(i) + new_count == 0) continue;
      waiting_total_ -= old_count(i) + new_count;
      const bool was_dense = is_dense(page);
      make_dense(page);  // finds nothing on the shelf, which is not in its place now
      for (const ShelfPart& part : olds) {
        if (!was_dense) count_lows(page, part.page(i), part.count(i));
      }
      moved.resize(new_count);
      to = moved.data();
    } else if (anew) {
      for (const ShelfPart& part : olds) to = std::copy_n(part.page(i), part.count(i), to);
    }
    for (size_t j = 0; j < new_count; ++j) to[j] = static_cast<uint16_t>(keys[added[i] + j] & kLowMask);
    if (moves[i]) count_lows(page, moved.data(), new_count);
  }
  if (anew) olds = Shelf();
  if (made.starts[kShelfPages] > 0) {
    olds.reserve(olds.size() + 1);  // no more than that: it counts
    olds.push_back(std::move(made));
  }
  shelves_[number] = std::move(olds);
}

size_t KeyCounter::shelved(size_t page) const {
  size_t count = 0;
  visit_shelved(page, [&](const uint16_t*, size_t more) { count += more; });
  return count;
}

}  // namespace onceover
