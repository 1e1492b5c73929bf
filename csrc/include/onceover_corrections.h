/* Corrections on a device: false alarms that a person confirmed join the memory bank, recorded in a journal beside the
 * package, each operation on the disk when its call returns. What onceover.h says of every function and struct holds
 * here; docs/corrections.md tells what it is for. A session that has just flagged a good part:
 *
 *   onceover_corrections* corrections = NULL;
 *   uint64_t candidate = 0;
 *   status = onceover_corrections_open(package, "part.onceover.journal", NULL, &corrections);
 *   status = onceover_corrections_propose(corrections, session, NULL, &candidate);  // in quarantine
 *   status = onceover_corrections_confirm(corrections, &candidate, 1, "R., line 3", time(NULL));
 *   status = onceover_session_apply_corrections(session, corrections, NULL);        // from the next run on
 *   onceover_corrections_free(corrections);  // the session needs it no more
 *
 * For every function: texts are UTF-8 by convention, at most 1024 bytes, NULL for none; times are seconds since 1970, 0
 * for unknown. A handle serves one thread at a time. Several processes may write one journal in turn; each waits for
 * the others. OUTPUT: the journal cannot be written; PACKAGE: it is damaged; INPUT: it cannot be read.
 *
 * Of several products in one package each has its own rows, numbers of rows, bound and thresholds; a candidate belongs
 * to the product of the result that it was proposed after. One journal holds the corrections of all of them.
 *
 * Memory: a handle keeps the confirmed rows (max_added_rows * embedding_dim floats, of each product) and about 300
 * bytes and the texts of each operation on the heap. While it changes or applies a journal it takes twice that, and the
 * search indexes of the products whose rows change, with those that were applied before. */
#ifndef ONCEOVER_CORRECTIONS_H
#define ONCEOVER_CORRECTIONS_H

#include "onceover.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct onceover_corrections onceover_corrections;

typedef struct onceover_corrections_options {
  uint32_t struct_size;
  uint32_t max_added_rows; /* of a new journal: rows that confirmed candidates of a product may have together; when they
                              have more, those confirmed longest ago are evicted. 0: a tenth of the fitted rows of the
                              largest memory bank, at least 256 */
} onceover_corrections_options;

/* Reads the journal of a package; one that is not there has no records, and the first change makes it. `options` may
 * be NULL. The handle keeps what it needs of the package. INPUT: it is of another package. */
ONCEOVER_API onceover_status onceover_corrections_open(const onceover_package* package, const char* path,
                                                       const onceover_corrections_options* options,
                                                       onceover_corrections** corrections);
ONCEOVER_API void onceover_corrections_free(onceover_corrections* corrections); /* NULL is allowed */
/* Reads what other processes wrote since. */
ONCEOVER_API onceover_status onceover_corrections_refresh(onceover_corrections* corrections);

typedef struct onceover_corrections_info {
  uint32_t struct_size;
  uint8_t id[32];                    /* SHA-256 that names the journal with its whole history */
  uint64_t operations;               /* numbered from 1 */
  uint32_t added_rows, removed_rows; /* in force, of all products: of confirmed candidates, of the fitted banks */
  uint32_t max_added_rows;           /* of each product */
} onceover_corrections_info;
ONCEOVER_API onceover_status onceover_corrections_describe(onceover_corrections* corrections,
                                                           onceover_corrections_info* info);

typedef struct onceover_corrected_product {
  uint32_t struct_size;
  uint32_t fitted_rows, added_rows, removed_rows; /* of its memory bank as fitted; in force */
} onceover_corrected_product;
/* `number` as of onceover_package_product; 0 is the only one of most packages. USAGE: there is no such product. */
ONCEOVER_API onceover_status onceover_corrections_describe_product(onceover_corrections* corrections, uint32_t number,
                                                                   onceover_corrected_product* product);

/* clang-format off */
typedef enum onceover_operation_type {
  ONCEOVER_PROPOSE = 1, ONCEOVER_CONFIRM = 2, ONCEOVER_REJECT = 3, ONCEOVER_REMOVE = 4, ONCEOVER_UNDO = 5
} onceover_operation_type;
/* Where a candidate stands; its rows are in the memory bank while it is confirmed. */
typedef enum onceover_standing {
  ONCEOVER_QUARANTINED = 0, ONCEOVER_CONFIRMED = 1, ONCEOVER_REJECTED = 2, ONCEOVER_EVICTED = 3, ONCEOVER_UNDONE = 4
} onceover_standing;
/* clang-format on */

/* One line of the audit log. Pointers are the handle's, valid until it changes. */
typedef struct onceover_operation {
  uint32_t struct_size;
  uint32_t type; /* onceover_operation_type */
  int64_t time;
  uint64_t undone_by; /* 0: it is in force */
  const char* text;   /* of propose the name of the image, else who and why; not terminated by 0 */
  size_t text_bytes;
  const uint64_t* named; /* candidates of confirm and reject, bank rows of remove, the operation of undo */
  size_t named_count;
  uint32_t standing;  /* of a candidate, as are: onceover_standing */
  uint32_t row_count; /* its rows in the memory bank, from first_row on */
  uint32_t first_row;
  float score, threshold; /* of the image when it was proposed */
  uint32_t product;       /* of propose and remove: whose memory bank; 0 of the others */
} onceover_operation;
/* `number` is 1 to info.operations. The number of a propose operation is that of its candidate. */
ONCEOVER_API onceover_status onceover_corrections_operation(onceover_corrections* corrections, uint64_t number,
                                                            onceover_operation* operation);

typedef struct onceover_candidate {
  uint32_t struct_size;
  const char* name; /* of the image, terminated by 0, as is the note; NULL for none */
  const char* note;
  int64_t time;
  uint8_t image_sha256[32]; /* of its file; zeros: unknown */
} onceover_candidate;

/* Records the last image of a session of the same package as a false alarm of the product that its result names, in
 * quarantine until it is confirmed. `candidate` may be NULL; `number` gets its number. USAGE: the image was not
 * anomalous; also a wrong part, for no correction changes a gate: select the product and run the image again. */
ONCEOVER_API onceover_status onceover_corrections_propose(onceover_corrections* corrections, onceover_session* session,
                                                          const onceover_candidate* candidate, uint64_t* number);
/* Candidates join the memory bank, or leave it. USAGE, and nothing is written: one of them is unknown, named twice, or
 * stands there already. */
ONCEOVER_API onceover_status onceover_corrections_confirm(onceover_corrections* corrections, const uint64_t* numbers,
                                                          size_t count, const char* text, int64_t time);
ONCEOVER_API onceover_status onceover_corrections_reject(onceover_corrections* corrections, const uint64_t* numbers,
                                                         size_t count, const char* text, int64_t time);
/* Takes rows out of the memory bank, fitted or joined (nearest_row of a result). USAGE: one of them is not there; the
 * package has several products. */
ONCEOVER_API onceover_status onceover_corrections_remove(onceover_corrections* corrections, const uint64_t* rows,
                                                         size_t count, const char* text, int64_t time);
/* The same of one product (`product` of that result). */
ONCEOVER_API onceover_status onceover_corrections_remove_from(onceover_corrections* corrections, uint32_t product,
                                                              const uint64_t* rows, size_t count, const char* text,
                                                              int64_t time);
/* Takes back the last operation in force, of whichever product; `number`, which may be NULL, gets its number. USAGE:
 * there is none. */
ONCEOVER_API onceover_status onceover_corrections_undo(onceover_corrections* corrections, const char* text,
                                                       int64_t time, uint64_t* number);

/* What the thresholds of a corrected session are worth. They are never below the package's, so that a correction that
 * only adds rows flags no part that was not flagged before. */
typedef enum onceover_calibration_state {
  ONCEOVER_CALIBRATION_FITTED = 0,  /* nothing was changed */
  ONCEOVER_CALIBRATION_EXACT = 1,   /* as a new calibration would find them */
  ONCEOVER_CALIBRATION_BOUNDED = 2, /* rather too high: at most the promised rate of false alarms */
  ONCEOVER_CALIBRATION_KEPT = 3,    /* the package cannot calibrate again; rows only joined, so that they still hold */
  ONCEOVER_CALIBRATION_STALE = 4    /* it cannot, and fitted rows were removed: no verdicts */
} onceover_calibration_state;

/* Scores and decides with what the journal says in place of what was applied before, from the next run on; no run
 * allocates. Thresholds follow, unless the application set its own. The session's memory holds the corrected bank, of
 * every product: the first call takes it, later ones none. `state` (onceover_calibration_state) may be NULL; of several
 * products it gets the highest one. What fails has changed nothing, of no product. MEMORY: limit or arena have less
 * than is needed; USAGE: they are of different packages. */
ONCEOVER_API onceover_status onceover_session_apply_corrections(onceover_session* session,
                                                                onceover_corrections* corrections, uint32_t* state);
/* The state of one product, FITTED before the first apply. USAGE: there is no such product. */
ONCEOVER_API onceover_status onceover_session_calibration_state(onceover_session* session, uint32_t product,
                                                                uint32_t* state);
/* Bytes of arena or limit that it takes. */
ONCEOVER_API onceover_status onceover_corrections_query_memory(onceover_corrections* corrections, uint32_t threads,
                                                               size_t* bytes);

/* `done` of `total` steps of `what` ("reference images", "search index", "neighbors", "verifying"), on the caller's
 * thread: time to feed a watchdog or to draw a bar. Steps are counted anew for each corrected product. */
typedef void (*onceover_progress)(void* context, const char* what, size_t done, size_t total);
/* Asked as often as progress is told, after it: other than 0 stops. */
typedef int32_t (*onceover_is_cancelled)(void* context);

typedef struct onceover_compact_options {
  uint32_t struct_size;
  const onceover_session_options* session; /* of the two sessions that prove the new package, one after the other, each
                                              in the whole arena; NULL: as for onceover_session_create */
  onceover_progress progress;              /* NULL: none */
  void* progress_context;                  /* of progress and is_cancelled */
  onceover_is_cancelled is_cancelled;      /* NULL: never; nor does a library that is older than this field */
} onceover_compact_options;

/* A new package with the corrections inside, at `output`, another file; sign it again. Go on with it and a journal of
 * its own, which is empty:
 *
 *   onceover_session_options engine = {.struct_size = sizeof engine, .engine = "onnxruntime"};
 *   onceover_compact_options options = {.struct_size = sizeof options, .session = &engine};
 *   status = onceover_corrections_compact(corrections, "part_2.onceover", &options, NULL);
 *   status = onceover_package_open("part_2.onceover", NULL, &package);
 *   status = onceover_corrections_open(package, "part_2.onceover.journal", NULL, &corrections);
 *
 * It decides as a session with these corrections does, with the same bits, and can be corrected and compacted again. Of
 * several products it holds all; those that nothing was corrected of keep their members, byte for byte.
 * The manifest tells where it came from. The reference images are run by a session with the corrections, and again by
 * one of the new package as it was read back, before the file gets its name: what fails, or is killed, leaves what was
 * there. `package_id` (onceover_package_info) may be NULL. Beside the sessions it takes on the heap the rows twice,
 * their search index and what calibrates again. USAGE: nothing is confirmed or removed; `output` is the package or the
 * journal, or `output`.journal exists. OUTPUT, VERIFICATION, ENGINE, MEMORY, CANCELLED; PACKAGE, INPUT: the package is
 * damaged, or its graph not complete in itself. */
ONCEOVER_API onceover_status onceover_corrections_compact(onceover_corrections* corrections, const char* output,
                                                          const onceover_compact_options* options,
                                                          uint8_t package_id[32]);

#ifdef __cplusplus
}
#endif
#endif
