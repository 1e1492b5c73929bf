// onceover_corrections.hpp and onceover_monitor.hpp on a line: what the C ABI answers (test_c_api_corrections.c,
// test_c_api_monitor.c), and what only C++ has: exceptions, moves, texts that stay. Over both libraries, as
// test_cpp_api.cpp.
#include <unistd.h>

#include <cstring>
#include <type_traits>

#include "check.h"
#include "cpp_api_check.h"
#include "host_network.h"
#include "onceover_corrections.hpp"
#include "onceover_monitor.hpp"

using namespace onceover;

namespace {

static_assert(std::is_nothrow_move_constructible_v<CorrectionJournal> &&
              !std::is_copy_constructible_v<CorrectionJournal>);
static_assert(std::is_nothrow_move_constructible_v<LineMonitor> && !std::is_copy_constructible_v<LineMonitor>);

constexpr uint32_t kHeight = 40, kWidth = 56;

std::vector<uint8_t> pixels_of(uint32_t seed, bool defect) {
  std::vector<uint8_t> pixels(size_t{kHeight} * kWidth * 3);
  host_image(seed, defect ? 1 : 0, kHeight, kWidth, 3, pixels.data());
  return pixels;
}

onceover_image frame(const std::vector<uint8_t>& pixels) {
  return onceover::image(ONCEOVER_RGB8, pixels.data(), kHeight, kWidth);
}

struct Folder {  // files that a test leaves nothing of
  Folder() { CHECK(mkdtemp(name) != nullptr); }
  ~Folder() {
    for (const char* file : {"j", "made.onceover", "made.onceover.journal"}) unlink(path(file).c_str());
    rmdir(name);
  }
  std::string path(const std::string& file) const { return std::string(name) + "/" + file; }
  char name[24] = "/tmp/onceover_XXXXXX";
};

void test_a_confirmed_false_alarm_passes_and_the_log_tells_who(const char* path) {
  const Folder folder;
  const PackageFile package = PackageFile::open(path);
  InspectionSession session(package, host_options());
  CorrectionJournal journal(package, folder.path("j"), 300);
  const std::vector<uint8_t> alarm = pixels_of(100, true), good = pixels_of(100, false);
  session.run(frame(good));
  CHECK(throws([&] { journal.propose(session); }, ONCEOVER_USAGE, "only a false alarm"));
  const onceover_result flagged = session.run(frame(alarm));
  CHECK(flagged.verdict == ONCEOVER_ANOMALOUS);
  const uint64_t candidate = journal.propose(session, "part_17.png", "a dot", 7);
  CHECK(candidate == 1 && journal.info().added_rows == 0);
  journal.confirm({candidate}, "R., line 3", 8);
  CHECK(journal.apply_to(session) == ONCEOVER_CALIBRATION_KEPT);
  CHECK(session.run(frame(alarm)).verdict == ONCEOVER_NORMAL);
  CHECK(journal.info().added_rows > 0 && journal.info().max_added_rows == 300 && journal.memory() > 0);

  const std::vector<JournalOperation> log = journal.operations();
  CHECK(journal.undo("a scratch after all", 9) == 2);  // the pointers of the C struct are void now, the texts are not
  CHECK(log.size() == 2 && log[0].type == ONCEOVER_PROPOSE && log[0].text == "part_17.png" && log[0].time == 7);
  CHECK(log[0].standing == ONCEOVER_CONFIRMED && log[0].row_count > 0 && log[0].score == flagged.score);
  CHECK(log[0].first_row == package.info().bank_rows && log[0].threshold == flagged.threshold);
  CHECK(log[1].type == ONCEOVER_CONFIRM && log[1].text == "R., line 3" && log[1].named == std::vector<uint64_t>{1});
  CHECK(journal.operation(2).undone_by == 3 && journal.operation(3).named == std::vector<uint64_t>{2});
  CHECK(journal.apply_to(session) == ONCEOVER_CALIBRATION_FITTED);
  CHECK(session.run(frame(alarm)).score == flagged.score);

  CorrectionJournal moved = std::move(journal);
  CHECK(throws([&] { journal.info(); }, ONCEOVER_USAGE, "corrections is NULL"));  // NOLINT: what is left is empty
  CorrectionJournal other(package, folder.path("j"));
  other.reject({1}, "no", 10);
  CHECK(moved.info().operations == 3);
  moved.refresh();
  CHECK(moved.info().operations == 4 && moved.operation(1).standing == ONCEOVER_REJECTED);
  moved.remove({0}, "hides a defect", 11);
  CHECK(moved.info().removed_rows == 1);
  CHECK(throws([&] { moved.confirm({99}); }, ONCEOVER_USAGE, "99 is no candidate"));
  CHECK(throws([&] { moved.operation(6); }, ONCEOVER_USAGE, "operations 1 to 5"));
  CHECK(throws([&] { CorrectionJournal(package, path); }, ONCEOVER_PACKAGE, ""));
}

void test_a_journal_of_several_products_tells_them_apart(const std::string& path) {
  const Folder folder;
  const PackageFile package = PackageFile::open(path + ".products");
  InspectionSession session(package, host_options());
  CorrectionJournal journal(package, folder.path("j"));
  const std::vector<uint8_t> alarm = pixels_of(100, true);
  session.select_product(0);
  const onceover_result other = session.run(frame(alarm));
  session.select_product(1);
  CHECK(session.run(frame(alarm)).verdict == ONCEOVER_ANOMALOUS);
  journal.confirm({journal.propose(session)});
  CHECK(journal.operation(1).product == 1 && journal.operation(2).product == 0);
  CHECK(journal.product(1).added_rows == journal.operation(1).row_count && journal.product(0).added_rows == 0);
  CHECK(journal.apply_to(session) == ONCEOVER_CALIBRATION_KEPT);
  CHECK(CorrectionJournal::calibration_state(session, 0) == ONCEOVER_CALIBRATION_FITTED);
  CHECK(CorrectionJournal::calibration_state(session, 1) == ONCEOVER_CALIBRATION_KEPT);
  CHECK(session.run(frame(alarm)).verdict == ONCEOVER_NORMAL);
  session.select_product(0);
  CHECK(session.run(frame(alarm)).score == other.score);
  CHECK(throws([&] { journal.remove({3}); }, ONCEOVER_USAGE, "onceover_corrections_remove_from"));
  journal.remove_from(0, {3}, "hides a defect", 9);
  CHECK(journal.product(0).removed_rows == 1 && journal.product(1).removed_rows == 0);
  CHECK(journal.operation(3).product == 0 && journal.operation(3).text == "hides a defect");
  CHECK(throws([&] { journal.product(2); }, ONCEOVER_USAGE, "the package has 2"));
  CHECK(throws([&] { CorrectionJournal::calibration_state(session, 2); }, ONCEOVER_USAGE, "the package has 2"));
  journal.compact(folder.path("made.onceover"), host_options());
  CHECK(PackageFile::open(folder.path("made.onceover")).info().product_count == 2);
}

void test_compacting_tells_its_progress_and_what_that_throws_stops_it(const char* path) {
  const Folder folder;
  const PackageFile package = PackageFile::open(path);
  InspectionSession session(package, host_options());
  CorrectionJournal journal(package, folder.path("j"));
  const std::vector<uint8_t> alarm = pixels_of(100, true);
  session.run(frame(alarm));
  onceover_candidate said = sized<onceover_candidate>();
  said.name = "part";
  said.image_sha256[31] = 9;
  journal.confirm({journal.propose(session, said)});
  journal.apply_to(session);
  const onceover_result expected = session.run(frame(alarm));

  struct PowerIsGoing {};
  size_t told = 0;
  bool stopped = false;
  try {
    journal.compact(folder.path("made.onceover"), host_options(), [&](const char*, size_t, size_t) {
      if (++told == 3) throw PowerIsGoing();
    });
  } catch (const PowerIsGoing&) {
    stopped = true;
  }
  CHECK(stopped && told == 3 && access(folder.path("made.onceover").c_str(), F_OK) != 0);
  CHECK(throws([&] { journal.compact(path, host_options()); }, ONCEOVER_USAGE, "is the package itself"));
  CHECK(throws([&] { journal.compact(folder.path("made.onceover"), InspectionOptions()); }, ONCEOVER_USAGE,
               "no function that runs"));

  std::string last;
  const auto progress = [&](const char* what, size_t done, size_t total) {
    last = what;
    CHECK(done <= total);
  };
  const std::array<uint8_t, 32> id = journal.compact(folder.path("made.onceover"), host_options(), progress);
  const PackageFile made = PackageFile::open(folder.path("made.onceover"));
  const onceover_package_info info = made.info();
  CHECK(last == "verifying" && std::memcmp(id.data(), info.id, id.size()) == 0);
  InspectionSession fresh(made, host_options());
  const onceover_result got = fresh.run(frame(alarm));
  CHECK(got.verdict == ONCEOVER_NORMAL && got.score == expected.score && got.p_value == expected.p_value);
  CHECK(throws([&] { journal.apply_to(fresh); }, ONCEOVER_USAGE, "another package"));
}

void test_a_dimmer_lamp_is_an_alarm_and_a_saved_monitor_goes_on(const char* path) {
  const PackageFile package = PackageFile::open(path);
  InspectionSession session(package, host_options());
  onceover_monitor_options options = sized<onceover_monitor_options>();
  options.average_run_length = 20000;
  LineMonitor monitor(package, options);
  const onceover_package_info info = package.info();
  CHECK(std::memcmp(monitor.info().package_id, info.id, sizeof info.id) == 0);
  uint32_t early = 0;
  for (uint32_t seed = 200; seed < 260; ++seed) {  // parts below 40 are in the memory bank
    const std::vector<uint8_t> pixels = pixels_of(seed, false);
    const onceover_image seen = frame(pixels);
    early |= monitor.update(session.run(seen), seen);
  }
  CHECK(early == 0 && monitor.info().parts == 60 && !monitor.in_alarm(ONCEOVER_CHART_BRIGHTNESS));

  const std::vector<uint8_t> saved = monitor.save();
  LineMonitor restored = LineMonitor::load(package, saved);
  CHECK(restored.save() == saved && LineMonitor::load(saved).info().parts == 60);
  uint32_t late = 0;
  for (uint32_t seed = 260; seed < 320; ++seed) {
    std::vector<uint8_t> pixels = pixels_of(seed, false);
    const onceover_result result = session.run(frame(pixels));
    for (uint8_t& value : pixels) value = static_cast<uint8_t>(value / 2);
    const onceover_image_statistics dim = image_statistics(frame(pixels));
    late |= monitor.update(result, dim);
    restored.update(result, dim);
  }
  CHECK(((late >> ONCEOVER_CHART_BRIGHTNESS) & 1) == 1 && monitor.in_alarm(ONCEOVER_CHART_BRIGHTNESS));
  CHECK(restored.save() == monitor.save());
  const LineMonitor::Charts charts = monitor.charts();
  CHECK(charts[ONCEOVER_CHART_BRIGHTNESS].parts == 120 && charts[ONCEOVER_CHART_BRIGHTNESS].alarm_part > 60);
  monitor.restart(true);
  CHECK(!monitor.in_alarm(ONCEOVER_CHART_BRIGHTNESS));

  LineMonitor alone;
  onceover_result result = sized<onceover_result>();
  result.verdict = ONCEOVER_NORMAL;
  result.p_value = 1;
  CHECK(alone.update(result) == 0 && alone.charts()[ONCEOVER_CHART_BRIGHTNESS].parts == 0);
  CHECK(alone.charts()[ONCEOVER_CHART_SCORE_EWMA].parts == 1);
  CHECK(throws([&] { alone.update(result, onceover_image()); }, ONCEOVER_USAGE, "struct_size is 0"));
  CHECK(throws([&] { LineMonitor::load(package, {1, 2, 3}); }, ONCEOVER_INPUT, ""));
  options.average_run_length = 5;
  CHECK(throws([&] { LineMonitor refused(options); }, ONCEOVER_USAGE, "average run length is 5"));
  const LineMonitor moved = std::move(alone);
  CHECK(moved.info().parts == 1);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  test_a_confirmed_false_alarm_passes_and_the_log_tells_who(argv[1]);
  test_a_journal_of_several_products_tells_them_apart(argv[1]);
  test_compacting_tells_its_progress_and_what_that_throws_stops_it(argv[1]);
  test_a_dimmer_lamp_is_an_alarm_and_a_saved_monitor_goes_on(argv[1]);
  return check::summary("cpp_api_line");
}
