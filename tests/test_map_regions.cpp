// Regions of anomaly maps against a flood fill that labels every pixel, and their outlines (also beside OpenCV's in
// tests/test_runtime_images.py).
#include <algorithm>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "check.h"
#include "image/contour.h"
#include "image/map_regions.h"
#include "kernel_tables.h"

using namespace onceover;

namespace {

struct Map {
  size_t height, width;
  std::vector<float> values;
  MatrixView<const float> view() const { return {values.data(), height, width}; }
};

Map random_map(size_t height, size_t width, double density, uint32_t seed) {
  std::mt19937 random(seed);
  Map map{height, width, std::vector<float>(height * width)};
  for (float& value : map.values) {  // few distinct values, so that peaks tie
    const bool above = static_cast<double>(random() % 1000) < density * 1000;
    value = above ? 1.0f + static_cast<float>(random() % 4) : static_cast<float>(random() % 2);
  }
  return map;
}

auto key(const MapRegion& r) {
  return std::make_tuple(-r.peak_value, r.top, r.left, r.bottom, r.right, r.peak_row, r.peak_column, r.area,
                         r.centroid_row, r.centroid_column, r.first_column);
}

void flood(const Map& map, float threshold, size_t y, size_t x, std::vector<bool>& seen, MapRegion& region) {
  std::vector<std::pair<size_t, size_t>> stack = {{y, x}};
  seen[y * map.width + x] = true;
  region.first_column = static_cast<uint32_t>(x);  // the search for regions goes row by row
  double row_sum = 0, column_sum = 0;
  while (!stack.empty()) {
    std::tie(y, x) = stack.back();
    stack.pop_back();
    const float value = map.values[y * map.width + x];
    const auto row = static_cast<uint32_t>(y), column = static_cast<uint32_t>(x);
    region.top = std::min(region.top, row), region.bottom = std::max(region.bottom, row + 1);
    region.left = std::min(region.left, column), region.right = std::max(region.right, column + 1);
    const auto place = std::make_tuple(-value, row, column);
    if (region.area++ == 0 || place < std::make_tuple(-region.peak_value, region.peak_row, region.peak_column)) {
      region.peak_value = value, region.peak_row = row, region.peak_column = column;
    }
    for (size_t v = y == 0 ? 0 : y - 1; v < std::min(map.height, y + 2); ++v) {
      for (size_t u = x == 0 ? 0 : x - 1; u < std::min(map.width, x + 2); ++u) {
        if (seen[v * map.width + u] || !(map.values[v * map.width + u] > threshold)) continue;
        seen[v * map.width + u] = true;
        stack.push_back({v, u});
      }
    }
    row_sum += row, column_sum += column;
  }
  region.centroid_row = static_cast<float>(row_sum / region.area);
  region.centroid_column = static_cast<float>(column_sum / region.area);
}

std::vector<MapRegion> by_flood_fill(const Map& map, float threshold) {
  std::vector<bool> seen(map.values.size());
  std::vector<MapRegion> regions;
  for (size_t y = 0; y < map.height; ++y) {
    for (size_t x = 0; x < map.width; ++x) {
      if (seen[y * map.width + x] || !(map.values[y * map.width + x] > threshold)) continue;
      regions.push_back({UINT32_MAX, UINT32_MAX, 0, 0, 0, 0, 0, 0, 0, 0, 0});
      flood(map, threshold, y, x, seen, regions.back());
    }
  }
  std::sort(regions.begin(), regions.end(), [](const auto& a, const auto& b) { return key(a) < key(b); });
  return regions;
}

bool same(const std::vector<MapRegion>& expected, const MapRegion* got, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    if (key(expected[i]) != key(got[i])) return false;
  }
  return true;
}

void test_regions_are_those_of_a_flood_fill() {
  Memory memory;
  size_t largest = 0;
  for (uint32_t seed = 0; seed < 300; ++seed) {
    const size_t width = seed % 3 > 0 ? 1 + (seed * 7) % 40 : 64 * (1 + seed % 5) + seed % 4 - 1;  // words of bits
    const Map map = random_map(1 + seed % 23, width, 0.05 + 0.95 * (seed % 11) / 10, seed);
    for (const float threshold : {1.0f, -1.0f}) {  // the map as a whole is above the second
      const std::vector<MapRegion> expected = by_flood_fill(map, threshold);
      for (const KernelTable* table : tables_under_test()) {
        std::vector<MapRegion> got(expected.size() + 1);
        CHECK(MapRegions(width, memory, *table).find(map.view(), threshold, got.data(), got.size()) == expected.size());
        CHECK(same(expected, got.data(), expected.size()));
      }
      largest = std::max(largest, expected.size());
    }
  }
  CHECK(largest > 20);  // the maps were worth the test
}

void test_a_short_list_holds_the_largest_peaks_and_nothing_is_written_beyond_it() {
  Memory memory;
  MapRegions finder(31, memory);
  for (uint32_t seed = 0; seed < 60; ++seed) {
    const Map map = random_map(29, 31, 0.25, seed);
    const std::vector<MapRegion> expected = by_flood_fill(map, 1);
    for (const size_t capacity : {size_t{0}, size_t{1}, size_t{3}, expected.size()}) {
      std::vector<MapRegion> got(capacity + 1, MapRegion{7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7});
      CHECK(finder.find(map.view(), 1, got.data(), capacity) == expected.size());
      CHECK(same(expected, got.data(), std::min(capacity, expected.size())));
      CHECK(got[capacity].area == 7);
    }
  }
}

void test_a_map_wider_than_the_memory_is_refused() {
  Memory memory;
  MapRegions finder(8, memory);
  const Map map = random_map(2, 9, 0.5, 1);
  CHECK_THROWS(finder.find(map.view(), 1, nullptr, 0), Status::kUsage, "map of 9 columns");
  CHECK_THROWS(MapRegions(0, memory), Status::kUsage, "expected 1 to");
  CHECK(memory.used_bytes() < 6 * 64 + 8 * 100);
}

Map drawn(const std::vector<std::string>& rows) {
  Map map{rows.size(), rows[0].size(), {}};
  for (const std::string& row : rows) {
    for (const char c : row) map.values.push_back(c == '#' ? 2.0f : 0.0f);
  }
  return map;
}

std::vector<ContourPoint> outline(const Map& map, size_t which = 0) {
  Memory memory;
  std::vector<MapRegion> regions(8);
  MapRegions(map.width, memory).find(map.view(), 1, regions.data(), regions.size());
  std::vector<ContourPoint> points(4 * regions[which].area);
  points.resize(trace_contour(map.view(), 1, regions[which], points.data(), points.size()));
  return points;
}

bool equal(const std::vector<ContourPoint>& got, const std::vector<ContourPoint>& expected) {
  return std::equal(got.begin(), got.end(), expected.begin(), expected.end(),
                    [](auto a, auto b) { return a.row == b.row && a.column == b.column; });
}

void test_outlines_go_clockwise_from_the_first_pixel_and_back_along_lines() {
  CHECK(equal(outline(drawn({"...", ".#.", "..."})), {{1, 1}}));
  CHECK(equal(outline(drawn({"###"})), {{0, 0}, {0, 1}, {0, 2}, {0, 1}}));
  CHECK(equal(outline(drawn({"##", "##"})), {{0, 0}, {0, 1}, {1, 1}, {1, 0}}));
  CHECK(equal(outline(drawn({"#.", ".#"})), {{0, 0}, {1, 1}}));
  CHECK(equal(outline(drawn({".#.", "#.#", ".#."})), {{0, 1}, {1, 2}, {2, 1}, {1, 0}}));  // not its hole
}

void test_a_first_pixel_is_the_regions_own_where_another_reaches_into_its_box() {
  const Map map = drawn({"#########", "#..#....#", "#..#....#", "#..#....#", "#..#..#.#", "#....#..#", "#.###...#",
                         "#.......#", "#########"});
  CHECK(equal(outline(map, 1), {{4, 6}, {5, 5}, {6, 4}, {6, 3}, {6, 2}, {6, 3}, {6, 4}, {5, 5}}));
}

void test_an_outline_is_cut_at_the_capacity_and_of_no_other_map() {
  Memory memory;
  MapRegions finder(31, memory);
  for (uint32_t seed = 0; seed < 40; ++seed) {
    const Map map = random_map(29, 31, 0.5, seed), other = random_map(29, 31, 0.5, seed + 100);
    MapRegion region;
    if (finder.find(map.view(), 1, &region, 1) == 0) continue;
    std::vector<ContourPoint> points(4 * region.area + 1, {77, 77});
    const size_t count = trace_contour(map.view(), 1, region, points.data(), points.size());
    CHECK(count >= 1 && count <= 4 * region.area && points[count].row == 77 && points[count - 1].row < 29);
    std::vector<ContourPoint> few(3, {77, 77});
    CHECK(trace_contour(map.view(), 1, region, few.data(), 2) == count && few[2].row == 77);
    CHECK(trace_contour(map.view(), 1, region, nullptr, 0) == count);
    MapRegion wrong = region;
    wrong.first_column = static_cast<uint32_t>(map.width);
    CHECK_THROWS(trace_contour(map.view(), 1, wrong, nullptr, 0), Status::kUsage, "not one of this map");
    wrong = region;
    wrong.area = 0;
    CHECK_THROWS(trace_contour(map.view(), 1, wrong, nullptr, 0), Status::kUsage, "not one of this map");
    CHECK_THROWS(trace_contour(map.view(), 9, region, nullptr, 0), Status::kUsage, "not one of this map");
    try {  // of whatever map: an answer within bounds, or a refusal
      CHECK(trace_contour(other.view(), 1, region, points.data(), points.size()) <= 4 * region.area);
    } catch (const Error& error) {
      CHECK(error.status() == Status::kUsage);
    }
  }
}

}  // namespace

int main() {
  test_regions_are_those_of_a_flood_fill();
  test_a_short_list_holds_the_largest_peaks_and_nothing_is_written_beyond_it();
  test_a_map_wider_than_the_memory_is_refused();
  test_outlines_go_clockwise_from_the_first_pixel_and_back_along_lines();
  test_a_first_pixel_is_the_regions_own_where_another_reaches_into_its_box();
  test_an_outline_is_cut_at_the_capacity_and_of_no_other_map();
  return check::summary("map_regions");
}
