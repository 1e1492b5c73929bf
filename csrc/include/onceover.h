/* onceover: visual anomaly inspection on edge devices. The C ABI (C99). This version has the status codes, which C++
 * (base/error.h) and Python (onceover/errors.py) share, and the memory bank; onceover_metrics.h has the pixel metrics,
 * which a device that inspects does not need. A whole program:
 *
 *   #include <stdio.h>
 *   #include <stdlib.h>
 *
 *   #include "onceover.h"
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
 * For every function:
 * - It returns a status and throws nothing. When it fails, onceover_last_error() says what and what to do, what it was
 *   to change is as before, and of its results only handles are written: they are NULL.
 * - Pointers to const are read, others are written. None may be NULL unless its comment says so, or it points to no
 *   elements.
 * - Pointers are used during the call only, unless a comment says "borrowed": then what they point to must stay, and
 *   stay as it is, that long.
 * - Matrices are row-major float32. More alignment than C's is asked for where it is needed.
 * - Functions that take a bank as const may run on it in several threads at once, the others only alone.
 * - Structs grow at their end and begin with their own size: set struct_size to sizeof and the rest to zero, as in
 *   `onceover_memory_bank_info info = {.struct_size = sizeof info};`. A library older or newer than the header reads
 *   and writes the members that both know, and never beyond struct_size. */
#ifndef ONCEOVER_H
#define ONCEOVER_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define ONCEOVER_API __attribute__((visibility("default")))
#else
#define ONCEOVER_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef enum onceover_status {
  ONCEOVER_OK = 0,
  ONCEOVER_INPUT = 1,         /* an image or file of the user's cannot be used */
  ONCEOVER_USAGE = 2,         /* an argument makes no sense */
  ONCEOVER_UNKNOWN_NAME = 3,  /* an engine or instruction set that does not exist */
  ONCEOVER_PACKAGE = 4,       /* a package is damaged, or is not a package */
  ONCEOVER_UNSUPPORTED = 5,   /* another format version, or an unknown required member */
  ONCEOVER_ENGINE = 6,        /* the engine failed, or its answer cannot be trusted */
  ONCEOVER_MEMORY = 7,        /* more memory needed than allowed or available */
  ONCEOVER_NOT_FITTED = 8,    /* a detector was used before fit (Python only) */
  ONCEOVER_MISSING_EXTRA = 9, /* an optional dependency is absent (Python only) */
  ONCEOVER_VERIFICATION = 10, /* a package does not reproduce its own record */
  ONCEOVER_INTERNAL = 11,     /* a defect of onceover itself */
  ONCEOVER_OUTPUT = 12        /* a file cannot be written */
} onceover_status;

/* What went wrong in the last call of this thread that failed, or "". The library's; valid until the next one fails. */
ONCEOVER_API const char* onceover_last_error(void);

/* ---- Memory bank: exact nearest rows by Euclidean distance, the same bits on every machine. ---- */

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
