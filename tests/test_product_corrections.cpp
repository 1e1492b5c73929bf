// Corrections of several products in one package: each is decided with the bits that its own package with the same
// corrections has, the others as before, and what fails changes none of them.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "compaction_check.h"

using namespace compaction_check;
using host_package::dark;

namespace {

Corrections new_journal(const std::vector<uint8_t>& bytes, const char* name, uint32_t max_added_rows = 0) {
  const std::string path = path_of(name);
  ::unlink(path.c_str());
  return {fitted(bytes), path, max_added_rows};
}

uint64_t propose(Corrections& corrections, uint32_t product, uint32_t count) {
  Candidate candidate;
  candidate.name = "part";
  candidate.score = 3;
  candidate.threshold = 2;
  std::vector<float> rows;
  for (uint32_t i = 0; i < count; ++i) candidate.patches.push_back(i);
  for (uint32_t i = 0; i < count * HOST_DIM; ++i) {
    rows.push_back(static_cast<float>(i + 100 * corrections.state().records + 7 * product));
  }
  return corrections.propose(product, candidate, {rows.data(), count, HOST_DIM}, 1);
}

Standing standing(const Corrections& corrections, uint64_t id) { return corrections.ledger().find(id)->standing; }

// Everything that decides, of both products, and what was said.
std::string told(const Corrections& corrections) {
  std::string text;
  for (const Operation& each : corrections.ledger().operations()) {
    text += name_of(each.type) + std::to_string(each.product) + "u" + std::to_string(each.undone_by) + ";";
  }
  for (const Proposal& each : corrections.ledger().proposals()) {
    text += std::to_string(each.product) + name_of(each.standing) + std::to_string(each.first_row) + ";";
  }
  for (const BankChanges& changes : corrections.changes()) {
    text += hex(sha256(changes.added.data(), changes.added.size() * sizeof(float)));
    for (const uint32_t number : changes.numbers) text += "+" + std::to_string(number);
    for (const uint32_t number : changes.removed) text += "-" + std::to_string(number);
  }
  return text;
}

using Numbers = std::vector<uint32_t>;

void test_each_product_has_its_own_rows_and_numbers() {
  const std::vector<uint8_t>& bytes = two_products().together;
  Corrections corrections = new_journal(bytes, "rows.journal");
  const uint32_t rows = corrections.fitted_rows(0);
  CHECK(corrections.product_count() == 2 && corrections.max_added_rows() == 256 && rows == 960);
  CHECK_THROWS(propose(corrections, 2, 1), Status::kUsage, "product 2 does not exist, the package has 2");
  CHECK_THROWS(corrections.remove(2, {1}, "", 0), Status::kUsage, "product 2 does not exist, the package has 2");
  CHECK(::access(corrections.path().c_str(), F_OK) != 0);  // what is refused makes no file
  propose(corrections, 0, 2), propose(corrections, 1, 3), propose(corrections, 0, 1), propose(corrections, 1, 1);
  corrections.confirm({2, 3}, "of both", 0);
  CHECK(corrections.changes(0).numbers == Numbers{rows + 2});
  CHECK(corrections.changes(1).numbers == (Numbers{rows, rows + 1, rows + 2}));
  corrections.remove(1, {7, rows + 1}, "", 0);
  CHECK(corrections.changes(1).removed == Numbers{7} && corrections.changes(0).removed.empty());
  CHECK(corrections.changes(1).numbers == (Numbers{rows, rows + 2}));
  CHECK_THROWS(corrections.remove(0, {rows + 1}, "", 0), Status::kUsage, "row 961 is not in the memory bank");
  corrections.remove(0, {7}, "the same number is another row", 0);
  corrections.confirm({4}, "", 0);
  CHECK(corrections.changes(1).numbers == (Numbers{rows, rows + 2, rows + 3}));
  const std::string before = told(corrections);
  corrections.reject({2, 3}, "of both", 0);
  CHECK(corrections.changes(0).numbers.empty() && corrections.changes(1).numbers == Numbers{rows + 3});
  CHECK(corrections.undo("", 0) == 9 && corrections.undo("", 0) == 8);  // whichever product they are about
  CHECK(corrections.undo("", 0) == 7 && corrections.changes(0).removed.empty());
  CHECK(corrections.changes(1).removed == Numbers{7});
  CHECK(corrections.undo("", 0) == 6 && corrections.changes(1).removed.empty());
  CHECK(corrections.undo("", 0) == 5 && corrections.changes(0).none() && corrections.changes(1).none());
  CHECK(told(corrections) != before && told(Corrections(fitted(bytes), corrections.path())) == told(corrections));
}

void test_a_full_product_lets_go_of_its_own_rows_alone() {
  Corrections corrections = new_journal(two_products().together, "full.journal", 5);
  propose(corrections, 0, 4), propose(corrections, 1, 4), propose(corrections, 1, 3), propose(corrections, 0, 2);
  corrections.confirm({1}, "", 0);
  corrections.confirm({2}, "", 0);
  CHECK(standing(corrections, 1) == Standing::kConfirmed);  // eight rows together, of a product at most four
  const BankChanges other = corrections.changes(0);
  corrections.confirm({3}, "", 0);
  CHECK(standing(corrections, 2) == Standing::kEvicted && standing(corrections, 1) == Standing::kConfirmed);
  CHECK(corrections.ledger().find(2)->evicted_by == 7 && corrections.changes(0) == other);
  CHECK(corrections.ledger().added_row_count(0) == 4 && corrections.ledger().added_row_count(1) == 3);
  corrections.reject({1, 3}, "", 0);
  CHECK_THROWS(corrections.confirm({1, 2, 3}, "", 0), Status::kUsage,
               "these 2 candidates have 7 rows, the journal holds at most 5 confirmed ones of a product");
  corrections.confirm({1, 2}, "eight rows of two products", 0);
  CHECK(corrections.changes(0).numbers.size() == 4 && corrections.changes(1).numbers.size() == 4);
}

void test_a_journal_cut_at_any_byte_is_the_operations_before_it() {
  const std::vector<uint8_t>& bytes = two_products().together;
  Corrections corrections = new_journal(bytes, "whole.journal");
  std::vector<size_t> sizes;
  std::vector<std::string> views = {told(corrections)};
  const auto note = [&] {
    sizes.push_back(read_file(corrections.path()).size());
    views.push_back(told(corrections));
  };
  propose(corrections, 1, 2), note();
  propose(corrections, 0, 1), note();
  corrections.confirm({1, 2}, "", 0), note();
  corrections.remove(1, {960}, "", 0), note();
  corrections.undo("", 0), note();
  const std::vector<uint8_t> whole = read_file(corrections.path());
  const std::string cut = path_of("cut.journal");
  for (size_t size = 0; size <= whole.size(); ++size) {
    save_atomically(cut, whole.data(), size);
    size_t expected = 0;
    for (const size_t end : sizes) expected += size >= end - sizeof(CommitMark) ? 1 : 0;
    CHECK(told(Corrections(fitted(bytes), cut)) == views[expected]);
  }
  std::vector<uint8_t> moved = whole;  // the first record's product
  moved[sizeof(JournalHeader) + 4] ^= 1;
  save_atomically(cut, moved.data(), moved.size());
  CHECK_THROWS(Corrections(fitted(bytes), cut), Status::kPackage, "damaged at byte 128");
}

// Score, verdict, thresholds, map and nearest rows of the same image by two sessions.
void check_same(Session& expected, Session& got, const ImageView& image) {
  const Result a = expected.run(image), b = got.run(image);
  CHECK(b.score == a.score && b.decision == a.decision && b.p_value == a.p_value && b.threshold == a.threshold);
  CHECK(b.map_maximum == a.map_maximum && b.worst_patch == a.worst_patch && b.nearest_row == a.nearest_row);
  CHECK(got.map_threshold() == expected.map_threshold());
  const size_t cells = expected.config().cell_count(), pixels = expected.map().rows * expected.map().columns;
  CHECK(std::equal(expected.patch_scores(), expected.patch_scores() + cells, got.patch_scores()));
  CHECK(std::equal(expected.nearest_rows(), expected.nearest_rows() + cells, got.nearest_rows()));
  CHECK(std::equal(expected.map().data, expected.map().data + pixels, got.map().data));
}

// Alone has one product, the number-th of the two that `together` has, selected.
void check_same_decisions(Session& alone, Session& together, uint32_t number) {
  together.select(number);
  const Calibration& a = alone.calibration();
  const Calibration& b = together.calibration();
  CHECK(b.calibrated == a.calibrated && b.threshold == a.threshold && b.map_threshold == a.map_threshold);
  CHECK(b.n == a.n && std::equal(a.scores, a.scores + a.n, b.scores));
  CHECK(std::equal(a.map_maxima, a.map_maxima + a.n, b.map_maxima));
  for (uint32_t seed = 300; seed < 312; ++seed) {
    check_same(alone, together, (seed % 2 == 0 ? false_alarm(seed) : host_package::image(seed)).view);
  }
  CHECK(together.run(false_alarm(300).view).product == number);
}

void test_every_product_is_decided_as_by_its_own_corrected_package(const TwoProducts& bytes) {
  Corrections together = new_journal(bytes.together, "together.journal");
  const auto both = opened(together.shared_package());
  const std::unique_ptr<Session> alone[] = {opened(fitted(bytes.alone[0])), opened(fitted(bytes.alone[1]))};
  std::vector<Corrections> own;
  own.push_back(new_journal(bytes.alone[0], "alone_0.journal"));
  own.push_back(new_journal(bytes.alone[1], "alone_1.journal"));
  size_t held = 0;
  for (const uint32_t number : {1u, 0u, 1u}) {  // the other one is as it was, fitted or corrected
    const auto seed = static_cast<uint32_t>(300 + 2 * own[number].state().records);
    correct(own[number], 0, seed);
    correct(together, number, seed);
    alone[number]->apply(own[number].changes(), own[number].max_added_rows());
    both->apply(together.changes(), together.max_added_rows());
    CHECK(held == 0 || both->memory_bytes() == held);  // the first apply has taken all
    held = both->memory_bytes();
    for (uint32_t each = 0; each < 2; ++each) {
      check_same_decisions(*alone[each], *both, each);
      CHECK(both->product(each).applied().state == alone[each]->product(0).applied().state);
      CHECK(both->product(each).applied().added_rows == own[each].changes(0).numbers.size());
      CHECK(both->product(each).applied().removed_rows == own[each].changes(0).removed.size());
    }
    CHECK(both->self_test().images == 6);  // is about the package
  }
  CHECK(both->product(0).applied().state != CalibrationState::kFitted);
  both->select(kAutomatic);  // gates are of images as a whole, and stay
  CHECK(both->run(host_package::image(100).view).product == 0 && both->run(dark(100).view).product == 1);
  while (together.ledger().last_effective() != nullptr) together.undo("", 0);
  both->apply(together.changes(), together.max_added_rows());
  for (uint32_t each = 0; each < 2; ++each) {
    check_same_decisions(*opened(fitted(bytes.alone[each])), *both, each);
    CHECK(both->product(each).applied().state == CalibrationState::kFitted);
  }
}

void test_a_threshold_of_the_users_own_stays_where_nothing_was_corrected() {
  Corrections corrections = new_journal(two_products().together, "own.journal");
  const auto session = opened(corrections.shared_package());
  session->select(0);
  session->set_threshold(1e9f);
  correct(corrections, 1, 300);
  session->apply(corrections.changes(), corrections.max_added_rows());
  CHECK(session->run(false_alarm(300).view).decision == Decision::kNormal && session->threshold() == 1e9f);
}

void test_what_fails_in_one_product_changes_none() {
  const std::vector<uint8_t>& whole = two_products().together;
  const auto package = fitted(whole);
  const MemberView& member = package->require("calibration_patches.1");
  std::vector<uint8_t> patches(member.data, member.data + member.size_bytes);
  const float far = std::numeric_limits<float>::max();      // finite, but not its distance to anything
  for (size_t value = 1; value <= 4 * HOST_DIM; ++value) {  // of all that is tracked of the last image
    std::memcpy(patches.data() + patches.size() - value * sizeof far, &far, sizeof far);
  }
  const std::vector<uint8_t> hostile =
      host_package::with_members(whole, {{"calibration_patches.1", patches}}, {"calibration_patches.1"});
  Corrections corrections = new_journal(hostile, "hostile.journal");
  const auto session = opened(corrections.shared_package()), before = opened(corrections.shared_package());
  const auto check_as_before = [&] {
    for (uint32_t number = 0; number < 2; ++number) {
      before->select(number);
      check_same_decisions(*before, *session, number);
      CHECK(session->product(number).applied().state == before->product(number).applied().state);
    }
  };
  std::vector<BankChanges> changes(2);
  changes[0].removed = {1, 2};
  changes[1].removed = {0};
  const char* said = "member 'calibration_patches.1': held-out image 18 has no finite score";
  CHECK_THROWS(session->apply(changes, 256), Status::kPackage, said);  // in new memory
  check_as_before();
  const std::vector<BankChanges> good = {changes[0], BankChanges()};
  session->apply(good, 256);
  before->apply(good, 256);
  changes[0].removed = {3, 4, 5, 700};
  changes[0].numbers = {960};
  changes[0].added.assign(HOST_DIM, 0.5f);
  CHECK_THROWS(session->apply(changes, 256), Status::kPackage, said);  // in that of the corrections before
  check_as_before();
  changes[1].removed.clear();
  session->apply(changes, 256);
  before->apply(changes, 256);
  check_as_before();
  session->select(0);
  CHECK(session->product(0).applied().removed_rows == 4 && session->product(0).applied().added_rows == 1);
  CHECK_THROWS(session->apply({changes[0]}, 256), Status::kUsage, "corrections of 1 products, the package has 2");
  changes[0].removed = {960};  // not a fitted row
  CHECK_THROWS(session->apply(changes, 256), Status::kUsage, "row 960 is to be removed");
  check_as_before();
}

void test_memory_that_runs_out_in_the_second_product_changes_none() {
  const auto package = fitted(two_products().together);
  SessionOptions options = host_package::session_options();
  Session free(package, options);
  const size_t more = corrected_memory_bytes(*package, 256, 1);
  CHECK(corrected_memory_bytes(*fitted(two_products().alone[0]), 256, 1) + 1216 * HOST_DIM * 4 < more);  // both banks
  std::vector<BankChanges> changes(2);
  changes[0].removed = {1};
  constexpr size_t kSteps = 64;
  size_t refused = 0;
  for (size_t step = 0; step <= kSteps; ++step) {  // up to enough, also where the first product has had what it needs
    options.memory_limit_bytes = free.memory_bytes() + more * step / kSteps;
    if (options.memory_limit_bytes < free.peak_memory_bytes()) continue;
    Session session(package, options);
    session.select(0);
    const Result before = session.run(false_alarm(300).view);
    try {
      session.apply(changes, 256);
      CHECK(session.memory_bytes() <= options.memory_limit_bytes && session.product(0).applied().removed_rows == 1);
    } catch (const Error& error) {
      CHECK(error.status() == Status::kMemory && step < kSteps && refused == step);
      CHECK(session.product(0).applied().removed_rows == 0);
      const Result after = session.run(false_alarm(300).view);
      CHECK(after.score == before.score && after.threshold == before.threshold && after.decision == before.decision);
      ++refused;
    }
  }
  CHECK(refused > 10);
}

void test_a_candidate_is_of_the_product_in_view_and_a_wrong_part_is_none() {
  const auto session = opened(fitted(two_products().together));
  std::vector<float> rows;
  const Result& seen = session->run(dark(57).view);
  CHECK(seen.product == 1 && seen.decision == Decision::kAnomalous && session->last().product == 1);
  CHECK(session->candidate(rows).score == seen.score && !rows.empty());
  const std::vector<uint8_t> white(40 * 56 * 3, 255);
  const ImageView image{white.data(), 40, 56, 56 * 3, PixelFormat::kRgb8};
  CHECK(session->run(image).decision == Decision::kWrongPart);
  CHECK_THROWS(session->candidate(rows), Status::kUsage, "no correction changes a gate; select the product");
  session->select(1);
  CHECK(session->run(image).decision == Decision::kAnomalous && session->last().product == 1);
  CHECK(session->candidate(rows).score == session->last().score && !rows.empty());
  session->select(kAutomatic);
  CHECK_THROWS(session->last(), Status::kUsage, "call run first");
}

}  // namespace

int main() {
  return run("product_corrections", [] {
    test_each_product_has_its_own_rows_and_numbers();
    test_a_full_product_lets_go_of_its_own_rows_alone();
    test_a_journal_cut_at_any_byte_is_the_operations_before_it();
    test_every_product_is_decided_as_by_its_own_corrected_package(two_products());
    if (std::getenv("ONCEOVER_QEMU") == nullptr) {
      test_every_product_is_decided_as_by_its_own_corrected_package(tiled_products());
    }
    test_a_threshold_of_the_users_own_stays_where_nothing_was_corrected();
    test_what_fails_in_one_product_changes_none();
    test_memory_that_runs_out_in_the_second_product_changes_none();
    test_a_candidate_is_of_the_product_in_view_and_a_wrong_part_is_none();
  });
}
