/* Corrections in C: a false alarm from candidate to verdict and back, in an arena of the size that was asked for, with
 * no allocation in a run, over a journal that two handles share; and every refusal. Argument: a package. */
#define _POSIX_C_SOURCE 200809L

#include "onceover_corrections.h"

#include <stddef.h>
#include <unistd.h>

#include "corrections_check.h"
#include "count_allocations.h"

static void a_confirmed_false_alarm_is_none_any_more(void) {
  new_journal();
  onceover_package* package = opened();
  onceover_corrections* corrections = journal_of(package, 0);
  CHECK(described(corrections).operations == 0 && described(corrections).max_added_rows == 256);
  onceover_session* session = host_session();
  frame good, alarm;
  fill_frame(&good, 100, 0);
  fill_frame(&alarm, 100, 1);
  const onceover_result normal = run_of(session, &good.image), before = run_of(session, &alarm.image);
  CHECK(before.verdict == ONCEOVER_ANOMALOUS);
  const onceover_candidate said = {.struct_size = sizeof said, .name = "part 100", .note = "paint", .time = 7};
  uint64_t candidate = 0;
  CHECK(onceover_corrections_propose(corrections, session, &said, &candidate) == ONCEOVER_OK && candidate == 1);
  CHECK(applied(session, corrections) == ONCEOVER_CALIBRATION_FITTED);
  CHECK(same_result(run_of(session, &alarm.image), before)); /* in quarantine */
  CHECK(onceover_corrections_confirm(corrections, &candidate, 1, "R.", 8) == ONCEOVER_OK);
  CHECK(applied(session, corrections) == ONCEOVER_CALIBRATION_KEPT);
  const onceover_result after = run_of(session, &alarm.image);
  CHECK(after.verdict == ONCEOVER_NORMAL && after.score <= before.threshold);
  CHECK(same_result(run_of(session, &good.image), normal));
  uint32_t images = 0;
  CHECK(onceover_session_self_test(session, &images, NULL) == ONCEOVER_OK && images == 3);
  const onceover_operation first = operation_of(corrections, 1), second = operation_of(corrections, 2);
  CHECK(first.type == ONCEOVER_PROPOSE && first.standing == ONCEOVER_CONFIRMED && first.time == 7);
  CHECK(first.text_bytes == 8 && memcmp(first.text, "part 100", 8) == 0 && first.first_row == 960);
  CHECK(first.score == before.score && first.threshold == before.threshold && first.row_count > 0);
  CHECK(second.type == ONCEOVER_CONFIRM && second.named_count == 1 && second.named[0] == 1 && second.undone_by == 0);
  CHECK(described(corrections).added_rows == first.row_count);

  /* Another handle, as of another process, takes it back; the session follows when it is told to. */
  onceover_corrections* other = journal_of(package, 0);
  uint64_t undone = 0;
  CHECK(onceover_corrections_undo(other, "no", 9, &undone) == ONCEOVER_OK && undone == 2);
  CHECK(described(corrections).operations == 2 && onceover_corrections_refresh(corrections) == ONCEOVER_OK);
  CHECK(described(corrections).operations == 3 && operation_of(corrections, 2).undone_by == 3);
  CHECK(memcmp(described(corrections).id, described(other).id, 32) == 0);
  applied(session, corrections);
  CHECK(same_result(run_of(session, &alarm.image), before));

  /* Without its nearest fitted row nothing is known of the calibration of a package that remembers no patches. */
  const uint64_t nearest = before.nearest_row;
  CHECK(onceover_corrections_remove(corrections, &nearest, 1, NULL, 0) == ONCEOVER_OK);
  CHECK(applied(session, corrections) == ONCEOVER_CALIBRATION_STALE);
  const onceover_result stale = run_of(session, &alarm.image);
  CHECK(stale.verdict == ONCEOVER_NO_VERDICT && stale.nearest_row != before.nearest_row && stale.p_value == 1);
  CHECK(onceover_corrections_reject(corrections, &candidate, 1, "a scratch", 0) == ONCEOVER_OK);
  CHECK(operation_of(corrections, 1).standing == ONCEOVER_REJECTED);
  onceover_corrections_free(other);
  onceover_corrections_free(corrections);
  onceover_session_free(session);
  onceover_package_free(package);
  unlink(journal);
}

static void an_arena_of_the_size_asked_for_is_enough_and_runs_allocate_nothing(void) {
  for (uint32_t threads = 1; threads <= 2; ++threads) {
    new_journal();
    onceover_package* package = opened();
    onceover_corrections* corrections = journal_of(package, 300);
    onceover_session_options options = host_options();
    options.threads = threads;
    size_t bytes = 0, more = 0;
    CHECK(onceover_session_query_memory(package, &options, &bytes) == ONCEOVER_OK);
    CHECK(onceover_corrections_query_memory(corrections, threads, &more) == ONCEOVER_OK && more > 1260 * 16 * 4);
    for (int enough = 0; enough <= 1; ++enough) {
      options.arena_bytes = enough ? bytes + more : bytes + more / 2;
      options.arena = malloc(options.arena_bytes);
      onceover_session* session = created(package, &options);
      frame alarm;
      fill_frame(&alarm, 100, 1);
      const onceover_result before = run_of(session, &alarm.image);
      if (!enough) {
        CHECK(onceover_session_apply_corrections(session, corrections, NULL) == ONCEOVER_MEMORY);
        CHECK(same_result(run_of(session, &alarm.image), before));
      } else {
        for (uint64_t round = 1; round <= 8; round += 2) { /* again and again in the same memory */
          uint64_t candidate = 0;
          fill_frame(&alarm, 100 + (uint32_t)round, 1);
          if (run_of(session, &alarm.image).verdict != ONCEOVER_ANOMALOUS) continue;
          CHECK(onceover_corrections_propose(corrections, session, NULL, &candidate) == ONCEOVER_OK);
          CHECK(onceover_corrections_confirm(corrections, &candidate, 1, NULL, 0) == ONCEOVER_OK);
          CHECK(applied(session, corrections) == ONCEOVER_CALIBRATION_KEPT);
          CHECK(run_of(session, &alarm.image).verdict == ONCEOVER_NORMAL);
        }
        CHECK(described(corrections).added_rows > 0);
        const size_t allocations = allocated.calls;
        for (int i = 0; i < 100; ++i) run_of(session, &alarm.image);
        CHECK(allocated.calls == allocations);
      }
      onceover_session_free(session);
      free(options.arena);
    }
    onceover_corrections_free(corrections);
    onceover_package_free(package);
    unlink(journal);
  }
}

static void what_makes_no_sense_is_refused_and_changes_nothing(void) {
  new_journal();
  onceover_package* package = opened();
  onceover_corrections* corrections = journal_of(package, 0);
  onceover_session* session = host_session();
  const uint64_t one = 1, far = 100000;
  uint64_t number = 0;
  CHECK(onceover_corrections_propose(corrections, session, NULL, &number) == ONCEOVER_USAGE);
  CHECK(strstr(onceover_last_error(), "call run first") != NULL);
  frame good, alarm;
  fill_frame(&good, 100, 0);
  fill_frame(&alarm, 100, 1);
  run_of(session, &good.image);
  CHECK(onceover_corrections_propose(corrections, session, NULL, &number) == ONCEOVER_USAGE);
  CHECK(strstr(onceover_last_error(), "only a false alarm") != NULL);
  run_of(session, &alarm.image);
  onceover_candidate bad = {.struct_size = 4};
  CHECK(onceover_corrections_propose(corrections, session, &bad, &number) == ONCEOVER_USAGE);
  CHECK(onceover_corrections_propose(corrections, session, NULL, NULL) == ONCEOVER_USAGE);
  CHECK(onceover_corrections_confirm(corrections, &one, 1, NULL, 0) == ONCEOVER_USAGE);
  CHECK(onceover_corrections_confirm(corrections, NULL, 0, NULL, 0) == ONCEOVER_USAGE);
  CHECK(onceover_corrections_confirm(corrections, NULL, 1, NULL, 0) == ONCEOVER_USAGE);
  CHECK(onceover_corrections_remove(corrections, &far, 1, NULL, 0) == ONCEOVER_USAGE);
  CHECK(onceover_corrections_undo(corrections, NULL, 0, NULL) == ONCEOVER_USAGE);
  CHECK(access(journal, F_OK) != 0);
  onceover_operation operation = {.struct_size = sizeof operation};
  CHECK(onceover_corrections_operation(corrections, 1, &operation) == ONCEOVER_USAGE);
  CHECK(onceover_session_apply_corrections(NULL, corrections, NULL) == ONCEOVER_USAGE);
  CHECK(onceover_session_apply_corrections(session, NULL, NULL) == ONCEOVER_USAGE);
  onceover_corrections* none = corrections;
  CHECK(onceover_corrections_open(package, package_path, NULL, &none) == ONCEOVER_PACKAGE && none == NULL);
  CHECK(onceover_corrections_open(package, "/nowhere/at/all.journal", NULL, &none) == ONCEOVER_OK);
  CHECK(onceover_corrections_propose(none, session, NULL, &number) == ONCEOVER_OUTPUT);
  onceover_corrections_free(none);
  CHECK(onceover_corrections_propose(corrections, session, NULL, &number) == ONCEOVER_OK && number == 1);
  onceover_corrections_free(corrections);
  onceover_corrections_free(NULL);
  onceover_session_free(session);
  onceover_package_free(package);
  unlink(journal);
}

typedef struct watched {
  size_t calls;
  char last[32];
} watched;

static void feed(void* context, const char* what, size_t done, size_t total) {
  watched* dog = context;
  ++dog->calls;
  CHECK(done <= total);
  snprintf(dog->last, sizeof dog->last, "%s", what);
}

typedef struct impatient {
  size_t asked, patience;
} impatient;

static int32_t is_cancelled(void* context) {
  impatient* who = context;
  return ++who->asked > who->patience;
}

static void compacting_stops_when_it_is_asked_to_and_writes_nothing(void) {
  new_journal();
  char output[80];
  snprintf(output, sizeof output, "%s.onceover", journal);
  onceover_package* package = opened();
  onceover_corrections* corrections = journal_of(package, 0);
  const uint64_t row = 0;
  CHECK(onceover_corrections_remove(corrections, &row, 1, NULL, 0) == ONCEOVER_OK);
  const onceover_session_options engine = host_options();
  impatient who = {0, SIZE_MAX};
  const onceover_compact_options options = {
      .struct_size = sizeof options, .session = &engine, .progress_context = &who, .is_cancelled = is_cancelled};
  CHECK(onceover_corrections_compact(corrections, output, &options, NULL) == ONCEOVER_OK);
  const size_t all = who.asked;
  CHECK(all > 4 && unlink(output) == 0);
  for (size_t patience = 0; patience < all; ++patience) { /* at every place, the last one is "verifying" */
    who = (impatient){0, patience};
    CHECK_FAILS(onceover_corrections_compact(corrections, output, &options, NULL), ONCEOVER_CANCELLED,
                "stopped by the application");
    CHECK(who.asked == patience + 1 && access(output, F_OK) != 0);
  }
  CHECK(strstr(onceover_last_error(), "verifying 1 of 1") != NULL);
  onceover_compact_options older = options; /* of a program that knows no is_cancelled */
  older.struct_size = offsetof(onceover_compact_options, is_cancelled);
  who = (impatient){0, 0};
  CHECK(onceover_corrections_compact(corrections, output, &older, NULL) == ONCEOVER_OK);
  CHECK(who.asked == 0 && unlink(output) == 0);
  onceover_corrections_free(corrections);
  onceover_package_free(package);
  unlink(journal);
}

static void a_compacted_package_decides_as_the_corrected_session_and_begins_a_journal_of_its_own(void) {
  new_journal();
  char output[80], next[96];
  snprintf(output, sizeof output, "%s.onceover", journal);
  snprintf(next, sizeof next, "%s.journal", output);
  onceover_package* package = opened();
  onceover_corrections* corrections = journal_of(package, 0);
  onceover_session_options engine = host_options();
  size_t bytes = 0, more = 0;
  CHECK(onceover_session_query_memory(package, &engine, &bytes) == ONCEOVER_OK);
  CHECK(onceover_corrections_query_memory(corrections, 1, &more) == ONCEOVER_OK);
  engine.arena_bytes = bytes + more; /* of the larger session; the other one begins anew in it */
  engine.arena = malloc(engine.arena_bytes);
  watched dog = {0, ""};
  onceover_compact_options options = {
      .struct_size = sizeof options, .session = &engine, .progress = feed, .progress_context = &dog};
  CHECK(onceover_corrections_compact(corrections, output, &options, NULL) == ONCEOVER_USAGE);
  CHECK(strstr(onceover_last_error(), "nothing to compact") != NULL);

  onceover_session* session = host_session();
  frame alarm;
  fill_frame(&alarm, 100, 1);
  CHECK(run_of(session, &alarm.image).verdict == ONCEOVER_ANOMALOUS);
  const onceover_candidate said = {.struct_size = sizeof said, .name = "part \"100\""};
  uint64_t candidate = 0;
  CHECK(onceover_corrections_propose(corrections, session, &said, &candidate) == ONCEOVER_OK);
  CHECK(onceover_corrections_confirm(corrections, &candidate, 1, "R.", 8) == ONCEOVER_OK);
  applied(session, corrections);
  CHECK(onceover_corrections_compact(corrections, NULL, &options, NULL) == ONCEOVER_USAGE);
  CHECK(onceover_corrections_compact(NULL, output, &options, NULL) == ONCEOVER_USAGE);
  CHECK(onceover_corrections_compact(corrections, package_path, &options, NULL) == ONCEOVER_USAGE);
  CHECK(onceover_corrections_compact(corrections, journal, &options, NULL) == ONCEOVER_USAGE);
  CHECK(onceover_corrections_compact(corrections, output, NULL, NULL) == ONCEOVER_USAGE); /* no network to run */
  onceover_compact_options bad = options;
  bad.struct_size = 4;
  CHECK(onceover_corrections_compact(corrections, output, &bad, NULL) == ONCEOVER_USAGE);
  engine.arena_bytes = bytes + more / 2;
  CHECK(onceover_corrections_compact(corrections, output, &options, NULL) == ONCEOVER_MEMORY);
  CHECK(access(output, F_OK) != 0);
  engine.arena_bytes = bytes + more;
  uint8_t id[32] = {0};
  CHECK(onceover_corrections_compact(corrections, output, &options, id) == ONCEOVER_OK);
  CHECK(dog.calls > 4 && strcmp(dog.last, "verifying") == 0);

  onceover_package* made = NULL;
  onceover_package_info info = {.struct_size = sizeof info};
  CHECK(onceover_package_open(output, NULL, &made) == ONCEOVER_OK);
  CHECK(onceover_package_describe(made, &info) == ONCEOVER_OK && memcmp(info.id, id, 32) == 0);
  onceover_package_info old = {.struct_size = sizeof old};
  CHECK(onceover_package_describe(package, &old) == ONCEOVER_OK && info.has_roi == old.has_roi);
  CHECK(info.bank_rows == old.bank_rows + described(corrections).added_rows && info.manifest_bytes > 0);
  const onceover_session_options plain = host_options();
  onceover_session* fresh = created(made, &plain);
  for (uint32_t seed = 90; seed < 110; ++seed) {
    frame part;
    fill_frame(&part, seed, seed % 2 == 0);
    const onceover_result expected = run_of(session, &part.image), got = run_of(fresh, &part.image);
    CHECK(got.score == expected.score && got.verdict == expected.verdict && got.p_value == expected.p_value);
    CHECK(got.threshold == expected.threshold && got.map_maximum == expected.map_maximum);
  }
  onceover_corrections* empty = NULL;
  CHECK(onceover_corrections_open(made, journal, NULL, &empty) == ONCEOVER_INPUT); /* it is of the old package */
  CHECK(onceover_corrections_open(made, next, NULL, &empty) == ONCEOVER_OK && described(empty).operations == 0);
  fill_frame(&alarm, 103, 1);
  if (run_of(fresh, &alarm.image).verdict == ONCEOVER_ANOMALOUS) {
    CHECK(onceover_corrections_propose(empty, fresh, NULL, &candidate) == ONCEOVER_OK && candidate == 1);
  }
  const uint64_t row = 3;
  CHECK(onceover_corrections_remove(empty, &row, 1, NULL, 0) == ONCEOVER_OK);
  CHECK(onceover_corrections_compact(corrections, output, &options, NULL) == ONCEOVER_USAGE); /* would orphan it */
  onceover_corrections_free(empty);
  onceover_corrections_free(corrections);
  onceover_session_free(fresh);
  onceover_session_free(session);
  onceover_package_free(made);
  onceover_package_free(package);
  free(engine.arena);
  unlink(journal);
  unlink(output);
  unlink(next);
}

int main(int argc, char** argv) {
  take_package_path(argc, argv);
  a_confirmed_false_alarm_is_none_any_more();
  an_arena_of_the_size_asked_for_is_enough_and_runs_allocate_nothing();
  what_makes_no_sense_is_refused_and_changes_nothing();
  a_compacted_package_decides_as_the_corrected_session_and_begins_a_journal_of_its_own();
  compacting_stops_when_it_is_asked_to_and_writes_nothing();
  char tiles[512]; /* and of tiles, with a region of interest */
  snprintf(tiles, sizeof tiles, "%s.tiles", package_path);
  package_path = tiles;
  an_arena_of_the_size_asked_for_is_enough_and_runs_allocate_nothing();
  a_compacted_package_decides_as_the_corrected_session_and_begins_a_journal_of_its_own();
  return summary("c_api_corrections");
}
