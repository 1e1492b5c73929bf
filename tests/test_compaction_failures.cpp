// Compaction that is refused, fails, is stopped or killed: the old file is there, or the whole new one.
#include "compaction_check.h"

using namespace compaction_check;

namespace {

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
  corrections.remove(0, {40}, "", 0);
  compact(corrections, path_of("as_killed.onceover"), options());
  const std::vector<uint8_t> whole = read_file(path_of("as_killed.onceover"));
  size_t reports = 0;
  CompactOptions counting = options();
  counting.progress = [&](const char*, size_t, size_t) { ++reports; };
  compact(corrections, path_of("as_killed.onceover"), counting);
  const std::vector<std::string> before = files();
  killed_at_every_report(corrections, path, reports);
  CHECK(files().size() > before.size());  // the last of them died with its temporary file written
  compact(corrections, path, options());
  CHECK(read_file(path) == whole && files() == before);  // and the next one cleared it away
}

}  // namespace

int main() {
  return run("compaction_failures", [] {
    test_what_makes_no_sense_is_refused_and_writes_nothing();
    test_a_package_that_is_not_sound_is_not_compacted();
    test_damage_that_opening_did_not_look_for_is_not_blessed_by_a_new_hash();
    test_what_fails_on_the_way_leaves_the_old_file();
    test_a_kill_leaves_the_old_file_or_the_whole_new_one();
  });
}
