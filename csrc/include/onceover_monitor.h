/* onceover: has the line drifted? A monitor takes the result of every inspected part, and says when scores, p-values,
 * light, focus or the share of rejected parts are no longer what they were. A few kilobytes, none allocated after
 * create. The C ABI (C99), beside onceover.h; docs/monitoring.md says what each chart sees. A whole program:
 *
 *   #include <stdio.h>
 *
 *   #include "onceover_monitor.h"
 *
 *   int main(void) {
 *     onceover_monitor* monitor = NULL;
 *     onceover_monitor_options options = {.struct_size = sizeof options, .average_run_length = 5000};
 *     onceover_status status = onceover_monitor_create(NULL, &options, &monitor);  // NULL: your onceover_package
 *     uint32_t alarms = 0, part = 0;
 *     while (status == ONCEOVER_OK && alarms == 0 && part < 1000) {
 *       onceover_result result = {.struct_size = sizeof result};  // of onceover_session_run
 *       onceover_image_statistics image = {.struct_size = sizeof image};  // of onceover_measure_image
 *       result.verdict = ONCEOVER_NORMAL;
 *       result.score = (float)(part % 7);
 *       result.p_value = 1;
 *       image.brightness = (part < 500 ? 0.5f : 0.45f) + 0.001f * (float)(part % 11);  // the lamp got dimmer
 *       image.sharpness = 0.1f + 0.001f * (float)(part % 5);
 *       status = onceover_monitor_update(monitor, &result, &image, &alarms);
 *       ++part;
 *     }
 *     if (status != ONCEOVER_OK) fprintf(stderr, "%s\n", onceover_last_error());
 *     if ((alarms >> ONCEOVER_CHART_BRIGHTNESS) & 1) printf("part %u: look at the light\n", (unsigned)part);
 *     onceover_monitor_free(monitor);
 *     return status == ONCEOVER_OK ? 0 : 1;
 *   }
 *
 * For every function the rules of onceover.h hold, and: one monitor is for one thread at a time. */
#ifndef ONCEOVER_MONITOR_H
#define ONCEOVER_MONITOR_H

#include "onceover.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct onceover_monitor onceover_monitor;

/* Each a bit of `alarms`, 1 << chart, and a place in `charts`. */
typedef enum onceover_chart {
  ONCEOVER_CHART_SCORE_EWMA = 0,  /* score of accepted parts: small shifts, slow drift */
  ONCEOVER_CHART_SCORE_CUSUM = 1, /* the same: shifts of a standard deviation */
  ONCEOVER_CHART_P_VALUES = 2,    /* accepted parts against the calibration parts; none without calibration */
  ONCEOVER_CHART_BRIGHTNESS = 3,  /* of every image */
  ONCEOVER_CHART_SHARPNESS = 4,
  ONCEOVER_CHART_REJECTED = 5 /* rejected parts of each batch */
} onceover_chart;

#define ONCEOVER_CHARTS 6

typedef struct onceover_monitor_options {
  uint32_t struct_size;
  uint32_t batch;            /* parts per point of the chart of rejected parts, 10 to 10000; 0: 100 */
  double average_run_length; /* parts between false alarms of all charts together, 100 to 1e6; 0: 10000 */
  double reject_rate;        /* share of rejected parts when all is well, below 1; 0: learned from the batches */
} onceover_monitor_options;

typedef struct onceover_image_statistics {
  uint32_t struct_size;
  float brightness; /* mean luma, 0 … 1; NaN given to a monitor: not measured */
  float sharpness;  /* standard deviation of the Laplacian of the luma over its mean; NaN as above */
} onceover_image_statistics;

typedef struct onceover_chart_state { /* An element of arrays, so it never grows */
  uint64_t parts;                     /* that this chart has taken */
  uint64_t alarm_part;                /* the first one beyond a limit, counted over all parts from 1; 0: none */
  double value;                       /* NaN: none yet */
  double lower, upper;                /* limits of `value`; NaN: none on this side */
} onceover_chart_state;

typedef struct onceover_monitor_info {
  uint32_t struct_size;
  uint32_t alarms;        /* 1 << chart of all that are in alarm */
  uint64_t parts;         /* all that were taken */
  size_t state_bytes;     /* of save */
  uint8_t package_id[32]; /* zero: created without a package */
} onceover_monitor_info;

/* `package` may be NULL, and then there is no chart of p-values; it is read during the call. `options` may be NULL.
 * USAGE: an option out of range. */
ONCEOVER_API onceover_status onceover_monitor_create(const onceover_package* package,
                                                     const onceover_monitor_options* options,
                                                     onceover_monitor** monitor);

/* Brightness and sharpness of an image, from at most 128 x 128 places of it: a fraction of a millisecond, the same for
 * every size. Of a ROI, if there is one. INPUT: as in onceover_session_run. */
ONCEOVER_API onceover_status onceover_measure_image(const onceover_image* image, onceover_image_statistics* statistics);

/* Takes the result of one part, and statistics of its image (NULL: not measured). Call it once per part, in order;
 * a repeated image is not a new part, and of several images of one part the highest score counts. `alarms` gets 1 <<
 * chart of those whose alarm begins now; an alarm lasts until restart. INPUT: a score or statistic that is not finite,
 * or a p-value that the package cannot give. */
ONCEOVER_API onceover_status onceover_monitor_update(onceover_monitor* monitor, const onceover_result* result,
                                                     const onceover_image_statistics* statistics, uint32_t* alarms);

/* `info` and `charts`, of ONCEOVER_CHARTS elements, may be NULL. */
ONCEOVER_API onceover_status onceover_monitor_describe(const onceover_monitor* monitor, onceover_monitor_info* info,
                                                       onceover_chart_state* charts);

/* Ends all alarms. keep_baseline 1: the line is again what it was (the lens is clean); 0: it is another for good (a new
 * lamp), and the next parts are what others are compared with. */
ONCEOVER_API onceover_status onceover_monitor_restart(onceover_monitor* monitor, int32_t keep_baseline);

/* Everything, as info.state_bytes bytes that any machine can load; on the same one they go on with the same bits. Write
 * them to a second file and rename it, so that a power cut leaves one of both. `buffer` may be NULL, and then only
 * `size` is written. USAGE: `capacity` is too small. */
ONCEOVER_API onceover_status onceover_monitor_save(const onceover_monitor* monitor, void* buffer, size_t capacity,
                                                   size_t* size);

/* INPUT: the bytes are damaged, or of another package than `package` (NULL: any). UNSUPPORTED: of another version. */
ONCEOVER_API onceover_status onceover_monitor_load(const onceover_package* package, const void* bytes, size_t size,
                                                   onceover_monitor** monitor);

/* NULL is allowed. */
ONCEOVER_API void onceover_monitor_free(onceover_monitor* monitor);

#ifdef __cplusplus
}
#endif
#endif
