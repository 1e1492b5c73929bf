// A package and its journal → a new package: it decides with the bits of the corrected session, tells where it came
// from, can be corrected and compacted again, and is there whole or not at all. Its manifest: test_json_text.cpp.
#include "compaction/compact.h"

#include <dirent.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <functional>
#include <iterator>
#include <numeric>

#include "check.h"
#include "compaction/json_text.h"
#include "correctable_package.h"

using namespace onceover;

namespace {

std::string folder;  // of this run

const std::vector<uint8_t>& package_bytes() {
  static const std::vector<uint8_t> bytes = host_package::correctable_bytes();
  return bytes;
}

std::string path_of(const std::string& name) { return folder + "/" + name; }

std::vector<uint8_t> read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<std::string> files() {
  std::vector<std::string> names;
  DIR* open = ::opendir(folder.c_str());
  while (const dirent* entry = ::readdir(open)) {
    if (entry->d_name[0] != '.' || std::string(entry->d_name).size() > 2) names.emplace_back(entry->d_name);
  }
  ::closedir(open);
  std::sort(names.begin(), names.end());
  return names;
}

std::unique_ptr<Session> opened(std::shared_ptr<const Package> package) {
  return std::make_unique<Session>(std::move(package), host_package::session_options());
}

CompactOptions options() {
  CompactOptions made;
  made.open_session = opened;
  return made;
}

// A new journal of the package at a path of this name.
Corrections journal_of(std::shared_ptr<const Package> package, const char* name) {
  const std::string path = path_of(name);
  ::unlink(path.c_str());
  return {std::move(package), path};
}

std::shared_ptr<const Package> fitted() {
  return Package::view(package_bytes().data(), package_bytes().size(), "fitted");
}

// Confirms a part with a bright square as a false alarm.
uint64_t confirm_alarm(Corrections& corrections, uint32_t seed, const std::string& name) {
  const auto session = opened(corrections.shared_package());
  session->apply(corrections.changes(0), corrections.max_added_rows());
  session->run(host_package::image(seed, true).view);
  std::vector<float> rows;
  Candidate candidate = session->candidate(rows);
  candidate.name = name;
  const uint64_t id = corrections.propose(0, candidate, {rows.data(), candidate.patches.size(), HOST_DIM}, 0);
  corrections.confirm({id}, "", 0);
  return id;
}

// Rows added, rows removed, a candidate whose name is hard to write, one that waits and one that was taken back.
Corrections corrected(std::shared_ptr<const Package> package, const char* name) {
  Corrections corrections = journal_of(std::move(package), name);
  confirm_alarm(corrections, 300, "shots/line \"3\"\\\n\xff.png");
  confirm_alarm(corrections, 301, "");
  corrections.reject({confirm_alarm(corrections, 307, "rejected.png")}, "", 0);
  corrections.remove(0, {5, 17, corrections.changes(0).numbers[1]}, "", 0);
  return corrections;
}

// The same decisions, bit for bit, and the same row behind each.
void check_same_decisions(const Corrections& corrections, const std::string& path) {
  const auto before = opened(corrections.shared_package());
  before->apply(corrections.changes(0), corrections.max_added_rows());
  const auto package = Package::open(path);
  const auto after = opened(package);
  CHECK(after->bank_rows() == before->bank_rows());
  const Calibration& old = before->calibration();
  const Calibration& now = after->calibration();
  CHECK(now.calibrated == old.calibrated && now.n == old.n && now.image_count == old.image_count);
  CHECK(now.threshold == old.threshold && now.map_threshold == old.map_threshold);
  CHECK(std::equal(now.scores, now.scores + now.n, old.scores));
  CHECK(std::equal(now.map_maxima, now.map_maxima + now.n, old.map_maxima));
  for (uint32_t seed = 300; seed < 340; ++seed) {
    const host_package::Image image = host_package::image(seed, seed % 2 == 0);
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

void test_a_compacted_package_decides_as_the_corrected_session() {
  const Corrections corrections = corrected(fitted(), "parts.journal");
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
  CHECK(package->find("of_the_future") == nullptr);  // it may be about rows that are gone
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
std::vector<float> true_scores(const std::shared_ptr<const Package>& package) {
  const auto session = opened(package);
  std::vector<float> scores;
  for (uint32_t seed = 100; seed < 119; ++seed) scores.push_back(session->run(host_package::image(seed).view).score);
  std::sort(scores.begin(), scores.end());
  return scores;
}

void test_a_compacted_package_is_corrected_and_compacted_again() {
  std::shared_ptr<const Package> package = fitted();
  for (uint32_t round = 0; round < 3; ++round) {
    const std::string name = "round_" + std::to_string(round);
    Corrections corrections = journal_of(package, (name + ".journal").c_str());
    if (round != 1) confirm_alarm(corrections, 300 + round, "again.png");
    corrections.remove(0, {7, 100 + round, 500}, "", 0);
    const std::string path = path_of(name + ".onceover");
    compact(corrections, path, options());
    check_same_decisions(corrections, path);
    package = Package::open(path);
    // No held-out part is remembered as better than it is: the promise holds however often it is compacted.
    const std::vector<float> expected = true_scores(package);
    const Calibration calibration = read_calibration(*package);
    for (size_t i = 0; i < expected.size(); ++i) CHECK(calibration.scores[i] >= expected[i]);
    CHECK(calibration.threshold >= expected.back());
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
  CHECK(before.find(hex(fitted()->id())) < before.find(hex(Package::open(path_of("round_0.onceover"))->id())));
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
  CHECK(opened(made)->run(host_package::image(300, true).view).decision == Decision::kUncalibrated);
  CHECK(made->find("bank_source") == nullptr && made->find("bank_neighbors") == nullptr);
  const std::vector<uint8_t> bare = host_package::with_members(plain, {}, {"manifest.json"});
  Corrections without = journal_of(Package::view(bare.data(), bare.size(), "bare"), "bare.journal");
  without.remove(0, {3}, "", 0);
  compact(without, path_of("bare.onceover"), options());
  const auto told = Package::open(path_of("bare.onceover"));
  CHECK(told->find("manifest.json") != nullptr && !told->require("manifest.json").required);
}

void test_what_makes_no_sense_is_refused_and_writes_nothing() {
  Corrections corrections = journal_of(fitted(), "refused.journal");
  const std::string path = path_of("refused.onceover");
  CHECK_THROWS(compact(corrections, path, options()), Status::kUsage, "nothing to compact");
  corrections.remove(0, {5}, "", 0);
  const std::vector<std::string> before = files();
  CHECK_THROWS(compact(corrections, corrections.path(), options()), Status::kUsage, "is the journal");
  CHECK_THROWS(compact(corrections, path_of("refused"), options()), Status::kUsage, "move it");  // its journal is there
  CHECK_THROWS(compact(corrections, folder, options()), Status::kOutput, "is a folder");
  CHECK_THROWS(compact(corrections, "/nowhere/at/all", options()), Status::kOutput, "create the folder first");
  CHECK(files() == before);

  const std::string own = path_of("own.onceover"), link = path_of("link.onceover");
  save_atomically(own, package_bytes().data(), package_bytes().size());
  CHECK(::link(own.c_str(), link.c_str()) == 0);
  Corrections of_file = journal_of(Package::open(own), "of_file.journal");
  of_file.remove(0, {5}, "", 0);
  for (const std::string& output : {own, link, folder + "/../" + folder.substr(5) + "/own.onceover"}) {
    CHECK_THROWS(compact(of_file, output, options()), Status::kUsage, "is the package itself");
  }
  CHECK(read_file(own) == package_bytes());
}

void test_a_package_that_is_not_sound_is_not_compacted() {
  const auto refused = [](std::vector<uint8_t> bytes, Status status, const char* message) {
    const std::string damaged = path_of("unsound.onceover");
    save_atomically(damaged, bytes.data(), bytes.size());
    Corrections corrections = journal_of(Package::open(damaged, {HashedMembers::kSmall}), "unsound.journal");
    corrections.remove(0, {5}, "", 0);
    CHECK_THROWS(compact(corrections, path_of("from_unsound.onceover"), options()), status, message);
    CHECK(::access(path_of("from_unsound.onceover").c_str(), F_OK) != 0);
  };
  const std::vector<uint8_t>& whole = package_bytes();
  const auto with = [&](const char* name, std::vector<uint8_t> content) {
    return host_package::with_members(whole, {{name, std::move(content)}}, {name});
  };
  const std::string text = "no manifest";
  refused(with("manifest.json", {text.begin(), text.end()}), Status::kPackage, "member 'manifest.json': is not a JSON");
  refused(with("bank_source", std::vector<uint8_t>(8)), Status::kPackage, "bank_source");
  refused(with("bank_neighbors", std::vector<uint8_t>(8)), Status::kPackage, "bank_neighbors");
  refused(with("calibration_patches", std::vector<uint8_t>(80)), Status::kPackage, "calibration_patches");
  Parity none;
  none.relative_tolerance = 1e-4f;
  refused(host_package::with_members(whole, {{"parity", write_parity(none, host_package::config())}}, {"parity"}),
          Status::kVerification, "no reference images");
  // graph { initializer { data_location: EXTERNAL } }
  refused(with("graph.onnx", {0x3a, 0x04, 0x2a, 0x02, 0x70, 0x01}), Status::kInput, "a file beside it");
}

void test_damage_that_opening_did_not_look_for_is_not_blessed_by_a_new_hash() {
  std::vector<uint8_t> large = package_bytes();
  large = host_package::with_members(large, {{"thumbnails", std::vector<uint8_t>(kSmallMemberBytes + 1, 1)}},
                                     {"thumbnails"});
  large[large.size() - 100] ^= 1;  // of the last member
  const std::string path = path_of("damaged.onceover");
  save_atomically(path, large.data(), large.size());
  Corrections corrections = journal_of(Package::open(path, {HashedMembers::kSmall}), "damaged.journal");
  corrections.remove(0, {5}, "", 0);
  CHECK_THROWS(compact(corrections, path_of("from_damaged.onceover"), options()), Status::kPackage, "thumbnails");
}

int32_t failing_network(void* context, const float* input, float* output) {
  auto& left = *static_cast<int*>(context);
  return left-- > 0 ? host_network(nullptr, input, output) : 7;
}

int32_t drifting_network(void* context, const float* input, float* output) {
  auto& runs = *static_cast<int*>(context);
  host_network(nullptr, input, output);
  if (++runs > 3) output[0] += 1;  // from the second session on
  return 0;
}

void test_what_fails_on_the_way_leaves_the_old_file() {
  Corrections corrections = corrected(fitted(), "failing.journal");
  const std::string path = path_of("failing.onceover");
  compact(corrections, path, options());
  corrections.remove(0, {40}, "", 0);
  const std::vector<uint8_t> old = read_file(path);
  const std::vector<std::string> before = files();
  const auto with_network = [](int32_t (*run)(void*, const float*, float*), int& state) {
    CompactOptions made;
    made.open_session = [run, &state](std::shared_ptr<const Package> package) {
      SessionOptions session = host_package::session_options();
      session.engine.host = {run, &state};
      return std::make_unique<Session>(std::move(package), session);
    };
    return made;
  };
  for (int runs = 0; runs < 6; ++runs) {  // three images, twice
    int left = runs;
    CHECK_THROWS(compact(corrections, path, with_network(failing_network, left)), Status::kEngine, "7");
    CHECK(read_file(path) == old && files() == before);
  }
  int runs = 0;
  CHECK_THROWS(compact(corrections, path, with_network(drifting_network, runs)), Status::kVerification,
               "failing.onceover: was not written");
  CHECK(read_file(path) == old && files() == before);

  // A caller that stops it, wherever it is told of progress.
  struct Stopped {};
  size_t reports = 0;
  std::vector<std::string> stages;
  CompactOptions counting = options();
  counting.progress = [&](const char* what, size_t done, size_t total) {
    ++reports;
    if (stages.empty() || stages.back() != what) stages.emplace_back(what);
    CHECK(done <= total && total > 0);
  };
  compact(corrections, path_of("counted.onceover"), counting);
  CHECK(stages == (std::vector<std::string>{"reference images", "search index", "neighbors", "verifying"}));
  const std::vector<std::string> now = files();
  for (size_t stop = 1; stop <= reports; ++stop) {
    CompactOptions stopping = options();
    size_t seen = 0;
    stopping.progress = [&](const char*, size_t, size_t) {
      if (++seen == stop) throw Stopped();
    };
    bool stopped = false;
    try {
      compact(corrections, path, stopping);
    } catch (const Stopped&) {
      stopped = true;
    }
    CHECK(stopped && read_file(path) == old && files() == now);
  }
}

void test_a_kill_leaves_the_old_file_or_the_whole_new_one() {
  Corrections corrections = corrected(fitted(), "killed.journal");
  const std::string path = path_of("killed.onceover");
  compact(corrections, path, options());
  const std::vector<uint8_t> old = read_file(path);
  corrections.remove(0, {40}, "", 0);
  compact(corrections, path_of("as_killed.onceover"), options());
  const std::vector<uint8_t> whole = read_file(path_of("as_killed.onceover"));
  size_t reports = 0;
  CompactOptions counting = options();
  counting.progress = [&](const char*, size_t, size_t) { ++reports; };
  compact(corrections, path_of("as_killed.onceover"), counting);
  const std::vector<std::string> before = files();
  for (size_t at = 1; at <= reports; ++at) {
    const pid_t child = ::fork();
    if (child == 0) {
      CompactOptions dying = options();
      size_t seen = 0;
      dying.progress = [&](const char*, size_t, size_t) {
        if (++seen == at) ::raise(SIGKILL);
      };
      compact(corrections, path, dying);
      ::_exit(0);
    }
    int status = 0;
    CHECK(::waitpid(child, &status, 0) == child && WIFSIGNALED(status));
    CHECK(read_file(path) == old);
  }
  CHECK(files().size() > before.size());  // the last of them died with its temporary file written
  compact(corrections, path, options());
  CHECK(read_file(path) == whole && files() == before);  // and the next one cleared it away
}

}  // namespace

int main() {
  char pattern[] = "/tmp/onceover_compaction_XXXXXX";
  const char* made = ::mkdtemp(pattern);
  if (made == nullptr) return EXIT_FAILURE;
  folder = made;
  test_a_compacted_package_decides_as_the_corrected_session();
  test_it_tells_where_its_rows_came_from();
  test_a_compacted_package_is_corrected_and_compacted_again();
  test_a_package_that_remembers_nothing_is_compacted_as_far_as_it_can_be();
  test_what_makes_no_sense_is_refused_and_writes_nothing();
  test_a_package_that_is_not_sound_is_not_compacted();
  test_damage_that_opening_did_not_look_for_is_not_blessed_by_a_new_hash();
  test_what_fails_on_the_way_leaves_the_old_file();
  test_a_kill_leaves_the_old_file_or_the_whole_new_one();
  const std::string clean = "rm -rf '" + folder + "'";
  if (std::system(clean.c_str()) != 0) return EXIT_FAILURE;
  return check::summary("compaction");
}
