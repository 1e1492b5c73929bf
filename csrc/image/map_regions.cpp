// Runs of a row are joined to those of the row above by union-find; a region that no run of the row reached is complete
// and leaves, so that only as many are kept as a row can hold.
#include "image/map_regions.h"

#include <algorithm>
#include <tuple>

#include "base/error.h"
#include "image/bit_runs.h"
#include "image/image_view.h"

namespace onceover {
namespace {

constexpr uint32_t kNone = UINT32_MAX;

constexpr MapRegion kEmpty = {UINT32_MAX, UINT32_MAX, 0, 0, 0, 0, 0, 0, 0, 0, UINT32_MAX};

std::tuple<uint32_t, uint32_t> place_of_peak(const MapRegion& region) { return {region.peak_row, region.peak_column}; }

bool has_higher_peak(const MapRegion& a, const MapRegion& b) {
  if (a.area == 0 || b.area == 0) return b.area == 0;
  return a.peak_value > b.peak_value || (a.peak_value == b.peak_value && place_of_peak(a) < place_of_peak(b));
}

// The order in which regions are told.
bool comes_first(const MapRegion& a, const MapRegion& b) {
  const auto key = [](const MapRegion& r) {
    return std::make_tuple(-r.peak_value, r.top, r.left, r.bottom, r.right, r.peak_row, r.peak_column);
  };
  return key(a) < key(b);
}

size_t most_runs(size_t width) { return (width + 1) / 2; }

size_t checked_width(size_t max_width) {
  if (max_width < 1 || max_width > kMaxImageSide) {
    fail(Status::kUsage, "maps of up to %zu columns; expected 1 to %zu", max_width, kMaxImageSide);
  }
  return max_width;
}

}  // namespace

MapRegions::MapRegions(size_t max_width, Memory& memory, const KernelTable& table)
    : table_(table),
      max_width_(checked_width(max_width)),
      above_(memory, most_runs(max_width), "regions"),
      runs_(memory, most_runs(max_width), "regions"),
      parents_(memory, 2 * most_runs(max_width), "regions"),
      renamed_(memory, 2 * most_runs(max_width), "regions"),
      regions_(memory, 2 * most_runs(max_width), "regions"),
      next_(memory, most_runs(max_width), "regions") {}

void MapRegions::merge(const Open& other, Open& into) {
  const MapRegion& from = other.region;
  MapRegion& to = into.region;
  if (has_higher_peak(from, to)) {
    to.peak_value = from.peak_value;
    to.peak_row = from.peak_row;
    to.peak_column = from.peak_column;
  }
  if (std::tie(from.top, from.first_column) < std::tie(to.top, to.first_column)) to.first_column = from.first_column;
  to.top = std::min(to.top, from.top);
  to.left = std::min(to.left, from.left);
  to.bottom = std::max(to.bottom, from.bottom);
  to.right = std::max(to.right, from.right);
  to.area += from.area;
  into.row_sum += other.row_sum;
  into.column_sum += other.column_sum;
}

MapRegion MapRegions::closed(const Open& open) {
  MapRegion region = open.region;
  const double area = region.area;
  region.centroid_row = static_cast<float>(static_cast<double>(open.row_sum) / area);
  region.centroid_column = static_cast<float>(static_cast<double>(open.column_sum) / area);
  return region;
}

void MapRegions::tell(const MapRegion& region, Found& found) {
  MapRegion* const end = found.regions + std::min(found.count++, found.capacity);
  MapRegion* const at = std::upper_bound(found.regions, end, region, comes_first);
  if (at == found.regions + found.capacity) return;
  std::move_backward(at, found.count > found.capacity ? end - 1 : end, found.count > found.capacity ? end : end + 1);
  *at = region;
}

size_t MapRegions::find_runs(const float* row, size_t width, float threshold) {
  uint64_t above[kMaxImageSide / 64];
  table_.above_bits_f32(row, width, threshold, above);
  size_t count = 0;
  each_run_of_bits(above, width, [&](size_t first, size_t end) {
    runs_[count++] = {static_cast<uint32_t>(first), static_cast<uint32_t>(end), kNone};
  });
  return count;
}

// The first of the largest values in [first, end), which hold no NaN.
size_t MapRegions::peak_of(const float* row, size_t first, size_t end) const {
  constexpr size_t kPart = 128;  // only the part with the peak is gone through one by one
  size_t part = first;
  float largest = table_.largest_f32(row + first, std::min(kPart, end - first));
  for (size_t start = first + kPart; start < end; start += kPart) {
    const float next = table_.largest_f32(row + start, std::min(kPart, end - start));
    if (next > largest) largest = next, part = start;
  }
  return static_cast<size_t>(std::find(row + part, row + end, largest) - row);
}

uint32_t MapRegions::root(uint32_t label) {
  while (parents_[label] != label) {
    parents_[label] = parents_[parents_[label]];
    label = parents_[label];
  }
  return label;
}

uint32_t MapRegions::unite(uint32_t a, uint32_t b) {
  const uint32_t low = std::min(root(a), root(b)), high = std::max(root(a), root(b));
  if (low == high) return low;
  merge(regions_[high], regions_[low]);
  parents_[high] = low;
  return low;
}

// Every run takes the label of the runs of the row above that it touches, diagonals included, or a new one.
void MapRegions::label_runs(size_t above, size_t current) {
  labels_ = open_;
  for (uint32_t label = 0; label < open_; ++label) parents_[label] = label;
  size_t next = 0;
  for (size_t i = 0; i < current; ++i) {
    Run& run = runs_[i];
    while (next < above && above_[next].end < run.first) ++next;
    for (size_t j = next; j < above && above_[j].first <= run.end; ++j) {
      run.label = run.label == kNone ? root(above_[j].label) : unite(run.label, above_[j].label);
    }
    if (run.label == kNone) {
      run.label = labels_++;
      parents_[run.label] = run.label;
      regions_[run.label] = {kEmpty, 0, 0};
    }
  }
}

// Regions that the row reached are kept under new labels, counted from 0; the others are told.
void MapRegions::close_row(size_t current, Found& found) {
  open_ = 0;
  std::fill_n(renamed_.data(), labels_, kNone);
  for (size_t i = 0; i < current; ++i) {
    const uint32_t label = root(runs_[i].label);
    if (renamed_[label] == kNone) {
      renamed_[label] = open_;
      next_[open_++] = regions_[label];
    }
    runs_[i].label = renamed_[label];
  }
  for (uint32_t label = 0; label < labels_; ++label) {
    if (parents_[label] != label || renamed_[label] != kNone) continue;
    tell(closed(regions_[label]), found);
  }
  std::copy_n(next_.data(), open_, regions_.data());
  std::swap(above_, runs_);
}

void MapRegions::check_width(size_t columns) const {
  if (columns <= max_width_) return;
  fail(Status::kUsage,
       "map of %zu columns; this session finds regions in maps of up to %zu, set max_map_width in the options it is "
       "created with to the width of your images",
       columns, max_width_);
}

size_t MapRegions::find(MatrixView<const float> map, float threshold, MapRegion* regions, size_t capacity) {
  check_width(map.columns);
  Found found = {regions, capacity, 0};
  size_t above = 0;
  open_ = 0;
  for (size_t y = 0; y < map.rows; ++y) {
    const float* row = map.row(y);
    const size_t current = find_runs(row, map.columns, threshold);
    label_runs(above, current);
    for (size_t i = 0; i < current; ++i) {
      const Run& run = runs_[i];
      const auto peak = static_cast<uint32_t>(peak_of(row, run.first, run.end));
      const auto at = static_cast<uint32_t>(y);
      const uint64_t pixels = run.end - run.first, columns = uint64_t{run.first} + run.end - 1;  // twice their mean
      merge({{at, run.first, at + 1, run.end, run.end - run.first, at, peak, row[peak], 0, 0, run.first},
             pixels * at,
             pixels * columns / 2},
            regions_[root(run.label)]);
    }
    close_row(current, found);
    above = current;
  }
  labels_ = open_;
  for (uint32_t label = 0; label < labels_; ++label) parents_[label] = label;
  close_row(0, found);
  return found.count;
}

}  // namespace onceover
