/* Corrections of several products in C: each product's rows, states and verdicts are its own, in an arena of the size
 * that was asked for, and a new package holds them all. Argument: a package, beside which that of two products lies. */
#define _POSIX_C_SOURCE 200809L

#include <stddef.h>

#include "corrections_check.h"
#include "count_allocations.h"

static onceover_corrected_product of_product(onceover_corrections* corrections, uint32_t number) {
  onceover_corrected_product product = {.struct_size = sizeof product};
  CHECK(onceover_corrections_describe_product(corrections, number, &product) == ONCEOVER_OK);
  return product;
}

static uint32_t state_of(onceover_session* session, uint32_t product) {
  uint32_t state = 99;
  CHECK(onceover_session_calibration_state(session, product, &state) == ONCEOVER_OK);
  return state;
}

static onceover_result selected_run(onceover_session* session, uint32_t product, const onceover_image* image) {
  CHECK(onceover_session_select_product(session, product) == ONCEOVER_OK);
  const onceover_result result = run_of(session, image);
  CHECK(result.product == product);
  return result;
}

static void a_correction_is_of_the_product_that_was_inspected(void) {
  new_journal();
  onceover_package* package = opened();
  onceover_corrections* corrections = journal_of(package, 0);
  const onceover_session_options options = host_options();
  onceover_session* session = created(package, &options);
  frame good, alarm;
  fill_frame(&good, 100, 0);
  fill_frame(&alarm, 100, 1);
  onceover_result before[2], passed[2];
  for (uint32_t product = 0; product < 2; ++product) {
    before[product] = selected_run(session, product, &alarm.image);
    passed[product] = selected_run(session, product, &good.image);
    CHECK(before[product].verdict == ONCEOVER_ANOMALOUS && passed[product].verdict == ONCEOVER_NORMAL);
  }
  uint64_t candidate = 0;
  selected_run(session, 1, &alarm.image);
  CHECK(onceover_corrections_propose(corrections, session, NULL, &candidate) == ONCEOVER_OK && candidate == 1);
  CHECK(operation_of(corrections, 1).product == 1 && operation_of(corrections, 1).first_row == 960);
  CHECK(onceover_corrections_confirm(corrections, &candidate, 1, "R.", 8) == ONCEOVER_OK);
  CHECK(operation_of(corrections, 2).product == 0); /* its candidates tell */
  CHECK(state_of(session, 1) == ONCEOVER_CALIBRATION_FITTED);
  CHECK(applied(session, corrections) == ONCEOVER_CALIBRATION_KEPT);
  CHECK(state_of(session, 0) == ONCEOVER_CALIBRATION_FITTED && state_of(session, 1) == ONCEOVER_CALIBRATION_KEPT);
  CHECK(selected_run(session, 1, &alarm.image).verdict == ONCEOVER_NORMAL);
  CHECK(same_result(selected_run(session, 0, &alarm.image), before[0]));
  CHECK(same_result(selected_run(session, 0, &good.image), passed[0]));
  CHECK(of_product(corrections, 0).added_rows == 0 && of_product(corrections, 0).fitted_rows == 960);
  CHECK(of_product(corrections, 1).added_rows == operation_of(corrections, 1).row_count);

  /* Rows have numbers of their product, so it is named; nothing tells what removing did. */
  const uint64_t row = before[0].nearest_row;
  CHECK_FAILS(onceover_corrections_remove(corrections, &row, 1, NULL, 0), ONCEOVER_USAGE, "remove_from");
  CHECK_FAILS(onceover_corrections_remove_from(corrections, 2, &row, 1, NULL, 0), ONCEOVER_USAGE, "product 2");
  CHECK(described(corrections).operations == 2);
  CHECK(onceover_corrections_remove_from(corrections, 0, &row, 1, "a scratch", 0) == ONCEOVER_OK);
  CHECK(operation_of(corrections, 3).product == 0 && operation_of(corrections, 3).named[0] == row);
  CHECK(of_product(corrections, 0).removed_rows == 1 && of_product(corrections, 1).removed_rows == 0);
  const onceover_corrections_info info = described(corrections);
  CHECK(info.removed_rows == 1 && info.added_rows == of_product(corrections, 1).added_rows);
  CHECK(applied(session, corrections) == ONCEOVER_CALIBRATION_STALE);
  CHECK(state_of(session, 0) == ONCEOVER_CALIBRATION_STALE && state_of(session, 1) == ONCEOVER_CALIBRATION_KEPT);
  CHECK(selected_run(session, 0, &alarm.image).verdict == ONCEOVER_NO_VERDICT);
  CHECK(selected_run(session, 1, &alarm.image).verdict == ONCEOVER_NORMAL);
  CHECK(onceover_session_self_test(session, NULL, NULL) == ONCEOVER_OK);
  for (int i = 0; i < 3; ++i) CHECK(onceover_corrections_undo(corrections, NULL, 0, NULL) == ONCEOVER_OK);
  CHECK(applied(session, corrections) == ONCEOVER_CALIBRATION_FITTED);
  for (uint32_t product = 0; product < 2; ++product) {
    CHECK(same_result(selected_run(session, product, &alarm.image), before[product]));
  }

  uint32_t state = 99;
  onceover_corrected_product bad = {.struct_size = 4};
  CHECK(onceover_corrections_describe_product(corrections, 0, &bad) == ONCEOVER_USAGE);
  bad.struct_size = sizeof bad;
  CHECK_FAILS(onceover_corrections_describe_product(corrections, 2, &bad), ONCEOVER_USAGE, "the package has 2");
  CHECK(onceover_corrections_describe_product(corrections, 0, NULL) == ONCEOVER_USAGE);
  CHECK_FAILS(onceover_session_calibration_state(session, 2, &state), ONCEOVER_USAGE, "the package has 2");
  CHECK(onceover_session_calibration_state(session, 0, NULL) == ONCEOVER_USAGE);
  CHECK(onceover_session_calibration_state(NULL, 0, &state) == ONCEOVER_USAGE && state == 99);
  onceover_operation older = {.struct_size = offsetof(onceover_operation, product), .product = 77};
  CHECK(onceover_corrections_operation(corrections, 1, &older) ==
        ONCEOVER_OK); /* of a program that knows no products */
  CHECK(older.type == ONCEOVER_PROPOSE && older.product == 77);
  onceover_corrections_free(corrections);
  onceover_session_free(session);
  onceover_package_free(package);
  unlink(journal);
}

static void a_wrong_part_is_no_false_alarm(void) {
  new_journal();
  onceover_package* package = opened();
  onceover_corrections* corrections = journal_of(package, 0);
  const onceover_session_options options = host_options();
  onceover_session* session = created(package, &options);
  frame white;
  fill_frame(&white, 100, 0);
  memset(white.pixels, 255, sizeof white.pixels);
  uint64_t candidate = 0;
  CHECK(run_of(session, &white.image).verdict == ONCEOVER_WRONG_PART);
  CHECK_FAILS(onceover_corrections_propose(corrections, session, NULL, &candidate), ONCEOVER_USAGE,
              "no correction changes a gate");
  CHECK(selected_run(session, 0, &white.image).verdict == ONCEOVER_ANOMALOUS);
  CHECK(onceover_corrections_propose(corrections, session, NULL, &candidate) == ONCEOVER_OK && candidate == 1);
  onceover_corrections_free(corrections);
  onceover_session_free(session);
  onceover_package_free(package);
  unlink(journal);
}

static void an_arena_of_the_size_asked_for_is_enough_for_all_products_and_runs_allocate_nothing(void) {
  for (uint32_t threads = 1; threads <= 2; ++threads) {
    new_journal();
    onceover_package* package = opened();
    onceover_corrections* corrections = journal_of(package, 300);
    onceover_session_options options = host_options();
    options.threads = threads;
    size_t bytes = 0, more = 0;
    CHECK(onceover_session_query_memory(package, &options, &bytes) == ONCEOVER_OK);
    CHECK(onceover_corrections_query_memory(corrections, threads, &more) == ONCEOVER_OK && more > 2 * 1260 * 16 * 4);
    options.arena_bytes = bytes + more;
    options.arena = malloc(options.arena_bytes);
    onceover_session* session = created(package, &options);
    applied(session, corrections); /* takes what all later ones need, of both products */
    frame alarm;
    for (uint32_t round = 0; round < 8; ++round) {
      const uint32_t product = round % 2;
      uint64_t candidate = 0;
      fill_frame(&alarm, 100 + round, 1);
      if (selected_run(session, product, &alarm.image).verdict != ONCEOVER_ANOMALOUS) continue;
      CHECK(onceover_corrections_propose(corrections, session, NULL, &candidate) == ONCEOVER_OK);
      CHECK(onceover_corrections_confirm(corrections, &candidate, 1, NULL, 0) == ONCEOVER_OK);
      applied(session, corrections);
      CHECK(selected_run(session, product, &alarm.image).verdict == ONCEOVER_NORMAL);
    }
    CHECK(of_product(corrections, 0).added_rows > 0 && of_product(corrections, 1).added_rows > 0);
    for (uint32_t product = 0; product < 2; ++product) {
      CHECK(onceover_session_select_product(session, product) == ONCEOVER_OK);
      const size_t allocations = allocated.calls;
      for (int i = 0; i < 50; ++i) run_of(session, &alarm.image);
      CHECK(allocated.calls == allocations);
    }
    CHECK(onceover_session_select_product(session, ONCEOVER_AUTOMATIC) == ONCEOVER_OK);
    const size_t allocations = allocated.calls;
    for (int i = 0; i < 50; ++i) run_of(session, &alarm.image);
    CHECK(allocated.calls == allocations);
    onceover_session_free(session);
    free(options.arena);
    onceover_corrections_free(corrections);
    onceover_package_free(package);
    unlink(journal);
  }
}

static void a_compacted_package_holds_all_products_and_decides_as_the_corrected_session(void) {
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
  engine.arena_bytes = bytes + more;
  engine.arena = malloc(engine.arena_bytes);
  const onceover_compact_options options = {.struct_size = sizeof options, .session = &engine};
  CHECK_FAILS(onceover_corrections_compact(corrections, output, &options, NULL), ONCEOVER_USAGE, "nothing to compact");
  const onceover_session_options plain = host_options();
  onceover_session* session = created(package, &plain);
  frame part;
  fill_frame(&part, 100, 1);
  uint64_t candidate = 0;
  selected_run(session, 1, &part.image);
  CHECK(onceover_corrections_propose(corrections, session, NULL, &candidate) == ONCEOVER_OK);
  CHECK(onceover_corrections_confirm(corrections, &candidate, 1, NULL, 0) == ONCEOVER_OK);
  applied(session, corrections);
  uint8_t id[32] = {0};
  CHECK(onceover_corrections_compact(corrections, output, &options, id) == ONCEOVER_OK);
  onceover_package* made = NULL;
  onceover_package_info info = {.struct_size = sizeof info};
  CHECK(onceover_package_open(output, NULL, &made) == ONCEOVER_OK);
  CHECK(onceover_package_describe(made, &info) == ONCEOVER_OK && memcmp(info.id, id, 32) == 0);
  CHECK(info.product_count == 2);
  onceover_session* fresh = created(made, &plain);
  for (uint32_t seed = 90; seed < 110; ++seed) {
    fill_frame(&part, seed, seed % 2 == 0);
    for (uint32_t product = 0; product < 2; ++product) {
      const onceover_result expected = selected_run(session, product, &part.image);
      const onceover_result got = selected_run(fresh, product, &part.image);
      CHECK(got.score == expected.score && got.verdict == expected.verdict && got.p_value == expected.p_value);
      CHECK(got.threshold == expected.threshold && got.map_maximum == expected.map_maximum);
    }
  }
  onceover_corrections* empty = NULL;
  CHECK(onceover_corrections_open(made, next, NULL, &empty) == ONCEOVER_OK && described(empty).operations == 0);
  CHECK(of_product(empty, 0).fitted_rows == 960);
  CHECK(of_product(empty, 1).fitted_rows == 960 + of_product(corrections, 1).added_rows);
  onceover_corrections_free(empty);
  onceover_corrections_free(corrections);
  onceover_session_free(fresh);
  onceover_session_free(session);
  onceover_package_free(made);
  onceover_package_free(package);
  free(engine.arena);
  unlink(journal);
  unlink(output);
}

int main(int argc, char** argv) {
  take_package_path(argc, argv);
  char products[512];
  snprintf(products, sizeof products, "%s.products", package_path);
  package_path = products;
  a_correction_is_of_the_product_that_was_inspected();
  a_wrong_part_is_no_false_alarm();
  an_arena_of_the_size_asked_for_is_enough_for_all_products_and_runs_allocate_nothing();
  a_compacted_package_holds_all_products_and_decides_as_the_corrected_session();
  return summary("c_api_product_corrections");
}
