/* onceover's memory bank in C99: exact nearest rows by Euclidean distance, the same bits on every machine. What
 * onceover.h says of every function and struct holds here. A whole program:
 *
 *   #include <stdio.h>
 *   #include <stdlib.h>
 *
 *   #include "onceover_memory_bank.h"
 *
 *   int main(void) {
 *     const float rows[] = {0, 0, 3, 0, 0, 4};  // three rows of two values
 *     const float query[] = {2, 0};
 *     onceover_memory_bank* bank = NULL;
 *     void* scratch = NULL;
 *     size_t bytes = 0;
 *     float distance = 0;
 *     uint32_t row = 0;
 *     onceover_status status = onceover_memory_bank_build(rows, 3, 2, NULL, &bank);
 *     if (status == ONCEOVER_OK) status = onceover_memory_bank_scratch_bytes(bank, 1, &bytes);
 *     if (status == ONCEOVER_OK) scratch = malloc(bytes);  // once; then search as often as you like
 *     if (status == ONCEOVER_OK)
 *       status = onceover_memory_bank_search(bank, query, 1, 2, 1, &distance, &row, scratch, bytes, NULL);
 *     if (status == ONCEOVER_OK)
 *       printf("row %u is %g away\n", (unsigned)row, (double)distance);
 *     else
 *       fprintf(stderr, "%s\n", onceover_last_error());
 *     onceover_memory_bank_free(bank);
 *     free(scratch);
 *     return status == ONCEOVER_OK ? 0 : 1;
 *   }
 *
 * For every function that takes a bank as const: it may run on it in several threads at once, the others only alone.
 * Matrices are float32. */
#ifndef ONCEOVER_MEMORY_BANK_H
#define ONCEOVER_MEMORY_BANK_H

#include "onceover.h"

#ifdef __cplusplus
extern "C" {
#endif

#define ONCEOVER_MAX_NEIGHBORS 32
#define ONCEOVER_NO_ROW UINT32_MAX /* in place of a row number */

/* Rows and their search index. Rows are numbered from 0; a removed row's number is not used again. */
typedef struct onceover_memory_bank onceover_memory_bank;

typedef struct onceover_memory_bank_options {
  uint32_t struct_size;
  uint64_t seed;        /* the same rows, samples, seed and isa make the same index */
  const float* samples; /* (sample_count, dims) rows that are not in the bank but like what will be searched for, from
                           which the fastest kind of index is chosen; NULL: judged by the rows themselves */
  size_t sample_count;
  size_t max_memory_bytes; /* of the index and what building it takes, beside the rows; 0: no limit */
  const char* isa;         /* instruction set, as in info; NULL: what ONCEOVER_ISA names, else this machine's best */
} onceover_memory_bank_options;

typedef struct onceover_memory_bank_info {
  uint32_t struct_size;
  size_t rows; /* without removed ones */
  size_t dims;
  const char* representation; /* "scan", "rank" or "full"; the library's, never freed, as is isa */
  const char* isa;
  size_t index_bytes;
} onceover_memory_bank_info;

/* What one search did, so that slow inputs can be seen. */
typedef struct onceover_memory_bank_stats {
  uint32_t struct_size;
  uint64_t queries;
  uint64_t coarse_queries;  /* far out: coded on a coarser step */
  uint64_t hit_blocks;      /* blocks of 32 rows looked at again, per 16 queries */
  uint64_t refined_rows;    /* rows that took the second bound */
  uint64_t measured_rows;   /* float rows read, in float32 */
  uint64_t exact_rows;      /* float rows measured in float64 */
  uint64_t scanned_queries; /* codes pruned too little, all rows were scanned in float32 */
  uint64_t float64_queries; /* beyond the range of float32 arithmetic: all rows were measured in float64 */
} onceover_memory_bank_stats;

/* Builds the index of rows (row_count, dims), dims 1 to 65536. `rows` is borrowed until the first add, which takes a
 * copy, or until free. `options` may be NULL. INPUT: a NaN or infinity, or a shape out of range; MEMORY;
 * UNKNOWN_NAME and USAGE for `isa`. */
ONCEOVER_API onceover_status onceover_memory_bank_build(const float* rows, size_t row_count, size_t dims,
                                                        const onceover_memory_bank_options* options,
                                                        onceover_memory_bank** bank);

/* Takes the index that onceover_memory_bank_index gave for the same rows, in place: it may lie in flash or in a mapped
 * file, at a multiple of 64 bytes. `rows` is borrowed as in build, `index` until the first add or remove, or until
 * free. INPUT: they do not belong together, as far as their shapes and the numbers in the index tell. */
ONCEOVER_API onceover_status onceover_memory_bank_view(const float* rows, size_t row_count, size_t dims,
                                                       const void* index, size_t index_bytes,
                                                       onceover_memory_bank** bank);

/* The index, to be stored and viewed later beside its rows. The bank's; valid until it changes or is freed. */
ONCEOVER_API onceover_status onceover_memory_bank_index(const onceover_memory_bank* bank, const void** index,
                                                        size_t* index_bytes);

/* Bytes of scratch for searches with this k. Ask again after add or remove. */
ONCEOVER_API onceover_status onceover_memory_bank_scratch_bytes(const onceover_memory_bank* bank, size_t k,
                                                                size_t* scratch_bytes);

/* For each query the k nearest rows, nearest first, of equal ones the lowest number: distances and indices
 * (query_count, k). Query i starts at queries[i * stride_floats], stride_floats >= dims. Where there are fewer than k
 * rows, and for a query with a NaN or infinity: +infinity and ONCEOVER_NO_ROW. `k` is 1 to ONCEOVER_MAX_NEIGHBORS.
 * Allocates nothing unless it fails. `scratch` needs no alignment, and each of several threads one of its own. `stats`
 * may be NULL. */
ONCEOVER_API onceover_status onceover_memory_bank_search(const onceover_memory_bank* bank, const float* queries,
                                                         size_t query_count, size_t stride_floats, size_t k,
                                                         float* distances, uint32_t* indices, void* scratch,
                                                         size_t scratch_bytes, onceover_memory_bank_stats* stats);

/* Copies rows (row_count, dims) to the end of the bank; `first`, which may be NULL, gets the number of the first one.
 * INPUT: a NaN or infinity, or too many rows. */
ONCEOVER_API onceover_status onceover_memory_bank_add(onceover_memory_bank* bank, const float* rows, size_t row_count,
                                                      uint32_t* first);

/* Takes rows out, each named once. USAGE: one of them is not there. */
ONCEOVER_API onceover_status onceover_memory_bank_remove(onceover_memory_bank* bank, const uint32_t* rows,
                                                         size_t row_count);

ONCEOVER_API onceover_status onceover_memory_bank_describe(const onceover_memory_bank* bank,
                                                           onceover_memory_bank_info* info);

/* NULL is allowed. */
ONCEOVER_API void onceover_memory_bank_free(onceover_memory_bank* bank);

#ifdef __cplusplus
}
#endif
#endif
