// onceover.hpp, the C++ face of the C ABI, beside the core's own answers: the same bits. Built twice: over the shared
// library, and over the static one, whose insides this program has a second time.
#include "onceover.hpp"

#include <algorithm>
#include <cstring>

#include "check.h"
#include "cpp_api_check.h"
#include "host_package.h"

namespace {

onceover_image image_of(const host_package::Image& image) {
  return onceover::image(ONCEOVER_RGB8, image.pixels.data(), static_cast<uint32_t>(image.view.height),
                         static_cast<uint32_t>(image.view.width));
}

void test_it_answers_as_the_core_does(const char* path) {
  onceover::Session core(onceover::Package::open(path), host_package::session_options());
  onceover::InspectionSession session(onceover::PackageFile::open(path), host_options());
  for (uint32_t seed = 50; seed < 54; ++seed) {
    const host_package::Image image = host_package::image(seed, seed % 2 == 0);
    const onceover::Result& expected = core.run(image.view);
    const onceover_result got = session.run(image_of(image));
    CHECK(got.score == expected.score && got.p_value == expected.p_value && got.nearest_row == expected.nearest_row);
    CHECK(got.verdict == static_cast<uint32_t>(expected.decision) && got.map_maximum == expected.map_maximum);
    const std::vector<float> map = session.map(HOST_HEIGHT, HOST_WIDTH);
    std::vector<float> drawn(map.size());
    core.draw_map({drawn.data(), HOST_HEIGHT, HOST_WIDTH});
    CHECK(map == drawn);
    std::vector<float> apart(HOST_HEIGHT * (HOST_WIDTH + 5), -1);
    session.draw_map(apart.data(), HOST_HEIGHT, HOST_WIDTH, HOST_WIDTH + 5);
    CHECK(std::memcmp(&apart[HOST_WIDTH + 5], &map[HOST_WIDTH], HOST_WIDTH * sizeof(float)) == 0);
    CHECK(apart[HOST_WIDTH] == -1 && apart[HOST_WIDTH + 4] == -1);
    const std::pair<const float*, const uint32_t*> patches = session.patches();
    CHECK(std::memcmp(patches.first, core.patch_scores(), HOST_PATCHES * sizeof(float)) == 0);
    CHECK(std::memcmp(patches.second, core.nearest_rows(), HOST_PATCHES * sizeof(uint32_t)) == 0);
    std::vector<onceover::MapRegion> regions(64);
    regions.resize(core.find_regions({drawn.data(), HOST_HEIGHT, HOST_WIDTH}, regions.data(), regions.size()));
    const std::vector<onceover_region> found = session.regions(map, HOST_HEIGHT, HOST_WIDTH);
    CHECK(found.size() == regions.size() && found.empty() == (got.verdict == ONCEOVER_NORMAL));
    CHECK(std::memcmp(found.data(), regions.data(), found.size() * sizeof(onceover_region)) == 0);
    for (size_t i = 0; i < found.size(); ++i) {
      CHECK(session.p_value(found[i]) == core.calibration().map_p_value(found[i].peak_value));
      const std::vector<onceover_point> contour = session.contour(map, HOST_HEIGHT, HOST_WIDTH, found[i]);
      std::vector<onceover::ContourPoint> points(4 * regions[i].area);
      points.resize(
          core.trace_contour({drawn.data(), HOST_HEIGHT, HOST_WIDTH}, regions[i], points.data(), points.size()));
      CHECK(!contour.empty() && contour.size() == points.size());
      CHECK(std::memcmp(contour.data(), points.data(), contour.size() * sizeof(onceover_point)) == 0);
    }
  }
  CHECK(session.self_test() == 3 && session.info().memory_bytes == core.memory_bytes());
}

void test_a_network_that_runs_elsewhere_gives_the_same_bits(const char* path) {
  const onceover::PackageFile package = onceover::PackageFile::open(path);
  onceover::InspectionSession whole(package, host_options()), halves(package);
  const host_package::Image image = host_package::image(50, true);
  std::vector<float> input(3 * HOST_HEIGHT * HOST_WIDTH), features(HOST_PATCHES * HOST_DIM);
  std::vector<float> apart(HOST_PATCHES * (HOST_DIM + 3));
  halves.prepare(image_of(image), input.data(), input.size());
  CHECK(host_network(nullptr, input.data(), features.data()) == 0);
  for (size_t patch = 0; patch < HOST_PATCHES; ++patch) {
    std::copy_n(&features[patch * HOST_DIM], HOST_DIM, &apart[patch * (HOST_DIM + 3)]);
  }
  const onceover_result expected = whole.run(image_of(image));
  CHECK(halves.run_features(features.data(), HOST_PATCHES, HOST_DIM).score == expected.score);
  CHECK(halves.run_features(apart.data(), HOST_PATCHES, HOST_DIM, HOST_DIM + 3).p_value == expected.p_value);
  CHECK(halves.map(HOST_HEIGHT, HOST_WIDTH) == whole.map(HOST_HEIGHT, HOST_WIDTH));
  CHECK(throws([&] { halves.prepare(image_of(image), input.data(), 7); }, ONCEOVER_USAGE, "input_floats is 7"));
}

void test_options_reach_the_library(const char* path) {
  const onceover::PackageFile package = onceover::PackageFile::open(path, true);
  CHECK(package.info().input_width == HOST_WIDTH);
  package.verify();
  CHECK(package.member("memory_bank").second == package.info().bank_rows * HOST_DIM * sizeof(float));
  CHECK(package.member("no_such").first == nullptr);
  onceover::InspectionOptions options = host_options();
  options.other.threads = 2;
  const size_t bytes = onceover::session_memory(package, options);
  std::vector<char> arena(bytes);
  options.other.arena = arena.data();
  options.other.arena_bytes = bytes;
  onceover::InspectionSession session(package, options);
  CHECK(session.info().threads == 2 && session.info().memory_bytes <= bytes);
  const host_package::Image image = host_package::image(50, true);
  session.set_threshold(1e6f);
  session.set_map_threshold(1e6f);
  CHECK(session.run(image_of(image)).verdict == ONCEOVER_NORMAL && session.info().map_threshold == 1e6f);
  onceover::InspectionSession moved = std::move(session);
  CHECK(moved.run(image_of(image)).verdict == ONCEOVER_NORMAL);
  options = onceover::InspectionOptions("onnxruntime", "no/such/library.so");
  options.engine_options = {"key", "value"};
  options.cache_dir = "cache";
  CHECK(throws([&] { onceover::InspectionSession(package, options); }, ONCEOVER_ENGINE, "no/such/library.so"));
}

void test_failures_are_thrown(const char* path) {
  CHECK(throws([] { onceover::PackageFile::open("no/such.onceover"); }, ONCEOVER_INPUT, "no/such.onceover"));
  CHECK(throws([] { onceover::PackageFile::view("text", 4); }, ONCEOVER_PACKAGE, "not an onceover package"));
  onceover::InspectionSession session(onceover::PackageFile::open(path));
  CHECK(throws([&] { session.run(image_of(host_package::image(1))); }, ONCEOVER_USAGE, "no function that runs"));
  const uint8_t pixel = 0;
  CHECK(throws([&] { session.run(onceover::image(static_cast<onceover_pixel_format>(99), &pixel, 9, 9)); },
               ONCEOVER_INPUT, "pixel format 99"));
  CHECK(throws([&] { session.map(4, 4); }, ONCEOVER_USAGE, "call run first"));
  CHECK(throws([&] { session.regions({1, 2}, 2, 2); }, ONCEOVER_USAGE, "another size"));
  CHECK(throws([&] { session.contour({1, 2}, 2, 2, onceover_region()); }, ONCEOVER_USAGE, "another size"));
  CHECK(throws([&] { session.contour({1, 2, 3, 4}, 2, 2, onceover_region()); }, ONCEOVER_USAGE, "not one of this map"));
  CHECK(throws([&] { session.run_features(nullptr, 1, 1); }, ONCEOVER_USAGE, "features is NULL"));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  test_it_answers_as_the_core_does(argv[1]);
  test_a_network_that_runs_elsewhere_gives_the_same_bits(argv[1]);
  test_options_reach_the_library(argv[1]);
  test_failures_are_thrown(argv[1]);
  return check::summary("cpp_api");
}
