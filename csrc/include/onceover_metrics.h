/* onceover: exact pixel metrics of anomaly maps, for anyone who has maps and masks: AUPRO and saturated PRO, AUROC,
 * average precision, largest F1. Images are taken one by one, and what is gathered apart can be merged. The C ABI
 * (C99), beside onceover.h; onceover_metrics.hpp is its face in C++. A whole program:
 *
 *   #include <stdio.h>
 *
 *   #include "onceover_metrics.h"
 *
 *   int main(void) {
 *     const float map[] = {9, 1, 2, 3,   // (2, 4) scores, higher is more anomalous
 *                          8, 1, 7, 0};
 *     const uint8_t mask[] = {1, 0, 0, 0,  // two regions: of two pixels and of one
 *                             1, 0, 1, 0};
 *     const float good[] = {7.5f, 4, 4, 0, 0};  // (1, 5), another size: nothing is resized
 *     const double limit = 0.3;                 // AUPRO up to this false positive rate
 *     onceover_metric aupro = {0};
 *     onceover_segmentation_result result = {.struct_size = sizeof result};
 *     onceover_segmentation_metrics* metrics = NULL;
 *     onceover_status status = onceover_segmentation_metrics_create(NULL, &metrics);
 *     if (status == ONCEOVER_OK)
 *       status = onceover_segmentation_metrics_update(metrics, map, 4 * sizeof *map, ONCEOVER_FLOAT32, mask, 4,
 *                                                    2, 4, 0);
 *     if (status == ONCEOVER_OK)
 *       status = onceover_segmentation_metrics_update(metrics, good, 5 * sizeof *good, ONCEOVER_FLOAT32, NULL, 0,
 *                                                    1, 5, 0);
 *     if (status == ONCEOVER_OK)
 *       status = onceover_segmentation_metrics_compute(metrics, &limit, 1, ONCEOVER_ALL_GROUPS, &aupro, NULL, &result);
 *     if (status == ONCEOVER_OK)
 *       printf("AUPRO %.4f, AUROC %.4f\n", aupro.value, result.pixel_auroc.value);
 *     else
 *       fprintf(stderr, "%s\n", onceover_last_error());
 *     onceover_segmentation_metrics_free(metrics);
 *     return status == ONCEOVER_OK ? 0 : 1;
 *   }
 *
 * For every function the rules of onceover.h hold, and:
 * - One handle is for one thread at a time: computing, too, puts what was gathered in order, which changes no result.
 *   A handle given as const is only read, and may be by several threads.
 * - After ONCEOVER_MEMORY, what was to change may hold a part of what is new: free it.
 * - A map or mask is somebody else's, read during the call. Row y starts at its pointer + y · stride bytes; a stride is
 *   negative where rows are stored from the last to the first, and never shorter than a row.
 * - Memory for results is the caller's. Where their number is not known before, a capacity of 0 asks for it: only the
 *   counts are written. A capacity that is too small is refused with USAGE, which names the number. */
#ifndef ONCEOVER_METRICS_H
#define ONCEOVER_METRICS_H

#include "onceover.h"

#ifdef __cplusplus
extern "C" {
#endif

#define ONCEOVER_ALL_GROUPS (-1)

/* What the metrics of a test set need of it: counts of the normal scores, and the anomalous ones. From create or load;
 * the caller's, until free. */
typedef struct onceover_segmentation_metrics onceover_segmentation_metrics;

/* How an anomaly map holds its scores, each at a multiple of its own size. All kinds may meet in one handle: they count
 * with the value they have, 3 in UINT8 as 3.0. Passed as int32_t, which no compiler makes shorter. */
typedef enum onceover_score_type {
  ONCEOVER_FLOAT32 = 0,
  ONCEOVER_FLOAT16 = 1, /* IEEE 754 binary16 */
  ONCEOVER_UINT8 = 2,
  ONCEOVER_UINT16 = 3
} onceover_score_type;

typedef struct onceover_segmentation_options {
  uint32_t struct_size;
  int32_t connectivity;     /* of regions: 8 or 4 neighbors; 0: 8, AUPRO's definition */
  size_t page_budget_bytes; /* of the normal scores, at least 2^22; beyond it low bits of scores are dropped, and
                               metrics get bounds. 0: no limit, all is exact */
} onceover_segmentation_options;

/* A metric and what its exact value lies between; equal while no bits of scores were dropped. NaN: undefined. */
typedef struct onceover_metric {
  double value, lower, upper;
} onceover_metric;

typedef struct onceover_segmentation_result {
  uint32_t struct_size;
  uint32_t dropped_key_bits; /* 0: everything is exact */
  onceover_metric pixel_auroc, average_precision, f1_max;
  double f1_max_threshold; /* the lowest of the best; a float32 */
  uint64_t images;         /* of all groups, as are normal_pixels */
  uint64_t groups;         /* their numbers are below this */
  uint64_t regions, channels, anomalous_pixels;
  uint64_t normal_pixels;
  size_t state_bytes; /* of memory that the handle holds */
} onceover_segmentation_result;

/* `options` may be NULL. USAGE: another connectivity, or a budget that is too small. */
ONCEOVER_API onceover_status onceover_segmentation_metrics_create(const onceover_segmentation_options* options,
                                                                  onceover_segmentation_metrics** metrics);

/* Takes an image: its map (height, width), and its mask of as many bytes, not 0 where it is anomalous; NULL: a good
 * image. `group` is what kind of defect it has, 0 to 65535, or always 0. INPUT: a NaN, or no pixels. ±infinity are
 * ordinary scores. */
ONCEOVER_API onceover_status onceover_segmentation_metrics_update(onceover_segmentation_metrics* metrics,
                                                                  const void* map, ptrdiff_t map_stride_bytes,
                                                                  int32_t score_type, const uint8_t* mask,
                                                                  ptrdiff_t mask_stride_bytes, size_t height,
                                                                  size_t width, int32_t group);

/* Takes an image with a mask for each defect ("channel" of MVTec LOCO; they may overlap), all of one stride: saturated
 * PRO counts at most saturation_areas[i] pixels of masks[i]. For all else, the mask is their union. INPUT: as in
 * update, or a saturation area that is not 1 to the number of pixels of its mask. */
ONCEOVER_API onceover_status onceover_segmentation_metrics_update_channels(
    onceover_segmentation_metrics* metrics, const void* map, ptrdiff_t map_stride_bytes, int32_t score_type,
    const uint8_t* const* masks, ptrdiff_t mask_stride_bytes, const uint32_t* saturation_areas, size_t channel_count,
    size_t height, size_t width, int32_t group);

/* Adds everything in `from`, which stays as it is, as if its images had been taken here; groups keep their numbers.
 * Both may be the same. USAGE: their connectivity differs. */
ONCEOVER_API onceover_status onceover_segmentation_metrics_merge(onceover_segmentation_metrics* metrics,
                                                                 const onceover_segmentation_metrics* from);

/* The metrics of one group's anomalous pixels, or of ONCEOVER_ALL_GROUPS, against all normal pixels; NaN, and OK, where
 * one of both is missing. aupro[i] and auspro[i] go up to limits[i], a false positive rate in (0, 1], and are divided
 * by it, so that 1 is perfect; auspro may be NULL, and is NaN without channels. USAGE: another limit, or no such
 * group. */
ONCEOVER_API onceover_status onceover_segmentation_metrics_compute(onceover_segmentation_metrics* metrics,
                                                                   const double* limits, size_t limit_count,
                                                                   int32_t group, onceover_metric* aupro,
                                                                   onceover_metric* auspro,
                                                                   onceover_segmentation_result* result);

/* All vertices of the PRO, saturated PRO, ROC and precision-recall curves, thresholds descending from +infinity, each
 * for `score >= threshold`; linear between vertices, but for precision, which steps. Arrays of `capacity`, of which
 * `count` are written; any may be NULL. At most 2 · anomalous pixels + 2; none where a class is missing. */
ONCEOVER_API onceover_status onceover_segmentation_metrics_curve(onceover_segmentation_metrics* metrics, int32_t group,
                                                                 size_t capacity, size_t* count, float* thresholds,
                                                                 double* fpr, double* pro, double* spro, double* tpr,
                                                                 double* precision);

/* Everything gathered, as `size` bytes with a checksum that any machine can load; equal contents give equal bytes while
 * no bits were dropped. `buffer` has `capacity` bytes; if it is NULL, that asks for the size, too. */
ONCEOVER_API onceover_status onceover_segmentation_metrics_save(onceover_segmentation_metrics* metrics, void* buffer,
                                                                size_t capacity, size_t* size);

/* INPUT: the bytes are damaged, or something else. UNSUPPORTED: of another version. */
ONCEOVER_API onceover_status onceover_segmentation_metrics_load(const void* bytes, size_t size,
                                                                onceover_segmentation_metrics** metrics);

/* NULL is allowed. */
ONCEOVER_API void onceover_segmentation_metrics_free(onceover_segmentation_metrics* metrics);

/* ---- Connected components of a mask, without a label image. ---- */

/* Pixels [first, end) of one row, all of one region. */
typedef struct onceover_run {
  uint32_t row, first, end, region;
} onceover_run;

typedef struct onceover_box {
  uint32_t top, left, bottom, right; /* bottom and right exclusive */
} onceover_box;

/* The regions of a mask (height, width), not 0 where there is one, numbered in the row-major order of their first
 * pixels: their runs in row-major order, at most height · ⌈width / 2⌉, their areas in pixels and their boxes. `runs`
 * has run_capacity elements, `areas` and `boxes` have region_capacity; each may be NULL. `connectivity` is 8 or 4, or
 * 0, which is 8. INPUT: 2^32 pixels or more. */
ONCEOVER_API onceover_status onceover_connected_components(const uint8_t* mask, ptrdiff_t stride_bytes, size_t height,
                                                           size_t width, int32_t connectivity, size_t run_capacity,
                                                           size_t* run_count, onceover_run* runs,
                                                           size_t region_capacity, size_t* region_count,
                                                           uint32_t* areas, onceover_box* boxes);

#ifdef __cplusplus
}
#endif
#endif
