#include "metrics/regions.h"

#include <algorithm>

#include "base/error.h"

namespace onceover {
namespace {

constexpr uint32_t kNone = UINT32_MAX;

}  // namespace

RegionFinder::RegionFinder(int connectivity, const KernelTable& table) : table_(&table) {
  if (connectivity != 4 && connectivity != 8) {
    fail(Status::kUsage, "connectivity is %d, expected 8 (AUPRO's definition) or 4", connectivity);
  }
  reach_ = connectivity == 8 ? 1 : 0;
}

void RegionFinder::find(const MaskView& mask) {
  if (mask.width > 0 && mask.height > UINT32_MAX / mask.width) {
    fail(Status::kInput, "mask of %zu × %zu pixels; at most 2^32 − 1 can be counted", mask.height, mask.width);
  }
  runs_.clear();
  parents_.clear();
  areas_.clear();
  bits_.resize((mask.width + 63) / 64);
  size_t above = 0;
  for (size_t y = 0; y < mask.height && mask.width > 0; ++y) {
    const size_t current = runs_.size();
    table_->nonzero_bits(mask.row(y), mask.width, bits_.data());
    add_runs(static_cast<uint32_t>(y), mask.width);
    join_rows(above, current);
    above = current;
  }
  number_regions();
}

// A run begins where a bit is set and the one before is not, and ends where it is the other way around: the set bits of
// x ^ (x << 1), taken two by two.
void RegionFinder::add_runs(uint32_t row, size_t width) {
  uint64_t carry = 0;  // the last bit of the word before
  bool open = false;
  for (size_t word = 0; word < bits_.size(); ++word) {
    const uint64_t bits = bits_[word];
    uint64_t edges = bits ^ (bits << 1 | carry);
    carry = bits >> 63;
    for (; edges != 0; edges &= edges - 1) {
      const uint32_t at = static_cast<uint32_t>(word * 64) + static_cast<uint32_t>(__builtin_ctzll(edges));
      if (open) {
        runs_.back().end = at;
      } else {
        runs_.push_back({row, at, 0, kNone});
      }
      open = !open;
    }
  }
  if (open) runs_.back().end = static_cast<uint32_t>(width);
}

// Gives every run of the current row, runs_[current …), a provisional label. Runs [above, current) are the row before,
// or an earlier one if that was empty.
void RegionFinder::join_rows(size_t above, size_t current) {
  const bool adjacent = above < current && current < runs_.size() && runs_[above].row + 1 == runs_[current].row;
  size_t next = adjacent ? above : current;
  for (size_t i = current; i < runs_.size(); ++i) {
    Run& run = runs_[i];
    while (next < current && runs_[next].end + reach_ <= run.first) ++next;
    uint32_t label = kNone;
    for (size_t j = next; j < current && runs_[j].first < run.end + reach_; ++j) {
      const uint32_t other = root(runs_[j].region);
      if (label == kNone || label == other) {
        label = other;
      } else {
        parents_[std::max(label, other)] = std::min(label, other);
        label = std::min(label, other);
      }
    }
    if (label == kNone) {
      label = static_cast<uint32_t>(parents_.size());
      parents_.push_back(label);
    }
    run.region = label;
  }
}

uint32_t RegionFinder::root(uint32_t label) {
  while (parents_[label] != label) {
    parents_[label] = parents_[parents_[label]];
    label = parents_[label];
  }
  return label;
}

// Labels were given in row-major order and a root is the smallest of its region, so roots in ascending order are
// regions in the order of their first pixels.
void RegionFinder::number_regions() {
  uint32_t count = 0;
  for (uint32_t label = 0; label < parents_.size(); ++label) {  // a parent is numbered before its children
    const uint32_t parent = parents_[label];
    parents_[label] = parent == label ? count++ : parents_[parent];
  }
  areas_.assign(count, 0);
  for (Run& run : runs_) {
    run.region = parents_[run.region];
    areas_[run.region] += run.end - run.first;
  }
}

std::vector<RegionBox> RegionFinder::boxes() const {
  std::vector<RegionBox> boxes(areas_.size(), {UINT32_MAX, UINT32_MAX, 0, 0});
  for (const Run& run : runs_) {
    RegionBox& box = boxes[run.region];
    box.top = std::min(box.top, run.row);
    box.left = std::min(box.left, run.first);
    box.bottom = std::max(box.bottom, run.row + 1);
    box.right = std::max(box.right, run.end);
  }
  return boxes;
}

size_t RegionFinder::size_bytes() const {
  return runs_.capacity() * sizeof(Run) + (parents_.capacity() + areas_.capacity()) * sizeof(uint32_t) +
         bits_.capacity() * sizeof(uint64_t);
}

void RegionFinder::forget_much() {
  constexpr size_t kMuch = size_t{1} << 19;
  if (size_bytes() > kMuch) *this = RegionFinder(connectivity(), *table_);
}

}  // namespace onceover
