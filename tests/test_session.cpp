// The session with a network that the application runs: features handed over, thresholds of the user's own, regions,
// memory, threads. Sessions over real engines: test_engines.cpp and the Python tests.
#include <algorithm>
#include <cmath>
#include <limits>
#include <thread>

#include "check.h"
#include "host_package.h"

using namespace onceover;

namespace {

std::shared_ptr<const Package> shared_package(host_package::Kind kind = {}) {
  static std::vector<std::vector<uint8_t>> files;  // packages view them
  files.push_back(host_package::bytes(kind));
  return Package::view(files.back().data(), files.back().size(), "host");
}

void test_the_network_of_the_application_is_a_whole_path() {
  Session session(shared_package(), host_package::session_options());
  CHECK(session.engine_version() == "host");
  CHECK(session.self_test().images == 3);
  const Result normal = session.run(host_package::image(100).view);
  CHECK(normal.decision == Decision::kNormal && normal.score <= normal.threshold);
  const Result anomalous = session.run(host_package::image(100, true).view);
  CHECK(anomalous.decision == Decision::kAnomalous && anomalous.score > anomalous.threshold);
  CHECK(anomalous.p_value == 1.0 / 20);
}

void test_features_give_the_result_of_the_image_they_come_from() {
  const auto package = shared_package();
  Session session(package, host_package::session_options());
  SessionOptions without = host_package::session_options();
  without.engine.host = {};
  Session fed(package, without);
  std::vector<float> input(3 * HOST_HEIGHT * HOST_WIDTH), features(HOST_PATCHES * HOST_DIM);
  for (const bool defect : {false, true}) {
    const host_package::Image image = host_package::image(57, defect);
    const Result expected = session.run(image.view);
    fed.prepare(image.view, input.data());
    CHECK(host_network(nullptr, input.data(), features.data()) == 0);
    const Result& got = fed.run_features({features.data(), HOST_PATCHES, HOST_DIM});
    CHECK(got.score == expected.score && got.decision == expected.decision && got.p_value == expected.p_value);
    CHECK(got.nearest_row == expected.nearest_row && got.worst_patch == expected.worst_patch);
    CHECK(std::equal(fed.map().data, fed.map().data + HOST_HEIGHT * HOST_WIDTH, session.map().data));
    CHECK(got.timing.engine_ns == 0 && got.timing.prepare_ns == 0);
  }
  CHECK_THROWS(fed.run(host_package::image(57).view), Status::kUsage, "was given no function that runs the network");
  CHECK_THROWS(fed.patch_scores(), Status::kUsage, "call run first");
  CHECK_THROWS(fed.run_features({features.data(), HOST_PATCHES - 1, HOST_DIM}), Status::kUsage, "23 x 16");
  CHECK_THROWS(fed.run_features({features.data(), HOST_PATCHES, HOST_DIM - 1, HOST_DIM}), Status::kUsage, "24 x 15");
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    std::vector<float> damaged = features;
    damaged[5 * HOST_DIM + 3] = bad;
    CHECK_THROWS(fed.run_features({damaged.data(), HOST_PATCHES, HOST_DIM}), Status::kEngine, "features of patch 5");
  }
}

int32_t answer_nan(void*, const float*, float* output) {
  std::fill_n(output, HOST_PATCHES * HOST_DIM, 0.0f);
  output[100] = std::numeric_limits<float>::quiet_NaN();
  return 0;
}
int32_t answer_nothing(void*, const float*, float*) { return 0; }
int32_t answer_huge(void*, const float*, float* output) {
  std::fill_n(output, HOST_PATCHES * HOST_DIM, 3e38f);  // finite, but no float32 holds the distance
  return 0;
}

void test_a_network_that_fails_gives_no_verdict() {
  const auto package = shared_package();
  int32_t code = 0;
  SessionOptions options = host_package::session_options();
  options.engine.host.context = &code;
  Session session(package, options);
  session.run(host_package::image(57).view);
  code = -5;
  CHECK_THROWS(session.run(host_package::image(57).view), Status::kEngine, "failed with code -5");
  CHECK_THROWS(session.map(), Status::kUsage, "call run first");
  for (const auto run : {answer_nan, answer_nothing}) {
    options.engine.host.run = run;
    CHECK_THROWS(Session(package, options).run(host_package::image(57).view), Status::kEngine, "NaN or infinite");
  }
  options.engine.host.run = answer_huge;
  CHECK_THROWS(Session(package, options).run(host_package::image(57).view), Status::kEngine, "not finite");
  options.engine.device = "NPU";
  CHECK_THROWS(Session(package, options), Status::kUsage, "takes no library");
}

void test_a_threshold_of_the_users_own_decides_from_the_next_run_on() {
  for (const bool calibrated : {true, false}) {
    Session session(shared_package({calibrated, true}), host_package::session_options());
    const host_package::Image image = host_package::image(100);
    const Result before = session.run(image.view);
    CHECK(before.decision == (calibrated ? Decision::kNormal : Decision::kUncalibrated));
    CHECK(before.threshold == session.calibration().threshold);
    session.set_threshold(before.score);
    CHECK(session.run(image.view).decision == Decision::kNormal);  // anomalous is above it, not at it
    session.set_threshold(std::nextafter(before.score, 0.0f));
    const Result after = session.run(image.view);
    CHECK(after.decision == Decision::kAnomalous && after.threshold == std::nextafter(before.score, 0.0f));
    CHECK(after.score == before.score && after.p_value == before.p_value);
    CHECK(session.self_test().images == 3);  // against the package, not against the user's choice
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      CHECK_THROWS(session.set_threshold(bad), Status::kUsage, "expected a finite number");
      CHECK_THROWS(session.set_map_threshold(bad), Status::kUsage, "expected a finite number");
    }
  }
}

void test_regions_are_those_of_anomalous_images_and_follow_the_map_threshold() {
  SessionOptions options = host_package::session_options();
  options.max_map_width = 96;
  Session session(shared_package(), options);
  MapRegion regions[4];
  std::vector<float> map(80 * 96);
  const MatrixView<float> large(map.data(), 80, 96);
  CHECK_THROWS(session.find_regions({map.data(), 80, 96}, regions, 4), Status::kUsage, "call run first");
  session.run(host_package::image(100).view);
  session.set_map_threshold(0);
  CHECK(session.find_regions(session.map(), regions, 4) == 0);  // a normal part has none
  session.run(host_package::image(100, true).view);
  CHECK(session.find_regions(session.map(), regions, 4) >= 1 && regions[0].area > 100);
  session.draw_map(large);
  session.set_map_threshold(session.calibration().map_threshold);
  CHECK(session.find_regions({map.data(), 80, 96}, regions, 4) >= 1);
  CHECK(regions[0].top < 40 && regions[0].bottom > 40 && regions[0].left < 48 && regions[0].right > 48);
  CHECK(regions[0].peak_value == *std::max_element(map.begin(), map.end()));
  session.set_map_threshold(1e6f);
  CHECK(session.find_regions(session.map(), regions, 4) == 0);
}

struct Counted {  // an allocator that counts
  size_t held = 0, peak = 0, calls = 0;
  Allocator allocator() {
    return {this,
            [](void* context, size_t size, size_t alignment) {
              auto* self = static_cast<Counted*>(context);
              self->held += size;
              self->peak = std::max(self->peak, self->held);
              ++self->calls;
              return heap_allocator().allocate(nullptr, size, alignment);
            },
            [](void* context, void* pointer, size_t size, size_t alignment) {
              static_cast<Counted*>(context)->held -= size;
              heap_allocator().release(nullptr, pointer, size, alignment);
            }};
  }
};

void test_memory_that_is_told_is_memory_that_is_used() {
  for (const bool indexed : {true, false}) {
    Counted counted;
    SessionOptions options = host_package::session_options();
    options.allocator = counted.allocator();
    const auto package = shared_package({true, indexed});
    size_t needed = 0;
    {
      Session session(package, options);
      needed = session.peak_memory_bytes();
      CHECK(session.memory_bytes() == counted.held && needed == counted.peak);
      const size_t calls = counted.calls;
      session.run(host_package::image(57, true).view);
      session.self_test();
      CHECK(counted.calls == calls);
    }
    CHECK(counted.held == 0);
    options.memory_limit_bytes = needed;
    CHECK(Session(package, options).run(host_package::image(57).view).score > 0);
    options.memory_limit_bytes = needed - 1;
    CHECK_THROWS(Session(package, options), Status::kMemory, "memory limit");
    CHECK(counted.held == 0 && counted.peak == needed);
  }
}

void test_threads_change_no_bits_and_stay_on_their_cpus() {
  const auto package = shared_package();
  SessionOptions options = host_package::session_options();
  Session one(package, options);
  options.engine.threads = 3;
  options.cpu_mask = 1;
  options.touch_pages = true;
  Session three(package, options);
  CHECK(three.threads() == 3);
  for (uint32_t seed = 0; seed < 5; ++seed) {
    const host_package::Image image = host_package::image(seed + 50, seed % 2 == 1);
    const Result expected = one.run(image.view), got = three.run(image.view);
    CHECK(got.score == expected.score && got.nearest_row == expected.nearest_row);
    CHECK(std::equal(one.patch_scores(), one.patch_scores() + HOST_PATCHES, three.patch_scores()));
    CHECK(std::equal(one.map().data, one.map().data + HOST_HEIGHT * HOST_WIDTH, three.map().data));
  }
  if (std::thread::hardware_concurrency() < 60) {
    options.cpu_mask = uint64_t{1} << 63;
    CHECK_THROWS(Session(package, options), Status::kUsage, "name CPUs that this machine has");
  }
}

void test_a_bound_of_corrections_beyond_all_row_numbers_is_refused() {  // before any memory is taken for it
  const std::vector<uint8_t> file = host_package::bytes();
  Session session(Package::view(file.data(), file.size(), "host"), host_package::session_options());
  const size_t before = session.memory_bytes();
  CHECK_THROWS(session.apply({BankChanges()}, UINT32_MAX), Status::kUsage, "more than can be numbered");
  CHECK(session.memory_bytes() == before);
}

}  // namespace

int main() {
  test_a_bound_of_corrections_beyond_all_row_numbers_is_refused();
  test_the_network_of_the_application_is_a_whole_path();
  test_features_give_the_result_of_the_image_they_come_from();
  test_a_network_that_fails_gives_no_verdict();
  test_a_threshold_of_the_users_own_decides_from_the_next_run_on();
  test_regions_are_those_of_anomalous_images_and_follow_the_map_threshold();
  test_memory_that_is_told_is_memory_that_is_used();
  test_threads_change_no_bits_and_stay_on_their_cpus();
  return check::summary("session");
}
