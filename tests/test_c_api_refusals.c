/* The C ABI: what is refused and in which words, options, and structs of another version's size. */
#include <math.h>
#include <stddef.h>

#include "c_api_check.h"

static void what_makes_no_sense_is_refused_in_words(void) {
  float rows[12] = {0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3}, distances[2] = {-1, -1};
  uint32_t indices[2] = {77, 77};
  onceover_memory_bank *bank = built(rows, 4, 3), *none = bank;
  size_t bytes = 0;
  const void* index = NULL;
  CHECK(onceover_memory_bank_scratch_bytes(bank, 2, &bytes) == ONCEOVER_OK);
  void* scratch = allocate(bytes, 1);
#define SEARCH onceover_memory_bank_search
  CHECK_FAILS(SEARCH(NULL, rows, 1, 3, 2, distances, indices, scratch, bytes, NULL), ONCEOVER_USAGE, "bank is NULL");
  CHECK_FAILS(SEARCH(bank, NULL, 1, 3, 2, distances, indices, scratch, bytes, NULL), ONCEOVER_USAGE, "queries is NULL");
  CHECK_FAILS(SEARCH(bank, rows, 1, 3, 2, NULL, indices, scratch, bytes, NULL), ONCEOVER_USAGE, "distances is NULL");
  CHECK_FAILS(SEARCH(bank, rows, 1, 3, 2, distances, NULL, scratch, bytes, NULL), ONCEOVER_USAGE, "indices is NULL");
  CHECK_FAILS(SEARCH(bank, rows, 1, 3, 2, distances, indices, NULL, bytes, NULL), ONCEOVER_USAGE, "scratch is NULL");
  CHECK_FAILS(SEARCH(bank, rows, 1, 3, 0, distances, indices, scratch, bytes, NULL), ONCEOVER_USAGE, "k is 0");
  CHECK_FAILS(SEARCH(bank, rows, 1, 3, 33, distances, indices, scratch, bytes, NULL), ONCEOVER_USAGE, "k is 33");
  CHECK_FAILS(SEARCH(bank, rows, 1, 2, 2, distances, indices, scratch, bytes, NULL), ONCEOVER_USAGE,
              "stride_floats is 2");
  CHECK_FAILS(SEARCH(bank, rows, 1, 3, 2, distances, indices, scratch, bytes - 1, NULL), ONCEOVER_USAGE,
              "scratch_bytes");
  CHECK(strstr(onceover_last_error(), "onceover_memory_bank_search: ") == onceover_last_error());
#if SIZE_MAX > UINT32_MAX
  const size_t many = (size_t)UINT32_MAX + 1;
  CHECK_FAILS(SEARCH(bank, rows, many, 3, 2, distances, indices, scratch, bytes, NULL), ONCEOVER_USAGE, "query_count");
#endif
  CHECK(distances[0] == -1 && distances[1] == -1 && indices[0] == 77 && indices[1] == 77);
  CHECK(SEARCH(bank, rows, 1, 3, 2, distances, indices, scratch, bytes, NULL) == ONCEOVER_OK && indices[1] == 1);
  CHECK(strlen(onceover_last_error()) > 0); /* until the next failure */
#undef SEARCH
  CHECK_FAILS(onceover_memory_bank_scratch_bytes(bank, 0, &bytes), ONCEOVER_USAGE, "k is 0");
  CHECK_FAILS(onceover_memory_bank_scratch_bytes(bank, 1, NULL), ONCEOVER_USAGE, "scratch_bytes is NULL");
  CHECK_FAILS(onceover_memory_bank_scratch_bytes(NULL, 1, &bytes), ONCEOVER_USAGE, "bank is NULL");
  CHECK_FAILS(onceover_memory_bank_index(NULL, &index, &bytes), ONCEOVER_USAGE, "bank is NULL");
  CHECK_FAILS(onceover_memory_bank_index(bank, NULL, &bytes), ONCEOVER_USAGE, "index is NULL");
  CHECK_FAILS(onceover_memory_bank_index(bank, &index, NULL), ONCEOVER_USAGE, "index_bytes is NULL");
  CHECK_FAILS(onceover_memory_bank_add(NULL, rows, 1, NULL), ONCEOVER_USAGE, "bank is NULL");
  CHECK_FAILS(onceover_memory_bank_remove(NULL, indices, 1), ONCEOVER_USAGE, "bank is NULL");
  CHECK_FAILS(onceover_memory_bank_describe(NULL, NULL), ONCEOVER_USAGE, "bank is NULL");
  CHECK_FAILS(onceover_memory_bank_describe(bank, NULL), ONCEOVER_USAGE, "info is NULL");

  CHECK_FAILS(onceover_memory_bank_build(NULL, 4, 3, NULL, &none), ONCEOVER_USAGE, "rows is NULL");
  CHECK(none == NULL);
  CHECK_FAILS(onceover_memory_bank_build(rows, 4, 3, NULL, NULL), ONCEOVER_USAGE, "bank is NULL");
  CHECK_FAILS(onceover_memory_bank_build(rows, 4, 0, NULL, &none), ONCEOVER_INPUT, "4 x 0");
  rows[7] = INFINITY;
  CHECK_FAILS(onceover_memory_bank_build(rows, 4, 3, NULL, &none), ONCEOVER_INPUT,
              "row 2 of 4 holds a NaN or infinity");
  onceover_memory_bank_free(bank);
  onceover_memory_bank_free(NULL);
  free(scratch);
}

static void options_are_followed_or_refused(void) {
  float rows[300];
  for (size_t i = 0; i < 300; ++i) rows[i] = (float)(i * i % 101);
  onceover_memory_bank* bank = NULL;
  onceover_memory_bank_options options = {.struct_size = sizeof options, .isa = "scalar", .samples = rows};
  options.sample_count = 50;
  options.max_memory_bytes = (size_t)1 << 30;
  CHECK(onceover_memory_bank_build(rows, 100, 3, &options, &bank) == ONCEOVER_OK);
  CHECK(strcmp(info_of(bank).isa, "scalar") == 0);
  onceover_memory_bank_free(bank);
  options.max_memory_bytes = 4096;
  CHECK_FAILS(onceover_memory_bank_build(rows, 100, 3, &options, &bank), ONCEOVER_MEMORY, "4096 allowed");
  options.samples = NULL;
  CHECK_FAILS(onceover_memory_bank_build(rows, 100, 3, &options, &bank), ONCEOVER_USAGE, "options->samples is NULL");
  options.isa = "nonsense";
  options.sample_count = 0;
  CHECK_FAILS(onceover_memory_bank_build(rows, 100, 3, &options, &bank), ONCEOVER_UNKNOWN_NAME, "'nonsense'");
  CHECK(bank == NULL);
}

/* Structs as a newer header would have them: with more at the end, which this library must leave alone. */
static void structs_may_be_longer_but_not_shorter_than_the_first_version(void) {
  const float rows[4] = {0, 1, 2, 3};
  struct {
    onceover_memory_bank_options known;
    const char* unknown;
  } options = {{.struct_size = sizeof options}, "?"};
  struct {
    onceover_memory_bank_info known;
    uint64_t unknown[2];
  } info = {{.struct_size = sizeof info}, {5, 6}};
  struct {
    onceover_memory_bank_stats known;
    uint64_t unknown[2];
  } stats = {{.struct_size = sizeof stats}, {7, 8}};
  float distance = 0;
  uint32_t row = 0;
  size_t bytes = 0;
  onceover_memory_bank *bank = NULL, *none = NULL;
  CHECK(onceover_memory_bank_build(rows, 2, 2, &options.known, &bank) == ONCEOVER_OK);
  CHECK(onceover_memory_bank_describe(bank, &info.known) == ONCEOVER_OK && info.known.rows == 2);
  CHECK(info.known.struct_size == sizeof info && info.unknown[0] == 5 && info.unknown[1] == 6);
  CHECK(onceover_memory_bank_scratch_bytes(bank, 1, &bytes) == ONCEOVER_OK);
  void* scratch = allocate(bytes, 1);
#define SEARCH onceover_memory_bank_search(bank, rows + 2, 1, 2, 1, &distance, &row, scratch, bytes, &stats.known)
  CHECK(SEARCH == ONCEOVER_OK && stats.known.queries == 1 && row == 1 && distance == 0);
  CHECK(stats.known.struct_size == sizeof stats && stats.unknown[0] == 7 && stats.unknown[1] == 8);

  const uint32_t bad_sizes[] = {0, 4, 1u << 20};
  row = 9;
  for (size_t i = 0; i < sizeof bad_sizes / sizeof *bad_sizes; ++i) {
    options.known.struct_size = info.known.struct_size = stats.known.struct_size = bad_sizes[i];
    CHECK_FAILS(onceover_memory_bank_build(rows, 2, 2, &options.known, &none), ONCEOVER_USAGE, "options->struct_size");
    CHECK_FAILS(onceover_memory_bank_describe(bank, &info.known), ONCEOVER_USAGE, "info->struct_size");
    CHECK_FAILS(SEARCH, ONCEOVER_USAGE, "stats->struct_size");
  }
  options.known.struct_size = offsetof(onceover_memory_bank_options, isa);
  CHECK_FAILS(onceover_memory_bank_build(rows, 2, 2, &options.known, &none), ONCEOVER_USAGE, "options->struct_size");
  CHECK(row == 9); /* refused before the work, not after it */
#undef SEARCH
  onceover_memory_bank_free(bank);
  free(scratch);
}

int main(void) {
  what_makes_no_sense_is_refused_in_words();
  options_are_followed_or_refused();
  structs_may_be_longer_but_not_shorter_than_the_first_version();
  return summary("test_c_api_refusals");
}
