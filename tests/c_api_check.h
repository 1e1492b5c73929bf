/* What the tests of the C ABI share: CHECK, CHECK_FAILS, a summary, and banks that exist. */
#ifndef C_API_CHECK_H
#define C_API_CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "onceover_memory_bank.h"

static int checks = 0, failures = 0;

static inline void check_that(int ok, const char* expression, const char* file, int line) {
  ++checks;
  if (!ok && ++failures <= 20) {
    fprintf(stderr, "%s:%d: failed: %s (last error: %s)\n", file, line, expression, onceover_last_error());
  }
}
#define CHECK(expression) check_that((expression), #expression, __FILE__, __LINE__)
/* The call fails with this status, and the message contains `text`. */
#define CHECK_FAILS(call, expected, text)                                                                         \
  check_that((call) == (expected) && strstr(onceover_last_error(), text) != NULL, #call " fails with " #expected, \
             __FILE__, __LINE__)

static inline int summary(const char* name) {
  printf("%s: %d checks, %d failed\n", name, checks, failures);
  return failures == 0 && checks > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

static inline void* allocate(size_t count, size_t size) {
  void* pointer = calloc(count > 0 ? count : 1, size);
  if (pointer == NULL) exit(2);
  return pointer;
}

static inline onceover_memory_bank* built(const float* rows, size_t row_count, size_t dims) {
  onceover_memory_bank* bank = NULL;
  CHECK(onceover_memory_bank_build(rows, row_count, dims, NULL, &bank) == ONCEOVER_OK && bank != NULL);
  if (bank == NULL) exit(2);
  return bank;
}

static inline onceover_memory_bank_info info_of(const onceover_memory_bank* bank) {
  onceover_memory_bank_info info = {.struct_size = sizeof info};
  CHECK(onceover_memory_bank_describe(bank, &info) == ONCEOVER_OK && info.struct_size == sizeof info);
  return info;
}

#endif
