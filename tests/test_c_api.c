/* The C ABI as a C99 program meets it: answers against brute force in float64, an index in place, rows that come and
 * go, what is allocated, and two threads. What is refused: test_c_api_refusals.c. */
#define _POSIX_C_SOURCE 200112L

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "c_api_check.h"
#include "count_allocations.h"

/* ---- Rows to search, and the slow, obvious search. ---- */

static uint64_t random_state = 1;

static double uniform(void) { /* in [-1, 1); SplitMix64 */
  uint64_t z = (random_state += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return (double)((z ^ (z >> 31)) >> 11) * (1.0 / 4503599627370496.0) - 1;
}

/* Mixtures of `directions` fixed ones and a little noise: what features look like; 0 directions: noise alone. */
static float* random_rows(size_t count, size_t dims, size_t directions) {
  float* rows = allocate(count * dims, sizeof *rows);
  float* basis = allocate(directions * dims, sizeof *basis);
  random_state = 77; /* the same directions for rows and queries */
  for (size_t i = 0; i < directions * dims; ++i) basis[i] = (float)uniform();
  random_state = count;
  for (size_t i = 0; i < count; ++i) {
    for (size_t d = 0; d < dims; ++d) rows[i * dims + d] = (float)(uniform() * (directions > 0 ? 0.05 : 1));
    for (size_t j = 0; j < directions; ++j) {
      const float weight = (float)uniform();
      for (size_t d = 0; d < dims; ++d) rows[i * dims + d] += weight * basis[j * dims + d];
    }
  }
  free(basis);
  return rows;
}

static double squared(const float* a, const float* b, size_t dims) {
  double sum = 0;
  for (size_t d = 0; d < dims; ++d) sum += ((double)a[d] - (double)b[d]) * ((double)a[d] - (double)b[d]);
  return sum;
}

/* The k nearest rows but those `gone`, which may be NULL. */
static void brute_force(const float* rows, size_t row_count, size_t dims, const unsigned char* gone, const float* query,
                        size_t k, double* distances, uint32_t* indices) {
  for (size_t i = 0; i < k; ++i) {
    distances[i] = INFINITY;
    indices[i] = ONCEOVER_NO_ROW;
  }
  for (size_t row = 0; row < row_count; ++row) {
    const double distance = sqrt(squared(rows + row * dims, query, dims));
    size_t at = k;
    if (gone != NULL && gone[row]) continue;
    for (; at > 0 && distance < distances[at - 1]; --at) { /* not before an equal one: its number is lower */
      if (at == k) continue;
      distances[at] = distances[at - 1];
      indices[at] = indices[at - 1];
    }
    if (at == k) continue;
    distances[at] = distance;
    indices[at] = (uint32_t)row;
  }
}

/* ---- Searching with all that it takes. ---- */

typedef struct answers {
  size_t count; /* queries · k */
  float* distances;
  uint32_t* indices;
} answers;

static answers search_for(const onceover_memory_bank* bank, const float* queries, size_t query_count, size_t stride,
                          size_t k) {
  answers found = {query_count * k, allocate(query_count * k, sizeof(float)),
                   allocate(query_count * k, sizeof(uint32_t))};
  onceover_memory_bank_stats stats = {.struct_size = sizeof stats};
  size_t bytes = 0;
  CHECK(onceover_memory_bank_scratch_bytes(bank, k, &bytes) == ONCEOVER_OK);
  char* scratch = allocate(bytes + 1, 1);
  const size_t before = allocated.calls;
  const onceover_status status = onceover_memory_bank_search(bank, queries, query_count, stride, k, found.distances,
                                                             found.indices, scratch + 1, bytes, &stats);
  CHECK(allocated.calls == before);
  CHECK(status == ONCEOVER_OK);
  CHECK(stats.queries == query_count && stats.struct_size == sizeof stats);
  free(scratch);
  return found;
}

static int same_answers(answers a, answers b) {
  return a.count == b.count && memcmp(a.distances, b.distances, a.count * sizeof *a.distances) == 0 &&
         memcmp(a.indices, b.indices, a.count * sizeof *a.indices) == 0;
}

static void free_answers(answers found) {
  free(found.distances);
  free(found.indices);
}

/* Searches and compares with brute force; a query whose first value is not finite has no neighbors. */
static void check_search(const onceover_memory_bank* bank, const float* rows, size_t row_count, size_t dims,
                         const unsigned char* gone, const float* queries, size_t query_count, size_t stride, size_t k) {
  const answers found = search_for(bank, queries, query_count, stride, k);
  size_t wrong = 0;
  for (size_t q = 0; q < query_count; ++q) {
    double distances[ONCEOVER_MAX_NEIGHBORS];
    uint32_t indices[ONCEOVER_MAX_NEIGHBORS];
    const float* query = queries + q * stride;
    brute_force(rows, isfinite(query[0]) ? row_count : 0, dims, gone, query, k, distances, indices);
    for (size_t i = 0; i < k; ++i) {
      const float distance = found.distances[q * k + i];
      /* float32 of a float64 distance: one rounding, 2^-24. */
      const int near = isinf(distances[i]) ? isinf(distance) && distance > 0
                                           : fabs((double)distance - distances[i]) <= distances[i] * 6e-8;
      wrong += !near || found.indices[q * k + i] != indices[i];
    }
  }
  CHECK(wrong == 0);
  free_answers(found);
}

/* ---- The tests. ---- */

static void a_search_finds_what_brute_force_finds(void) {
  static const struct {
    size_t rows, dims, directions;
    const char* representation; /* NULL: too close to tell */
  } shapes[] = {{0, 7, 0, "scan"}, {1, 1, 0, "scan"}, {50, 5, 0, "scan"}, {900, 64, 0, NULL}, {700, 96, 8, "rank"}};
  for (size_t s = 0; s < sizeof shapes / sizeof *shapes; ++s) {
    const size_t row_count = shapes[s].rows, dims = shapes[s].dims, stride = dims + 3, query_count = 41;
    float* rows = random_rows(row_count, dims, shapes[s].directions);
    float* queries = random_rows(query_count, stride, 0);
    float* like_rows = random_rows(query_count, dims, shapes[s].directions);
    for (size_t q = 0; q < query_count; ++q) memcpy(queries + q * stride, like_rows + q * dims, dims * sizeof *rows);
    if (row_count > 40) memcpy(rows + 40 * dims, rows + 7 * dims, dims * sizeof *rows); /* equal rows */
    if (row_count > 40)
      memcpy(queries + 5 * stride, rows + 40 * dims, dims * sizeof *queries); /* found by one of them */
    queries[11 * stride] = NAN;
    queries[12 * stride] = -INFINITY;
    queries[13 * stride] = 1e4f; /* far out */
    onceover_memory_bank* bank = built(rows, row_count, dims);
    const onceover_memory_bank_info info = info_of(bank);
    CHECK(info.rows == row_count && info.dims == dims && strlen(info.isa) > 0 && info.index_bytes > 0);
    if (shapes[s].representation != NULL) CHECK(strcmp(info.representation, shapes[s].representation) == 0);
    check_search(bank, rows, row_count, dims, NULL, queries, query_count, stride, 1);
    check_search(bank, rows, row_count, dims, NULL, queries, query_count, stride, 5);
    check_search(bank, rows, row_count, dims, NULL, queries, query_count, stride, ONCEOVER_MAX_NEIGHBORS);
    free_answers(search_for(bank, NULL, 0, stride, 1));
    onceover_memory_bank_free(bank);
    free(rows);
    free(queries);
    free(like_rows);
  }
}

static void a_stored_index_gives_the_same_bits_in_place(void) {
  const size_t row_count = 700, dims = 96, query_count = 33;
  float* rows = random_rows(row_count, dims, 8);
  float* queries = random_rows(query_count, dims, 8);
  onceover_memory_bank *bank = built(rows, row_count, dims), *view = NULL;
  const void* index = NULL;
  size_t bytes = 0;
  void* flash = NULL;
  CHECK(onceover_memory_bank_index(bank, &index, &bytes) == ONCEOVER_OK && bytes == info_of(bank).index_bytes);
  if (posix_memalign(&flash, 64, bytes + 64) != 0) exit(2);
  memcpy(flash, index, bytes);
  const onceover_memory_bank_options other_seed = {.struct_size = sizeof other_seed, .seed = 1};
  CHECK(onceover_memory_bank_build(rows, row_count, dims, &other_seed, &view) == ONCEOVER_OK);
  CHECK(onceover_memory_bank_index(view, &index, &bytes) == ONCEOVER_OK && memcmp(index, flash, bytes) != 0);
  onceover_memory_bank_free(view);
  const answers before = search_for(bank, queries, query_count, dims, 4);
  onceover_memory_bank_free(bank);

  CHECK(onceover_memory_bank_view(rows, row_count, dims, flash, bytes, &view) == ONCEOVER_OK);
  const answers after = search_for(view, queries, query_count, dims, 4);
  CHECK(same_answers(before, after));
  CHECK(onceover_memory_bank_index(view, &index, &bytes) == ONCEOVER_OK && index == flash);
  const uint32_t first_row = 0;
  unsigned char gone[701] = {1};
  CHECK(onceover_memory_bank_remove(view, &first_row, 1) == ONCEOVER_OK); /* in an index of its own */
  CHECK(onceover_memory_bank_index(view, &index, &bytes) == ONCEOVER_OK && index != flash);
  check_search(view, rows, row_count, dims, gone, queries, query_count, dims, 2);
  onceover_memory_bank_free(view);

  char* misaligned = (char*)flash + 4;
  CHECK_FAILS(onceover_memory_bank_view(rows, row_count, dims, misaligned, bytes, &view), ONCEOVER_USAGE, "64");
  CHECK(view == NULL);
  CHECK_FAILS(onceover_memory_bank_view(rows, row_count, dims, flash, bytes - 1, &view), ONCEOVER_INPUT, "bytes");
  CHECK_FAILS(onceover_memory_bank_view(rows, row_count, dims, flash, 0, &view), ONCEOVER_INPUT, "0 bytes");
  CHECK_FAILS(onceover_memory_bank_view(rows, row_count - 1, dims, flash, bytes, &view), ONCEOVER_INPUT, "699 x 96");
  CHECK_FAILS(onceover_memory_bank_view(rows, row_count, dims, NULL, bytes, &view), ONCEOVER_USAGE, "index is NULL");
  CHECK_FAILS(onceover_memory_bank_view(NULL, row_count, dims, flash, bytes, &view), ONCEOVER_USAGE, "rows is NULL");
  CHECK_FAILS(onceover_memory_bank_view(rows, row_count, dims, flash, bytes, NULL), ONCEOVER_USAGE, "bank is NULL");
  free_answers(before);
  free_answers(after);
  free(flash);
  free(rows);
  free(queries);
}

static void rows_are_added_and_removed(void) {
  const size_t row_count = 300, added = 45, all = row_count + added, dims = 70, query_count = 20;
  float* rows = random_rows(all, dims, 0);
  float* lent = allocate(row_count * dims, sizeof *lent);
  float* queries = random_rows(query_count, dims, 0);
  const uint32_t leaving[] = {3, 299, 310}, absent[] = {4, 345}, twice[] = {4, 4};
  unsigned char gone[345] = {0};
  uint32_t first = 0;
  memcpy(lent, rows, row_count * dims * sizeof *lent);
  memcpy(queries, rows + 310 * dims, dims * sizeof *queries);
  onceover_memory_bank* bank = built(lent, row_count, dims);

  float bad[70] = {0};
  bad[69] = NAN;
  CHECK_FAILS(onceover_memory_bank_add(bank, bad, 1, &first), ONCEOVER_INPUT, "row 0 of 1 holds a NaN");
  CHECK_FAILS(onceover_memory_bank_add(bank, NULL, 1, &first), ONCEOVER_USAGE, "rows is NULL");
  CHECK(first == 0 && info_of(bank).rows == row_count);
  CHECK(onceover_memory_bank_add(bank, rows + row_count * dims, added, &first) == ONCEOVER_OK && first == row_count);
  memset(lent, 0xff, row_count * dims * sizeof *lent); /* no longer borrowed: NaN here hurts nobody */
  CHECK(onceover_memory_bank_add(bank, NULL, 0, NULL) == ONCEOVER_OK && info_of(bank).rows == all);
  check_search(bank, rows, all, dims, NULL, queries, query_count, dims, 3);

  for (size_t i = 0; i < 3; ++i) gone[leaving[i]] = 1;
  CHECK(onceover_memory_bank_remove(bank, leaving, 3) == ONCEOVER_OK && info_of(bank).rows == all - 3);
  check_search(bank, rows, all, dims, gone, queries, query_count, dims, 3);
  CHECK_FAILS(onceover_memory_bank_remove(bank, leaving + 2, 1), ONCEOVER_USAGE, "row 310 cannot be removed");
  CHECK_FAILS(onceover_memory_bank_remove(bank, absent, 2), ONCEOVER_USAGE, "row 345 cannot be removed");
  CHECK_FAILS(onceover_memory_bank_remove(bank, twice, 2), ONCEOVER_USAGE, "row 4 cannot be removed");
  CHECK_FAILS(onceover_memory_bank_remove(bank, NULL, 2), ONCEOVER_USAGE, "rows is NULL");
  CHECK(onceover_memory_bank_remove(bank, NULL, 0) == ONCEOVER_OK && info_of(bank).rows == all - 3);
  check_search(bank, rows, all, dims, gone, queries, query_count, dims, 3);
  CHECK(onceover_memory_bank_add(bank, rows, 1, &first) == ONCEOVER_OK && first == all); /* no number is used again */
  onceover_memory_bank_free(bank);
  free(rows);
  free(lent);
  free(queries);
}

typedef struct task {
  const onceover_memory_bank* bank;
  const float* queries;
  size_t query_count, dims, k;
  void* scratch;
  size_t scratch_bytes;
  answers expected, found;
  int right, quiet;
} task;

static void* search_again_and_again(void* context) {
  task* mine = context;
  mine->right = 1;
  mine->quiet = strlen(onceover_last_error()) == 0; /* the other thread's message is not ours */
  for (int round = 0; round < 8; ++round) {
    memset(mine->found.indices, 0, mine->found.count * sizeof *mine->found.indices);
    mine->right &= onceover_memory_bank_search(mine->bank, mine->queries, mine->query_count, mine->dims, mine->k,
                                               mine->found.distances, mine->found.indices, mine->scratch,
                                               mine->scratch_bytes, NULL) == ONCEOVER_OK;
    mine->right &= same_answers(mine->expected, mine->found);
  }
  return NULL;
}

static void two_threads_search_one_bank_with_a_scratch_each(void) {
  const size_t row_count = 700, dims = 96, query_count = 24, k = 3;
  float* rows = random_rows(row_count, dims, 8);
  float* queries = random_rows(2 * query_count, dims, 8);
  onceover_memory_bank* bank = built(rows, row_count, dims);
  task tasks[2];
  pthread_t threads[2];
  CHECK_FAILS(onceover_memory_bank_describe(bank, NULL), ONCEOVER_USAGE, "info is NULL"); /* a message of this thread */
  for (size_t i = 0; i < 2; ++i) {
    task* each = &tasks[i];
    memset(each, 0, sizeof *each);
    each->bank = bank;
    each->queries = queries + i * query_count * dims;
    each->query_count = query_count;
    each->dims = dims;
    each->k = k;
    CHECK(onceover_memory_bank_scratch_bytes(bank, k, &each->scratch_bytes) == ONCEOVER_OK);
    each->scratch = allocate(each->scratch_bytes, 1);
    each->expected = search_for(bank, each->queries, query_count, dims, k);
    each->found = search_for(bank, each->queries, query_count, dims, k);
  }
  for (size_t i = 0; i < 2; ++i) {
    if (pthread_create(&threads[i], NULL, search_again_and_again, &tasks[i]) != 0) exit(2);
  }
  for (size_t i = 0; i < 2; ++i) {
    pthread_join(threads[i], NULL);
    CHECK(tasks[i].right);
    CHECK(tasks[i].quiet);
    free(tasks[i].scratch);
    free_answers(tasks[i].expected);
    free_answers(tasks[i].found);
  }
  onceover_memory_bank_free(bank);
  free(rows);
  free(queries);
}

static void allocations_are_counted(void) {
  const float rows[2] = {0, 1};
  const size_t before = allocated.calls;
  onceover_memory_bank_free(built(rows, 2, 1));
  if (COUNTS_ALLOCATIONS) {
    CHECK(allocated.calls >= before + 2); /* the handle, and the index at a multiple of 64 bytes */
  } else {
    printf("test_c_api: SKIPPED counting allocations, malloc is not ours here\n");
  }
}

int main(void) {
  CHECK(strcmp(onceover_last_error(), "") == 0);
  allocations_are_counted();
  a_search_finds_what_brute_force_finds();
  a_stored_index_gives_the_same_bits_in_place();
  rows_are_added_and_removed();
  two_threads_search_one_bank_with_a_scratch_each();
  return summary("test_c_api");
}
