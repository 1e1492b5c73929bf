// The journal of corrections: what is acknowledged survives a kill at any byte, damage is never taken for a torn tail,
// the corrected bank finds what a new bank would find, and no calibration part is scored too low.
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>

#include "check.h"
#include "corrections/corrected_bank.h"
#include "corrections/cover.h"
#include "corrections/recalibrate.h"
#include "host_package.h"
#include "kernel_tables.h"
#include "scoring/memory_bank.h"

using namespace onceover;

namespace {

std::string folder;  // of this run
const bool kEmulated = std::getenv("ONCEOVER_QEMU") != nullptr;

const std::vector<uint8_t>& package_bytes() {
  static const std::vector<uint8_t> bytes = host_package::bytes();
  return bytes;
}

std::shared_ptr<const Package> package() {
  return Package::view(package_bytes().data(), package_bytes().size(), "host");
}

std::string new_path(const char* name) {
  const std::string path = folder + "/" + name;
  ::unlink(path.c_str());
  return path;
}

std::vector<uint8_t> read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void write_file(const std::string& path, const std::vector<uint8_t>& bytes, size_t size) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(size));
}

std::vector<float> rows(size_t count, uint32_t seed) {
  std::vector<float> values(count * HOST_DIM);
  std::mt19937 random(seed);
  for (float& value : values) value = static_cast<float>(random() % 2000) / 100.0f - 10.0f;
  return values;
}

uint64_t propose(Corrections& corrections, size_t count, uint32_t seed) {
  Candidate candidate;
  candidate.name = "part " + std::to_string(seed);
  candidate.score = 3;
  candidate.threshold = 2;
  for (uint32_t i = 0; i < count; ++i) candidate.patches.push_back(i);
  const std::vector<float> values = rows(count, seed);
  return corrections.propose(0, candidate, {values.data(), count, HOST_DIM}, 1000 + seed);
}

Standing standing(const Corrections& corrections, uint64_t id) { return corrections.ledger().find(id)->standing; }

// Everything that a person or a session sees of a journal.
std::string told(const Corrections& corrections) {
  std::string text;
  for (const Operation& each : corrections.ledger().operations()) {
    text += name_of(each.type) + std::to_string(each.sequence) + "@" + std::to_string(each.time) + each.text;
    for (const uint64_t number : each.named) text += "," + std::to_string(number);
    text += "u" + std::to_string(each.undone_by) + ";";
  }
  for (const Proposal& each : corrections.ledger().proposals()) text += each.name + name_of(each.standing) + ";";
  const BankChanges& changes = corrections.changes(0);
  text += std::to_string(sha256(changes.added.data(), changes.added.size() * sizeof(float))[0]);
  for (const uint32_t number : changes.numbers) text += "+" + std::to_string(number);
  for (const uint32_t number : changes.removed) text += "-" + std::to_string(number);
  return text;
}

void test_a_candidate_changes_nothing_until_it_is_confirmed() {
  const std::string path = new_path("quarantine.journal");
  Corrections corrections(package(), path);
  CHECK(corrections.state().records == 0 && ::access(path.c_str(), F_OK) != 0);  // reading makes no file
  CHECK_THROWS(corrections.confirm({1}, "", 0), Status::kUsage, "1 is no candidate");
  CHECK(::access(path.c_str(), F_OK) != 0);  // nor does what is refused
  const uint64_t first = propose(corrections, 3, 1), second = propose(corrections, 2, 2);
  CHECK(first == 1 && second == 2 && corrections.changes(0).numbers.empty());
  corrections.confirm({second}, "seen by R.", 7);
  CHECK(corrections.changes(0).numbers == (std::vector<uint32_t>{963, 964}));  // 960 fitted rows, three that wait
  CHECK(corrections.changes(0).added == rows(2, 2));
  CHECK_THROWS(corrections.confirm({second}, "", 0), Status::kUsage, "2 is confirmed already");
  CHECK_THROWS(corrections.confirm({first, first}, "", 0), Status::kUsage, "named twice");
  corrections.reject({first}, "a real scratch", 8);
  CHECK(standing(corrections, first) == Standing::kRejected);
  corrections.confirm({first}, "it was not", 9);
  CHECK(corrections.changes(0).numbers == (std::vector<uint32_t>{960, 961, 962, 963, 964}));
  corrections.remove(0, {5, 961}, "contaminated", 10);
  CHECK(corrections.changes(0).removed == std::vector<uint32_t>{5});
  CHECK(corrections.changes(0).numbers == (std::vector<uint32_t>{960, 962, 963, 964}));
  CHECK_THROWS(corrections.remove(0, {5}, "", 0), Status::kUsage, "row 5 is not in the memory bank");
  CHECK_THROWS(corrections.remove(0, {4000}, "", 0), Status::kUsage, "row 4000 is not");
  const Corrections again(package(), path);
  CHECK(told(again) == told(corrections) && again.state().head == corrections.state().head);
  CHECK(again.ledger().operations()[2].text == "seen by R." && again.ledger().operations()[2].time == 7);
}

void test_undo_goes_back_operation_by_operation() {
  Corrections corrections(package(), new_path("undo.journal"));
  propose(corrections, 2, 1);
  corrections.confirm({1}, "", 0);
  corrections.remove(0, {9}, "", 0);
  const std::vector<float> kept = corrections.changes(0).added;
  CHECK(corrections.undo("", 0) == 3 && corrections.changes(0).removed.empty() && corrections.changes(0).added == kept);
  CHECK(corrections.undo("", 0) == 2 && corrections.changes(0).numbers.empty());
  CHECK(standing(corrections, 1) == Standing::kQuarantined);
  corrections.confirm({1}, "after all", 0);
  CHECK(corrections.undo("", 0) == 6 && corrections.undo("", 0) == 1);
  CHECK(standing(corrections, 1) == Standing::kUndone);
  CHECK_THROWS(corrections.confirm({1}, "", 0), Status::kUsage, "any more");
  CHECK_THROWS(corrections.undo("", 0), Status::kUsage, "nothing left to undo");
  propose(corrections, 1, 3);
  corrections.confirm({9}, "", 0);
  CHECK(corrections.changes(0).numbers == std::vector<uint32_t>{962});  // the numbers of undone rows do not return
}

void test_a_full_bank_lets_go_of_the_oldest_confirmation() {
  Corrections corrections(package(), new_path("full.journal"), 10);
  for (uint32_t i = 1; i <= 4; ++i) propose(corrections, 4, i);
  corrections.confirm({2}, "", 0);
  corrections.confirm({1}, "", 0);
  corrections.confirm({3}, "", 0);
  CHECK(standing(corrections, 2) == Standing::kEvicted && corrections.ledger().find(2)->evicted_by == 7);
  CHECK(standing(corrections, 1) == Standing::kConfirmed && corrections.ledger().added_row_count(0) == 8);
  corrections.confirm({2}, "", 0);  // is now the youngest
  CHECK(standing(corrections, 1) == Standing::kEvicted && standing(corrections, 2) == Standing::kConfirmed);
  corrections.undo("", 0);
  CHECK(standing(corrections, 1) == Standing::kConfirmed && standing(corrections, 2) == Standing::kEvicted);
  CHECK_THROWS(corrections.confirm({1, 2, 4}, "", 0), Status::kUsage, "is confirmed already");
  corrections.reject({1, 3}, "", 0);
  CHECK_THROWS(corrections.confirm({1, 2, 4}, "", 0), Status::kUsage, "12 rows, the journal holds at most 10");
  CHECK_THROWS(propose(corrections, 11, 9), Status::kUsage, "the candidate has 11 rows");
  const Corrections again(package(), corrections.path(), 500);  // the bound is the file's, not the caller's
  CHECK(again.max_added_rows() == 10 && told(again) == told(corrections));
}

void test_a_journal_belongs_to_its_package() {
  const std::string path = new_path("other.journal");
  Corrections corrections(package(), path);
  propose(corrections, 1, 1);
  const std::vector<uint8_t> other = host_package::bytes({false, true});
  const auto another = Package::view(other.data(), other.size(), "another");
  CHECK_THROWS(Corrections(another, path), Status::kInput, "holds corrections of the package");
  write_file(path, package_bytes(), 500);
  CHECK_THROWS(Corrections(package(), path), Status::kPackage, "is no journal");
  CHECK_THROWS(propose(corrections, 1, 1), Status::kPackage, "is no journal");
  CHECK(read_file(path).size() == 500);  // what is somebody else's stays
  CHECK_THROWS(Corrections(package(), folder), Status::kInput, "is no regular file");
}

// Some operations of every kind, and what was to be seen after each.
struct History {
  std::vector<size_t> sizes;       // of the file
  std::vector<std::string> views;  // one more than sizes: the first of an empty journal
};

History make_history(const std::string& path) {
  Corrections corrections(package(), path, 8);
  History history;
  history.views.push_back(told(corrections));
  const auto note = [&] {
    history.sizes.push_back(read_file(path).size());
    history.views.push_back(told(corrections));
  };
  propose(corrections, 2, 1), note();
  propose(corrections, 3, 2), note();
  corrections.confirm({1}, "by R.", 5), note();
  corrections.reject({2}, "", 6), note();
  corrections.remove(0, {17, 960}, "contaminated", 7), note();
  corrections.undo("", 8), note();
  propose(corrections, 7, 3), note();
  corrections.confirm({7}, "evicts 1", 9), note();
  return history;
}

void test_a_journal_cut_at_any_byte_is_the_operations_before_it() {
  const std::string path = new_path("whole.journal"), cut = new_path("cut.journal");
  const History history = make_history(path);
  const std::vector<uint8_t> bytes = read_file(path);
  CHECK(bytes.size() == history.sizes.back());
  const auto is_edge = [&](size_t size) {  // of a record, or in its mark
    return std::any_of(history.sizes.begin(), history.sizes.end(),
                       [&](size_t end) { return size + 1 + sizeof(CommitMark) >= end && size <= end + 1; });
  };
  for (size_t size = 0; size <= bytes.size(); ++size) {
    if (kEmulated && size % 13 != 0 && size % 61 != 0 && !is_edge(size)) continue;
    write_file(cut, bytes, size);
    // An operation is there as soon as its record is, and at the latest when it is acknowledged.
    size_t expected = 0;
    for (const size_t end : history.sizes) expected += size >= end - sizeof(CommitMark) ? 1 : 0;
    Corrections corrections(package(), cut, 8);
    CHECK(told(corrections) == history.views[expected]);
    // The next writer goes on from there, and leaves a journal without a torn tail.
    if (size % 61 != 0) continue;
    const uint64_t next = propose(corrections, 1, 50);
    CHECK(next == expected + 1);
    const Corrections after(package(), cut, 8);
    CHECK(after.state().torn_bytes == 0 && after.state().records == next && told(after) == told(corrections));
  }
}

void test_zeros_after_a_power_loss_are_a_torn_tail() {
  const std::string path = new_path("zeros.journal"), torn = new_path("torn.journal");
  const History history = make_history(path);
  const std::vector<uint8_t> bytes = read_file(path);
  // The file system had made the file longer, and none or some of the record's blocks had come to the disk.
  for (size_t i = 0; i < history.sizes.size(); ++i) {
    const size_t start = i == 0 ? sizeof(JournalHeader) : history.sizes[i - 1];
    const size_t record = history.sizes[i] - sizeof(CommitMark) - start;
    for (const size_t written : {size_t{0}, size_t{1}, record / 2, record - 1}) {
      std::vector<uint8_t> mixed(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(start + record));
      std::fill(mixed.begin() + static_cast<ptrdiff_t>(start + written), mixed.end(), uint8_t{0});
      write_file(torn, mixed, mixed.size());
      const Corrections corrections(package(), torn, 8);
      CHECK(told(corrections) == history.views[i] && corrections.state().torn_bytes == record);
    }
  }
  write_file(torn, std::vector<uint8_t>(sizeof(JournalHeader)), sizeof(JournalHeader));
  Corrections blank(package(), torn, 8);
  CHECK(blank.state().records == 0 && propose(blank, 1, 1) == 1);
}

void test_no_changed_byte_ever_loses_an_operation_silently() {
  const std::string path = new_path("sound.journal"), damaged = new_path("damaged.journal");
  const History history = make_history(path);
  const std::vector<uint8_t> bytes = read_file(path);
  size_t refused = 0, tried = 0;
  const size_t step = kEmulated ? 29 : 1;
  for (size_t at = 0; at < bytes.size(); at += step, ++tried) {
    for (const uint8_t flip : {uint8_t{0x01}, uint8_t{0x80}}) {
      for (const bool torn : {false, true}) {  // also when a kill left half a record behind the damage
        std::vector<uint8_t> changed = bytes;
        changed[at] ^= flip;
        if (torn) changed.insert(changed.end(), bytes.begin() + 128, bytes.begin() + 200);
        write_file(damaged, changed, changed.size());
        try {
          const Corrections corrections(package(), damaged, 8);
          CHECK(told(corrections) == history.views.back());
        } catch (const Error& error) {
          ++refused;
          CHECK(error.status() == Status::kPackage || error.status() == Status::kUnsupported);
        }
      }
    }
  }
  CHECK(refused + 4 * sizeof(CommitMark) >= 4 * tried);  // only the last mark says nothing that is not known
}

// A child writes until it is killed, telling after each operation that it is on the disk.
void test_a_killed_writer_loses_nothing_that_it_acknowledged(int kills) {
  const std::string path = new_path("killed.journal");
  std::mt19937 random(7);
  uint64_t acknowledged = 0;
  for (int kill_number = 0; kill_number < kills; ++kill_number) {
    int pipe_ends[2];
    CHECK(::pipe(pipe_ends) == 0);
    const pid_t child = ::fork();
    if (child == 0) {
      ::close(pipe_ends[0]);
      try {
        Corrections corrections(package(), path);
        for (;;) {
          const uint64_t id = propose(corrections, 1 + corrections.state().records % 5,
                                      static_cast<uint32_t>(corrections.state().records + 1));
          if (::write(pipe_ends[1], &id, sizeof id) != sizeof id) break;
          if (id % 2 == 1) continue;
          corrections.confirm({id}, "", 0);
          const uint64_t confirmed = corrections.state().records;
          if (::write(pipe_ends[1], &confirmed, sizeof confirmed) != sizeof confirmed) break;
        }
      } catch (const std::exception&) {
      }
      ::_exit(1);
    }
    ::close(pipe_ends[1]);
    ::usleep(200 + random() % 3000);
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    uint64_t last = 0;
    while (::read(pipe_ends[0], &last, sizeof last) == sizeof last) acknowledged = last;
    ::close(pipe_ends[0]);
    const Corrections corrections(package(), path);
    CHECK(corrections.state().records >= acknowledged && corrections.state().records <= acknowledged + 1);
    acknowledged = corrections.state().records;
    for (const Proposal& each : corrections.ledger().proposals()) {
      CHECK(each.name == "part " + std::to_string(each.id) && each.patches.size() == 1 + (each.id - 1) % 5);
    }
    if (acknowledged > 4000) acknowledged = 0, ::unlink(path.c_str());
  }
  std::printf("corrections: %d kills survived\n", kills);
}

void test_a_corrected_bank_finds_what_a_new_one_would() {
  using Joins = std::vector<size_t>;
  std::mt19937 random(3);
  for (const bool indexed : {true, false}) {
    for (const KernelTable* table : tables_under_test()) {
      const std::vector<float> fitted = rows(700, 1), added = rows(90, 2), queries = rows(64, 3);
      BuildOptions options;
      options.forced = !indexed;
      const MemoryBank bank({fitted.data(), 700, HOST_DIM}, options, *table);
      Memory memory;
      CorrectedBank corrected(bank.index(), 100, memory);
      for (const size_t join : kEmulated ? Joins{33, 1, 0} : Joins{0, 1, 33, 90, 0}) {
        BankChanges changes;
        for (uint32_t row = 0; row < 700; ++row) {
          if (join != 1 && random() % 5 == 0) changes.removed.push_back(row);
        }
        changes.added.assign(added.begin(), added.begin() + static_cast<ptrdiff_t>(join * HOST_DIM));
        for (uint32_t i = 0; i < join; ++i) changes.numbers.push_back(700 + 2 * i);
        corrected.apply(changes, *table);
        // What the changes come to, built anew; equal rows have their order, so numbers can be compared.
        std::vector<float> left;
        std::vector<uint32_t> numbers;
        for (uint32_t row = 0; row < 700; ++row) {
          if (std::binary_search(changes.removed.begin(), changes.removed.end(), row)) continue;
          left.insert(left.end(), fitted.begin() + row * HOST_DIM, fitted.begin() + (row + 1) * HOST_DIM);
          numbers.push_back(row);
        }
        left.insert(left.end(), changes.added.begin(), changes.added.end());
        numbers.insert(numbers.end(), changes.numbers.begin(), changes.numbers.end());
        const MemoryBank fresh({left.data(), numbers.size(), HOST_DIM}, {}, *table);
        SearchStats stats;
        std::vector<float> expected(64), got(64);
        std::vector<uint32_t> expected_rows(64), got_rows(64);
        fresh.search({queries.data(), 64, HOST_DIM}, 1, expected.data(), expected_rows.data(), 1, stats);
        const size_t scratch_bytes = CorrectedBank::scratch_bytes(bank.index(), 100);
        CHECK(search_scratch_bytes(corrected.index(), 1) <= scratch_bytes);
        Buffer<uint8_t> scratch(memory, scratch_bytes, "scratch");
        search(corrected.index(), {queries.data(), 64, HOST_DIM}, 1, got.data(), got_rows.data(), *table,
               scratch.data(), stats);
        CHECK(std::memcmp(got.data(), expected.data(), 64 * sizeof(float)) == 0);
        for (size_t i = 0; i < 64; ++i) CHECK(corrected.number(got_rows[i]) == numbers[expected_rows[i]]);
      }
      BankChanges wrong;
      wrong.removed = {700};
      CHECK_THROWS(corrected.apply(wrong, *table), Status::kUsage, "row 700 is to be removed");
    }
  }
}

void test_a_cover_brings_every_patch_within_the_threshold() {
  const std::vector<float> values = rows(50, 9);
  const MatrixView<const float> embeddings(values.data(), 50, HOST_DIM);
  std::vector<float> scores(50);
  for (size_t p = 0; p < 50; ++p) scores[p] = static_cast<float>(p % 10) + 20;
  for (const float share : {0.0f, 0.5f, 1.0f}) {
    const std::vector<uint32_t> chosen = cover(embeddings, scores.data(), 22, nullptr, share);
    CHECK(!chosen.empty() && scores[chosen[0]] == 29);
    for (size_t p = 0; p < 50; ++p) {
      if (scores[p] <= 22) {
        CHECK(std::find(chosen.begin(), chosen.end(), p) == chosen.end());
        continue;
      }
      double nearest = scores[p];
      for (const uint32_t center : chosen) {
        double squared = 0;
        for (size_t k = 0; k < HOST_DIM; ++k) {
          squared += std::pow(double{embeddings.row(p)[k]} - double{embeddings.row(center)[k]}, 2);
        }
        nearest = std::min(nearest, std::sqrt(squared));
      }
      CHECK(nearest <= 22 * share * (1 + 1e-6));
    }
    if (share == 0) CHECK(chosen.size() == 35);  // every patch above it
  }
  CHECK(cover(embeddings, scores.data(), 29).empty());
}

void test_a_cover_weighs_distances_as_the_session_does() {
  const std::vector<float> values = rows(3, 9);
  std::vector<float> embeddings(values);
  for (size_t k = 0; k < HOST_DIM; ++k) {  // of patch 0: 10 to patch 1 and to patch 2
    embeddings[HOST_DIM + k] = embeddings[k] + (k == 0 ? 10.0f : 0.0f);
    embeddings[2 * HOST_DIM + k] = embeddings[k] + (k == 1 ? 10.0f : 0.0f);
  }
  const float scores[] = {30, 29, 28}, weights[] = {1, 1, 0.25f};
  const MatrixView<const float> three(embeddings.data(), 3, HOST_DIM);
  CHECK(cover(three, scores, 8, nullptr, 1) == (std::vector<uint32_t>{0, 1, 2}));
  CHECK(cover(three, scores, 8, weights, 1) == (std::vector<uint32_t>{0, 1}));  // 2.5 is near enough, where 2 is
}

}  // namespace

int main(int count, char** arguments) {
  char pattern[] = "/tmp/onceover_corrections_XXXXXX";
  const char* made = ::mkdtemp(pattern);
  if (made == nullptr) return EXIT_FAILURE;
  folder = made;
  test_a_candidate_changes_nothing_until_it_is_confirmed();
  test_undo_goes_back_operation_by_operation();
  test_a_full_bank_lets_go_of_the_oldest_confirmation();
  test_a_journal_belongs_to_its_package();
  test_a_journal_cut_at_any_byte_is_the_operations_before_it();
  test_zeros_after_a_power_loss_are_a_torn_tail();
  test_no_changed_byte_ever_loses_an_operation_silently();
  test_a_killed_writer_loses_nothing_that_it_acknowledged(count > 1 ? std::atoi(arguments[1]) : 20);
  test_a_corrected_bank_finds_what_a_new_one_would();
  test_a_cover_brings_every_patch_within_the_threshold();
  test_a_cover_weighs_distances_as_the_session_does();
  const std::string clean = "rm -rf '" + folder + "'";
  if (std::system(clean.c_str()) != 0) return EXIT_FAILURE;
  return check::summary("corrections");
}
