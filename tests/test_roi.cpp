// The region of interest: which cells are inside, how a grid goes on beyond it, and sessions that inspect nothing else.
#include "image/roi.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "check.h"
#include "host_package.h"
#include "kernel_tables.h"

using namespace onceover;

namespace {

std::vector<uint8_t> random_raster(size_t rows, size_t columns, uint32_t seed) {
  std::vector<uint8_t> raster(rows * columns);
  uint32_t state = seed;
  for (uint8_t& value : raster) {
    state = state * 1664525u + 1013904223u;
    value = (state >> 28) == 0 ? 1 : 0;
  }
  raster[rows * columns / 2] = 1;
  return raster;
}

// In real numbers: the cell [i / n, (i + 1) / n) and the raster cell [j / m, (j + 1) / m) share more than an edge.
bool overlap(size_t i, size_t n, size_t j, size_t m) { return i * m < (j + 1) * n && j * n < (i + 1) * m; }

void test_a_cell_is_inside_where_it_overlaps_the_region() {
  for (const auto& [rows, columns] : {std::pair<size_t, size_t>{7, 11}, {1, 1}, {64, 70}}) {
    const std::vector<uint8_t> raster = random_raster(rows, columns, 5);
    const Roi roi({raster.data(), rows, columns});
    for (const auto& [height, width] : {std::pair<size_t, size_t>{4, 6}, {64, 130}, {1, 200}, {7, 11}}) {
      std::vector<uint8_t> marked(height * width);
      std::vector<float> map(height * width);
      for (size_t i = 0; i < map.size(); ++i) map[i] = 1 + static_cast<float>(i * 7919 % 101);
      roi.mark({marked.data(), height, width});
      float largest = -1e30f;
      std::vector<uint8_t> expected(height * width);
      for (size_t y = 0; y < height; ++y) {
        for (size_t x = 0; x < width; ++x) {
          for (size_t i = 0; i < rows; ++i) {
            for (size_t j = 0; j < columns; ++j) {
              if (raster[i * columns + j] == 1 && overlap(y, height, i, rows) && overlap(x, width, j, columns)) {
                expected[y * width + x] = 1;
              }
            }
          }
          if (expected[y * width + x] == 1) largest = std::max(largest, map[y * width + x]);
        }
      }
      CHECK(marked == expected);
      for (const KernelTable* table : tables_under_test()) {
        std::vector<float> cleared = map;
        CHECK(roi.largest_inside({map.data(), height, width}, *table) == largest);
        roi.clear_outside({cleared.data(), height, width}, *table);
        bool right = true;
        for (size_t i = 0; i < map.size(); ++i) right = right && cleared[i] == (expected[i] == 1 ? map[i] : 0.0f);
        CHECK(right);
      }
    }
  }
}

void test_beyond_the_region_the_nearest_cell_inside_counts() {
  Memory memory;
  const std::vector<uint8_t> inside = random_raster(9, 13, 3);
  const Buffer<uint32_t> source = nearest_inside({inside.data(), 9, 13}, memory);
  const auto steps = [](size_t a, size_t b) {
    const auto apart = [](size_t i, size_t j) { return i > j ? i - j : j - i; };
    return apart(a / 13, b / 13) + apart(a % 13, b % 13);
  };
  for (size_t cell = 0; cell < 9 * 13; ++cell) {
    CHECK(inside[source[cell]] == 1);
    for (size_t other = 0; other < 9 * 13; ++other) {
      CHECK(inside[other] == 0 || steps(cell, source[cell]) <= steps(cell, other));
    }
  }
  CHECK(memory.used_bytes() == (9 * 13 * sizeof(uint32_t) + 63) / 64 * 64);
}

void test_a_region_without_a_meaning_is_refused() {
  const std::vector<uint8_t> none(12), two(12, 2);
  CHECK_THROWS(Roi({none.data(), 3, 4}), Status::kUsage, "is empty: nothing would be inspected");
  CHECK_THROWS(Roi({two.data(), 3, 4}), Status::kUsage, "holds a 2, expected 0 or 1");
  CHECK_THROWS(Roi({none.data(), 1, 4097}), Status::kUsage, "raster of 1 x 4097");
  const std::vector<uint8_t> file = host_package::bytes({true, true, {}, std::vector<uint8_t>(64, 1)});
  std::vector<uint8_t> damaged = file;
  CHECK(read_roi(*Package::view(damaged.data(), damaged.size(), "roi")).whole() == false);
}

std::vector<uint8_t> left_columns(size_t columns) {  // of 8 x 8
  std::vector<uint8_t> raster(64);
  for (size_t i = 0; i < 64; ++i) raster[i] = i % 8 < columns ? 1 : 0;
  return raster;
}

std::shared_ptr<const Package> package_with(std::vector<uint8_t> roi, Tiling tiling = {}) {
  static std::vector<std::vector<uint8_t>> files;  // packages view them
  files.push_back(host_package::bytes({true, true, tiling, std::move(roi)}));
  return Package::view(files.back().data(), files.back().size(), "roi");
}

void test_what_lies_outside_changes_neither_score_nor_map() {
  Session session(package_with(left_columns(2)), host_package::session_options());
  CHECK(session.self_test().images == 3);
  const Result good = session.run(host_package::image(57).view);
  const Result bad = session.run(host_package::image(57, true).view);  // the defect is in the middle, columns 3 and 4
  CHECK(good.decision == Decision::kNormal && bad.decision == Decision::kNormal);
  std::vector<float> map(40 * 56);
  session.draw_map({map.data(), 40, 56});
  for (size_t y = 0; y < 40; ++y) {
    for (size_t x = 0; x < 56; ++x) CHECK((map[y * 56 + x] == 0) == (x >= 14));  // 2 of 8 columns: 14 of 56
  }
  for (size_t patch = 0; patch < HOST_PATCHES; ++patch) {
    const bool outside = patch % HOST_COLUMNS * 8 >= 2 * HOST_COLUMNS;
    CHECK(!outside || (session.patch_scores()[patch] == 0 && session.nearest_rows()[patch] == 0));
  }
  CHECK(bad.worst_patch % HOST_COLUMNS < 2);
}

// The bank is the same, so inside the region every patch has the score that it has without one.
void test_inside_the_region_nothing_changes() {
  Session whole(package_with({}), host_package::session_options());
  SessionOptions options = host_package::session_options();
  options.max_map_width = 56;
  Session part(package_with(left_columns(5)), options);
  const host_package::Image image = host_package::image(400, true);
  const Result expected = whole.run(image.view);
  const Result got = part.run(image.view);
  CHECK(got.score == expected.score && got.worst_patch == expected.worst_patch);
  CHECK(got.nearest_row == expected.nearest_row && got.decision == Decision::kAnomalous);
  for (size_t patch = 0; patch < HOST_PATCHES; ++patch) {
    if (patch % HOST_COLUMNS * 8 >= 5 * HOST_COLUMNS) continue;
    CHECK(part.patch_scores()[patch] == whole.patch_scores()[patch]);
  }
  MapRegion regions[8];
  std::vector<float> map(40 * 56);
  part.draw_map({map.data(), 40, 56});
  part.set_map_threshold(expected.map_maximum / 2);
  CHECK(part.find_regions({map.data(), 40, 56}, regions, 8) >= 1 && regions[0].right <= 35);
}

void test_a_region_of_a_tiled_image() {
  const Tiling tiling = {2, 2, 1, 2};  // a grid of 7 x 10
  Session whole(package_with({}, tiling), host_package::session_options());
  Session part(package_with(left_columns(5), tiling), host_package::session_options());
  CHECK(part.self_test().images == 3);
  const host_package::Image image = host_package::image(400, true, 112, 160);
  whole.run(image.view);
  const Result got = part.run(image.view);
  CHECK(got.decision == Decision::kAnomalous);
  for (size_t cell = 0; cell < 70; ++cell) {
    const bool outside = cell % 10 * 8 >= 5 * 10;
    CHECK(part.patch_scores()[cell] == (outside ? 0 : whole.patch_scores()[cell]));
  }
}

}  // namespace

int main() {
  test_a_cell_is_inside_where_it_overlaps_the_region();
  test_beyond_the_region_the_nearest_cell_inside_counts();
  test_a_region_without_a_meaning_is_refused();
  test_what_lies_outside_changes_neither_score_nor_map();
  test_inside_the_region_nothing_changes();
  test_a_region_of_a_tiled_image();
  return check::summary("test_roi");
}
