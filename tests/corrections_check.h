/* What the tests of corrections in C share: a journal at a new path, and what is told of it. */
#ifndef CORRECTIONS_CHECK_H
#define CORRECTIONS_CHECK_H

#include <unistd.h>

#include "onceover_corrections.h"
#include "session_check.h"

static char journal[64];

static inline void new_journal(void) {
  strcpy(journal, "/tmp/onceover_XXXXXX");
  const int file = mkstemp(journal);
  CHECK(file >= 0 && close(file) == 0 && unlink(journal) == 0);
}

static inline onceover_corrections* journal_of(const onceover_package* package, uint32_t max_added_rows) {
  const onceover_corrections_options options = {.struct_size = sizeof options, .max_added_rows = max_added_rows};
  onceover_corrections* corrections = NULL;
  CHECK(onceover_corrections_open(package, journal, &options, &corrections) == ONCEOVER_OK && corrections != NULL);
  return corrections;
}

static inline onceover_corrections_info described(onceover_corrections* corrections) {
  onceover_corrections_info info = {.struct_size = sizeof info};
  CHECK(onceover_corrections_describe(corrections, &info) == ONCEOVER_OK);
  return info;
}

static inline onceover_operation operation_of(onceover_corrections* corrections, uint64_t number) {
  onceover_operation operation = {.struct_size = sizeof operation};
  CHECK(onceover_corrections_operation(corrections, number, &operation) == ONCEOVER_OK);
  return operation;
}

static inline uint32_t applied(onceover_session* session, onceover_corrections* corrections) {
  uint32_t state = 99;
  CHECK(onceover_session_apply_corrections(session, corrections, &state) == ONCEOVER_OK);
  return state;
}

#endif
