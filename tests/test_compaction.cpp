// A package and its journal → a new package: it decides with the bits of the corrected session, tells where it came
// from, and can be corrected and compacted again. What it refuses, and failures: test_compaction_failures.cpp.
#include <algorithm>

#include "compaction/json_text.h"
#include "compaction_check.h"

using namespace compaction_check;

namespace {

// The same decisions, bit for bit, and the same row behind each.
void check_same_decisions(const Corrections& corrections, const std::string& path) {
  const auto before = opened(corrections.shared_package());
  before->apply(corrections.changes(), corrections.max_added_rows());
  const auto package = Package::open(path);
  const auto after = opened(package);
  CHECK(after->bank_rows() == before->bank_rows());
  const Calibration& old = before->calibration();
  const Calibration& now = after->calibration();
  CHECK(now.calibrated == old.calibrated && now.n == old.n && now.image_count == old.image_count);
  CHECK(now.threshold == old.threshold && now.map_threshold == old.map_threshold);
  CHECK(std::equal(now.scores, now.scores + now.n, old.scores));
  CHECK(std::equal(now.map_maxima, now.map_maxima + now.n, old.map_maxima));
  const uint32_t images = kEmulated ? 6 : 40;
  for (uint32_t seed = 300; seed < 300 + images; ++seed) {
    const host_package::Image image = seed % 2 == 0 ? false_alarm(seed) : host_package::image(seed);
    const Result expected = before->run(image.view), got = after->run(image.view);
    CHECK(got.score == expected.score && got.decision == expected.decision && got.p_value == expected.p_value);
    CHECK(got.map_maximum == expected.map_maximum && got.worst_patch == expected.worst_patch);
    const size_t cells = before->config().cell_count();
    CHECK(std::equal(before->patch_scores(), before->patch_scores() + cells, after->patch_scores()));
    const auto row_of = [&](uint32_t number) {
      const uint32_t rows = corrections.fitted_rows(0);
      if (number < rows) return corrections.package().require("memory_bank").as<float>(2) + number * HOST_DIM;
      const std::vector<uint32_t>& numbers = corrections.changes(0).numbers;
      const auto at = std::lower_bound(numbers.begin(), numbers.end(), number) - numbers.begin();
      return corrections.changes(0).added.data() + at * HOST_DIM;
    };
    const float* row = package->require("memory_bank").as<float>(2) + got.nearest_row * HOST_DIM;
    CHECK(std::equal(row, row + HOST_DIM, row_of(expected.nearest_row)));
  }
  CHECK(after->self_test().images == 3);
}

void test_a_compacted_package_decides_as_the_corrected_session(const std::vector<uint8_t>& fitted_bytes) {
  const Corrections corrections = corrected(fitted(fitted_bytes), "parts.journal");
  const std::string path = path_of("parts.onceover");
  const Digest id = compact(corrections, path, options());
  check_same_decisions(corrections, path);
  const auto package = Package::open(path);
  CHECK(package->id() == id && package->id() != corrections.package().id());
  const std::vector<uint8_t> bytes = read_file(path);
  CHECK(compact(corrections, path, options()) == id && read_file(path) == bytes);  // the same bytes, over the old file
  for (const char* kept : {"graph.onnx", "config", "gate", "thumbnails"}) {
    CHECK(package->require(kept).sha256 == corrections.package().require(kept).sha256);
  }
  CHECK(package->find("of_the_future") == nullptr);                        // it may be about rows that are gone
  for (const char* decides : {"roi", "adaptation", "position_weights"}) {  // of tiled_bytes alone
    const MemberView* old = corrections.package().find(decides);
    CHECK(old == nullptr ? package->find(decides) == nullptr : package->require(decides).sha256 == old->sha256);
  }
  CHECK(Corrections(package, path + ".journal").state().records == 0);
}

void test_it_tells_where_its_rows_came_from() {
  Corrections corrections = corrected(fitted(), "told.journal");
  const std::string path = path_of("told.onceover");
  compact(corrections, path, options());
  const auto package = Package::open(path);
  const MemberView& member = package->require("manifest.json");
  const JsonText manifest(std::string(reinterpret_cast<const char*>(member.data), member.size_bytes), "manifest");
  const size_t rows = 960 - 2 + corrections.changes(0).numbers.size();
  CHECK(manifest.find({"compacted", "from"}) == "\"" + hex(corrections.package().id()) + "\"");
  CHECK(manifest.find({"compacted", "journal"}) == "\"" + hex(corrections.state().head) + "\"");
  CHECK(manifest.find({"compacted", "candidates"}) == "[1, 3]");
  CHECK(manifest.find({"compacted", "removed_rows"}) == "2" && !manifest.find({"compacted_before"}));
  CHECK(manifest.find({"compacted", "added_rows"}) == std::to_string(rows - 958));
  CHECK(manifest.find({"detector", "bank_rows"}) == std::to_string(rows));
  CHECK(manifest.count({"data", "bank_images"}) == 42u && manifest.count({"data", "bank_sha256"}) == 42u);
  const std::string names(*manifest.find({"data", "bank_images"}));
  CHECK(names.find("\"39.png\", \"line \\\"3\\\"\\\\\\u000a\xef\xbf\xbd.png\", \"correction 3\"]") !=
        std::string::npos);
  CHECK(manifest.find({"name"}) == "\"host\"");

  const MemberView& source_member = package->require("bank_source");
  const auto* source = source_member.as<uint32_t>(2);
  CHECK(source_member.dimensions[0] == rows);
  const uint32_t first[] = {0, 4, 0, 6};  // patch 5 of the first image is gone
  CHECK(std::equal(first, first + 4, source + 2 * 4));
  const Ledger& ledger = corrections.ledger();
  const std::vector<uint32_t>&one = ledger.find(1)->patches, &two = ledger.find(3)->patches;
  CHECK(one.size() >= 2 && rows == 958 + one.size() - 1 + two.size());
  for (size_t i = 0; i < one.size() - 1; ++i) {  // the second row of the first candidate was removed
    CHECK(source[2 * (958 + i)] == 40 && source[2 * (958 + i) + 1] == one[i == 0 ? 0 : i + 1]);
  }
  CHECK(source[2 * (rows - 1)] == 41 && source[2 * (rows - 1) + 1] == two.back());

  const MemberView& neighbors = package->require("bank_neighbors");
  CHECK(neighbors.dimensions[0] == rows && neighbors.dimensions[1] == 3);
  const auto* bank = package->require("memory_bank").as<float>(2);
  for (size_t row = 0; row < rows; row += 97) {  // the second one, by a search of our own
    double least = 1e30;
    for (size_t other = 0; other < rows; ++other) {
      double squared = 0;
      for (size_t d = 0; d < HOST_DIM; ++d) {
        const double difference = double{bank[row * HOST_DIM + d]} - double{bank[other * HOST_DIM + d]};
        squared += difference * difference;
      }
      if (other != row) least = std::min(least, squared);
    }
    const auto* found = neighbors.as<uint32_t>(2) + row * 3;
    double squared = 0;
    for (size_t d = 0; d < HOST_DIM; ++d) {
      const double difference = double{bank[row * HOST_DIM + d]} - double{bank[found[1] * HOST_DIM + d]};
      squared += difference * difference;
    }
    CHECK(squared <= least * (1 + 1e-6));
  }
}

// What the held-out parts score with the rows of this package.
struct HeldOut {
  std::vector<float> scores, map_maxima;
};
HeldOut held_out(const std::shared_ptr<const Package>& package) {
  const auto session = opened(package);
  HeldOut found;
  for (uint32_t seed = 100; seed < 119; ++seed) {
    const Result& result = session->run(host_package::image(seed).view);
    found.scores.push_back(result.score);
    found.map_maxima.push_back(result.map_maximum);
  }
  std::sort(found.scores.begin(), found.scores.end());
  std::sort(found.map_maxima.begin(), found.map_maxima.end());
  return found;
}

// Fitted rows that every patch of a held-out part is nearest to.
std::vector<uint64_t> rows_of_held_out_parts(const std::shared_ptr<const Package>& package, uint32_t part) {
  const auto session = opened(package);
  session->run(host_package::image(100 + part).view);
  std::vector<uint64_t> rows(session->nearest_rows(), session->nearest_rows() + session->config().cell_count());
  std::sort(rows.begin(), rows.end());
  rows.erase(std::unique(rows.begin(), rows.end()), rows.end());
  return rows;
}

void test_a_compacted_package_is_corrected_and_compacted_again(const std::vector<uint8_t>& fitted_bytes) {
  std::shared_ptr<const Package> package = fitted(fitted_bytes);
  for (uint32_t round = 0; round < 3; ++round) {
    const std::string name = "round_" + std::to_string(round);
    Corrections corrections = journal_of(package, (name + ".journal").c_str());
    if (round != 1) confirm_alarm(corrections, 300 + round, "again.png");
    corrections.remove(0, rows_of_held_out_parts(package, round), "", 0);
    const std::string path = path_of(name + ".onceover");
    compact(corrections, path, options());
    check_same_decisions(corrections, path);
    package = Package::open(path);
    // No held-out part is remembered as better than it is: the promise holds however often it is compacted.
    const HeldOut expected = held_out(package);
    const Calibration calibration = read_calibration(*package);
    for (size_t i = 0; i < calibration.n; ++i) {
      CHECK(calibration.scores[i] >= expected.scores[i] && calibration.map_maxima[i] >= expected.map_maxima[i]);
    }
    CHECK(calibration.threshold >= expected.scores.back() && calibration.map_threshold >= expected.map_maxima.back());
    const auto patches = read_calibration_patches(*package, read_config(*package), calibration,
                                                  package->require("memory_bank").dimensions[0]);
    CHECK(patches && patches->bounds && patches->tracked == 4);
  }
  const MemberView& member = package->require("manifest.json");
  const JsonText manifest(std::string(reinterpret_cast<const char*>(member.data), member.size_bytes), "manifest");
  CHECK(manifest.count({"compacted_before"}) == 2u);
  const auto second = Package::open(path_of("round_1.onceover"));
  CHECK(manifest.find({"compacted", "from"}) == "\"" + hex(second->id()) + "\"");
  const std::string before(*manifest.find({"compacted_before"}));
  CHECK(before.find(hex(fitted(fitted_bytes)->id())) <
        before.find(hex(Package::open(path_of("round_0.onceover"))->id())));
}

void test_a_package_that_remembers_nothing_is_compacted_as_far_as_it_can_be() {
  const std::vector<uint8_t> plain = host_package::bytes({true, false});  // no index, no patches, no provenance
  const auto package = Package::view(plain.data(), plain.size(), "plain");
  Corrections corrections = journal_of(package, "plain.journal");
  confirm_alarm(corrections, 300, "a.png");
  compact(corrections, path_of("plain.onceover"), options());  // rows only joined: thresholds are kept
  check_same_decisions(corrections, path_of("plain.onceover"));
  corrections.remove(0, {3}, "", 0);
  compact(corrections, path_of("plain.onceover"), options());
  const auto made = Package::open(path_of("plain.onceover"));
  CHECK(!read_calibration(*made).calibrated);
  CHECK(opened(made)->run(false_alarm(300).view).decision == Decision::kUncalibrated);
  CHECK(made->find("bank_source") == nullptr && made->find("bank_neighbors") == nullptr);
  const std::vector<uint8_t> bare = host_package::with_members(plain, {}, {"manifest.json"});
  Corrections without = journal_of(Package::view(bare.data(), bare.size(), "bare"), "bare.journal");
  without.remove(0, {3}, "", 0);
  compact(without, path_of("bare.onceover"), options());
  const auto told = Package::open(path_of("bare.onceover"));
  CHECK(told->find("manifest.json") != nullptr && !told->require("manifest.json").required);
}

}  // namespace

int main() {
  return run("compaction", [] {
    std::vector<std::vector<uint8_t>> packages = {tiled_bytes()};
    if (!kEmulated) packages.push_back(package_bytes());
    for (const std::vector<uint8_t>& bytes : packages) {
      test_a_compacted_package_decides_as_the_corrected_session(bytes);
      test_a_compacted_package_is_corrected_and_compacted_again(bytes);
    }
    test_it_tells_where_its_rows_came_from();
    test_a_package_that_remembers_nothing_is_compacted_as_far_as_it_can_be();
  });
}
