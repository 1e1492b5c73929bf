// Tiles of a large image: where they are cut, how their scores are put together, and a whole session over them.
#include "image/tiling.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "check.h"
#include "host_package.h"

using namespace onceover;

namespace {

constexpr Tiling kTiling = {3, 2, 1, 2};  // of tiles of 4 x 6 patches: a grid of 10 x 10

void test_tiles_have_one_size_and_reach_from_edge_to_edge() {
  const TileGrid grid(kTiling, HOST_ROWS, HOST_COLUMNS);
  CHECK(grid.tiles() == 6 && grid.height() == 10 && grid.width() == 10 && grid.tile_patches() == 24);
  for (const size_t height : {40, 97, 101, 1944}) {
    const size_t width = height + 13, stride = width * 3 + 5;
    const std::vector<uint8_t> pixels(height * stride);
    const ImageView image{pixels.data(), height, width, static_cast<ptrdiff_t>(stride), PixelFormat::kRgb8};
    for (size_t tile = 0; tile < grid.tiles(); ++tile) {
      const ImageView part = grid.cut(image, tile);
      const auto offset = static_cast<size_t>(part.data - image.data);
      const size_t top = offset / stride, left = offset % stride / 3;
      CHECK(part.height == grid.cut(image, 0).height && part.width == grid.cut(image, 0).width);
      CHECK(part.stride_bytes == image.stride_bytes && part.format == image.format);
      // Where its patches lie in the grid of all, to a pixel.
      const size_t row = grid.cell(tile, 0) / 10, column = grid.cell(tile, 0) % 10;
      CHECK(std::fabs(double(top) - double(row * height) / 10) <= 1);
      CHECK(std::fabs(double(left) - double(column * width) / 10) <= 1);
      CHECK(std::fabs(double(part.height) - double(height) * 4 / 10) <= 0.5);
      CHECK(row > 0 || top == 0);
      CHECK(tile / 2 < 2 || top + part.height == height);
      CHECK(tile % 2 < 1 || left + part.width == width);
    }
  }
}

void test_tiles_of_nv12_begin_at_pairs_of_pixels() {
  const TileGrid grid(kTiling, HOST_ROWS, HOST_COLUMNS);
  const std::vector<uint8_t> luma(106 * 130), chroma(53 * 130);
  ImageView image{luma.data(), 106, 130, 130, PixelFormat::kNv12};
  image.chroma = chroma.data();
  image.chroma_stride_bytes = 130;
  for (size_t tile = 0; tile < grid.tiles(); ++tile) {
    const ImageView part = grid.cut(image, tile);
    check_image(part);
    const auto at = static_cast<size_t>(part.data - image.data);
    const size_t top = at / 130, left = at % 130;
    CHECK(top % 2 == 0 && left % 2 == 0 && part.height % 2 == 0 && part.width % 2 == 0);
    CHECK(static_cast<size_t>(part.chroma - image.chroma) == top / 2 * 130 + left);
    CHECK(tile / 2 < 2 || top + part.height == 106);
  }
}

void test_an_image_too_small_for_its_tiles_is_refused() {
  const TileGrid grid(kTiling, HOST_ROWS, HOST_COLUMNS);
  const std::vector<uint8_t> pixels(18 * 56);
  const ImageView image{pixels.data(), 18, 56, 56, PixelFormat::kGray8};
  CHECK_THROWS(grid.cut(image, 0), Status::kInput, "18 x 56 pixels (height x width), too small for 3 x 2 tiles");
}

// Score of feature i: its cell's own value, the same in every tile that sees the cell.
void test_tiles_that_agree_are_put_together_without_a_trace() {
  for (const Tiling& tiling : {kTiling, Tiling{2, 4, 2, 3}, Tiling{5, 1, 2, 0}, Tiling{3, 3, 0, 0}}) {
    const TileGrid grid(tiling, HOST_ROWS, HOST_COLUMNS);
    const size_t features = grid.tiles() * grid.tile_patches();
    std::vector<float> scores(features), merged(grid.height() * grid.width());
    std::vector<uint32_t> rows(features), merged_rows(merged.size());
    for (size_t i = 0; i < features; ++i) {
      const size_t cell = grid.cell(i / grid.tile_patches(), i % grid.tile_patches());
      scores[i] = static_cast<float>(cell % 17) + 0.25f;
      rows[i] = static_cast<uint32_t>(cell);
    }
    grid.merge(scores.data(), rows.data(), merged.data(), merged_rows.data());
    for (size_t cell = 0; cell < merged.size(); ++cell) {
      CHECK(merged[cell] == static_cast<float>(cell % 17) + 0.25f);
      CHECK(merged_rows[cell] == cell);
    }
  }
}

void test_where_tiles_overlap_the_least_score_counts_with_its_row() {
  const TileGrid grid({1, 2, 0, 2}, 1, 5);
  const float scores[10] = {1, 2, 3, 4, 5, 6, 1, 1, 2, 3};
  const uint32_t rows[10] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
  float merged[8];
  uint32_t merged_rows[8];
  grid.merge(scores, rows, merged, merged_rows);
  const float expected[8] = {1, 2, 3, 4, 1, 1, 2, 3};  // places 3 and 4 are seen twice: 4 and 6, 5 and 1
  const uint32_t expected_rows[8] = {0, 1, 2, 3, 6, 7, 8, 9};
  CHECK(std::equal(expected, expected + 8, merged));
  CHECK(std::equal(expected_rows, expected_rows + 8, merged_rows));
}

std::shared_ptr<const Package> tiled_package() {
  static const std::vector<uint8_t> file = host_package::bytes({true, true, kTiling, {}});
  return Package::view(file.data(), file.size(), "tiled");
}

void test_a_tiled_session_is_a_whole_path() {
  Session session(tiled_package(), host_package::session_options());
  const Config& config = session.config();
  CHECK(config.tiling.rows == 3 && config.tiling.columns == 2 && config.tiling.overlap_columns == 2);
  CHECK(config.cell_count() == 100 && config.map_height() == 80 && config.map_width() == 80);
  CHECK(session.self_test().images == 3);
  const host_package::Image bad = host_package::image(300, true, 160, 208);
  const Result result = session.run(bad.view);
  CHECK(result.decision == Decision::kAnomalous);
  const size_t row = result.worst_patch / 10, column = result.worst_patch % 10;  // the defect is in the middle
  CHECK(row >= 4 && row <= 5 && column >= 4 && column <= 5);
}

// The distance to the nearest row of the bank, in float64, of the view that is nearest.
void test_patch_scores_are_those_of_the_tiles() {
  const std::shared_ptr<const Package> package = tiled_package();
  Session session(package, host_package::session_options());
  const host_package::Image image = host_package::image(301, true, 160, 208);
  session.run(image.view);
  const std::vector<float> merged(session.patch_scores(), session.patch_scores() + 100);
  const TileGrid grid = session.config().tiles();
  const MatrixView<const float> bank = memory_bank_of(*package, session.config());
  Memory memory;
  const Config one = host_package::config();
  const std::vector<uint8_t> graph(64, 'n');
  Embedder embedder(one, {graph.data(), graph.size()}, host_package::session_options().engine, memory);
  std::vector<float> least(100, 1e30f);
  for (size_t tile = 0; tile < grid.tiles(); ++tile) {
    Timing timing;
    const float* features = embedder.embed(grid.cut(image.view, tile), timing);
    for (size_t patch = 0; patch < HOST_PATCHES; ++patch) {
      double nearest = 1e300;
      for (size_t r = 0; r < bank.rows; ++r) {
        double sum = 0;
        for (size_t d = 0; d < HOST_DIM; ++d) {
          const double difference = double{features[patch * HOST_DIM + d]} - double{bank.row(r)[d]};
          sum += difference * difference;
        }
        nearest = std::min(nearest, sum);
      }
      const auto score = static_cast<float>(std::sqrt(nearest));
      const size_t cell = grid.cell(tile, patch);
      least[cell] = std::min(least[cell], score);
    }
  }
  for (size_t cell = 0; cell < 100; ++cell) {
    CHECK(std::fabs(merged[cell] - least[cell]) <= 1e-5f * (1 + least[cell]));
  }
}

void test_features_of_all_tiles_give_the_result_of_the_image() {
  Session session(tiled_package(), host_package::session_options());
  const host_package::Image image = host_package::image(302, true, 160, 208);
  const Result expected = session.run(image.view);
  std::vector<float> input(6 * 3 * HOST_HEIGHT * HOST_WIDTH), features(6 * HOST_PATCHES * HOST_DIM);
  session.prepare(image.view, input.data());
  for (size_t tile = 0; tile < 6; ++tile) {
    CHECK(host_network(nullptr, input.data() + tile * 3 * HOST_HEIGHT * HOST_WIDTH,
                       features.data() + tile * HOST_PATCHES * HOST_DIM) == 0);
  }
  const Result& got = session.run_features({features.data(), 6 * HOST_PATCHES, HOST_DIM});
  CHECK(got.score == expected.score && got.worst_patch == expected.worst_patch);
  CHECK(got.nearest_row == expected.nearest_row && got.map_maximum == expected.map_maximum);
  CHECK_THROWS(session.run_features({features.data(), HOST_PATCHES, HOST_DIM}), Status::kUsage, "this package has 144");
}

void test_tilings_without_a_meaning_are_refused() {
  const auto refused = [](const Tiling& tiling, const char* text) {
    CHECK_THROWS(write_config(host_package::config(tiling)), Status::kUsage, text);
  };
  refused({0, 2, 0, 0}, "'tile_rows' is 0, expected 1 to 64");
  refused({2, 65, 0, 0}, "'tile_columns' is 65, expected 1 to 64");
  refused({1, 1, 1, 0}, "'tile_rows * tile_columns' is 1, expected 2");
  refused({2, 2, 3, 0}, "'overlap_rows' is 3, expected 0 to 2");
  refused({2, 1, 0, 1}, "'overlap_columns' is 1, expected 0 to 0");
  Config wide = host_package::config({1, 64, 0, 0});
  wide.preprocessing.width = 4000;
  CHECK_THROWS(write_config(wide), Status::kUsage, "'map width' is 256000, expected 1 to 8192");
}

}  // namespace

int main() {
  test_tiles_have_one_size_and_reach_from_edge_to_edge();
  test_tiles_of_nv12_begin_at_pairs_of_pixels();
  test_an_image_too_small_for_its_tiles_is_refused();
  test_tiles_that_agree_are_put_together_without_a_trace();
  test_where_tiles_overlap_the_least_score_counts_with_its_row();
  test_a_tiled_session_is_a_whole_path();
  test_patch_scores_are_those_of_the_tiles();
  test_features_of_all_tiles_give_the_result_of_the_image();
  test_tilings_without_a_meaning_are_refused();
  return check::summary("test_tiling");
}
