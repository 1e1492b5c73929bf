/* The pixel metrics in C: values worked out by hand on maps of a few pixels, merging, saving, what is refused and in
 * which words. That they are right on real sizes: test_metrics.cpp, and test_cpp_api_metrics.cpp for the way there. */
#include <math.h>
#include <stddef.h>

#include "c_api_check.h"
#include "onceover_metrics.h"

typedef onceover_segmentation_metrics handle;

#define CREATE onceover_segmentation_metrics_create
#define UPDATE onceover_segmentation_metrics_update
#define CHANNELS onceover_segmentation_metrics_update_channels
#define MERGE onceover_segmentation_metrics_merge
#define COMPUTE onceover_segmentation_metrics_compute
#define CURVE onceover_segmentation_metrics_curve
#define SAVE onceover_segmentation_metrics_save
#define LOAD onceover_segmentation_metrics_load
#define FREE onceover_segmentation_metrics_free

/* Float64 sums over exact counts: 1e-12, as in tests/tolerances.py. */
static int near(double value, double expected) { return fabs(value - expected) <= 1e-12; }
static int is(onceover_metric metric, double expected) {
  return near(metric.value, expected) && metric.lower == metric.value && metric.upper == metric.value;
}

static handle* created(void) {
  handle* metrics = NULL;
  CHECK(CREATE(NULL, &metrics) == ONCEOVER_OK && metrics != NULL);
  if (metrics == NULL) exit(2);
  return metrics;
}

static onceover_segmentation_result result_of(handle* metrics, int32_t group) {
  onceover_segmentation_result result = {.struct_size = sizeof result};
  CHECK(COMPUTE(metrics, NULL, 0, group, NULL, NULL, &result) == ONCEOVER_OK && result.struct_size == sizeof result);
  return result;
}

static unsigned char* saved(handle* metrics, size_t* size) {
  CHECK(SAVE(metrics, NULL, 0, size) == ONCEOVER_OK && *size > 0);
  unsigned char* bytes = allocate(*size, 1);
  size_t written = 0;
  CHECK(SAVE(metrics, bytes, *size, &written) == ONCEOVER_OK && written == *size);
  return bytes;
}

static int same_contents(handle* a, handle* b) {
  size_t a_size = 0, b_size = 0;
  unsigned char *a_bytes = saved(a, &a_size), *b_bytes = saved(b, &b_size);
  const int same = a_size == b_size && memcmp(a_bytes, b_bytes, a_size) == 0;
  free(a_bytes);
  free(b_bytes);
  return same;
}

/* ---- Two images: regions {9, 8} and {7}; normal scores 7.5 4 4 3 2 1 1 0 0 0. ---- */

static const float bad_map[2][4] = {{9, 1, 2, 3}, {8, 1, 7, 0}};
static const uint8_t bad_mask[2][4] = {{1, 0, 0, 0}, {255, 0, 2, 0}};
static const float good_map[5] = {7.5f, 4, 4, 0, 0};

static void take_bad(handle* metrics, int32_t group) {
  CHECK(UPDATE(metrics, bad_map, 16, ONCEOVER_FLOAT32, bad_mask[0], 4, 2, 4, group) == ONCEOVER_OK);
}
static void take_good(handle* metrics) {
  CHECK(UPDATE(metrics, good_map, 20, ONCEOVER_FLOAT32, NULL, 0, 1, 5, 0) == ONCEOVER_OK);
}

/* Thresholds 9, 8, 7.5, 7: PRO 1/4, 1/2, 1/2, 1 at FPR 0, 0, 1/10, 1/10, then flat. */
static void check_two_images(handle* metrics) {
  const double limits[] = {0.3, 0.05, 1, 0.3};
  onceover_metric aupro[4], auspro[4];
  onceover_segmentation_result result = {.struct_size = sizeof result};
  CHECK(COMPUTE(metrics, limits, 4, ONCEOVER_ALL_GROUPS, aupro, auspro, &result) == ONCEOVER_OK);
  CHECK(is(aupro[0], (0.1 * 0.5 + 0.2) / 0.3) && is(aupro[1], 0.5) && is(aupro[2], 0.1 * 0.5 + 0.9));
  CHECK(aupro[3].value == aupro[0].value);
  for (size_t i = 0; i < 4; ++i) CHECK(isnan(auspro[i].value) && isnan(auspro[i].lower) && isnan(auspro[i].upper));
  CHECK(is(result.pixel_auroc, 29.0 / 30));               /* 7 loses to 7.5, all other pairs are won */
  CHECK(is(result.average_precision, 2.0 / 3 + 1.0 / 4)); /* precision 1, 1, 3/4 */
  CHECK(is(result.f1_max, 6.0 / 7) && result.f1_max_threshold == 7);
  CHECK(result.images == 2 && result.groups == 1 && result.regions == 2 && result.channels == 0);
  CHECK(result.anomalous_pixels == 3 && result.normal_pixels == 10 && result.dropped_key_bits == 0);
  CHECK(result.state_bytes > 3 * sizeof(uint64_t));
}

static void metrics_and_curves_are_those_worked_out_by_hand(void) {
  handle* metrics = created();
  take_bad(metrics, 0);
  take_good(metrics);
  check_two_images(metrics);

  const float thresholds[] = {INFINITY, 9, 8, nextafterf(7, 8), 7, -INFINITY};
  const double expected[5][6] = {{0, 0, 0, 0.1, 0.1, 1},               /* FPR */
                                 {0, 0.25, 0.5, 0.5, 1, 1},            /* PRO */
                                 {0, 0, 0, 0, 0, 0},                   /* saturated PRO: there are no channels */
                                 {0, 1.0 / 3, 2.0 / 3, 2.0 / 3, 1, 1}, /* TPR */
                                 {1, 1, 1, 2.0 / 3, 0.75, 3.0 / 13}};  /* precision */
  float scores[8];
  double curves[5][8];
  size_t count = 99;
  curves[0][6] = -5;
  CHECK(CURVE(metrics, -1, 0, &count, scores, curves[0], NULL, NULL, NULL, NULL) == ONCEOVER_OK && count == 6);
  CHECK(CURVE(metrics, 0, 8, &count, scores, curves[0], curves[1], curves[2], curves[3], curves[4]) == ONCEOVER_OK);
  CHECK(count == 6 && curves[0][6] == -5);
  CHECK(memcmp(scores, thresholds, sizeof thresholds) == 0);
  for (size_t i = 0; i < 30; ++i) CHECK(near(curves[i / 6][i % 6], expected[i / 6][i % 6]));
  count = 99;
  CHECK(CURVE(metrics, -1, 6, &count, NULL, NULL, NULL, NULL, NULL, NULL) == ONCEOVER_OK && count == 6);
  FREE(metrics);
}

static void a_tie_between_the_classes_counts_half(void) {
  const float map[] = {1, 1};
  const uint8_t mask[] = {1, 0};
  const double limit = 0.5;
  onceover_metric aupro;
  onceover_segmentation_result result = {.struct_size = sizeof result};
  handle* metrics = created();
  CHECK(UPDATE(metrics, map, 8, ONCEOVER_FLOAT32, mask, 2, 1, 2, 0) == ONCEOVER_OK);
  CHECK(COMPUTE(metrics, &limit, 1, 0, &aupro, NULL, &result) == ONCEOVER_OK);
  CHECK(is(aupro, 0.25) && is(result.pixel_auroc, 0.5)); /* the diagonal up to 1/2, divided by it */
  FREE(metrics);
}

/* Normal: 2.5. Channel a = {4, 3} saturates at one pixel, channel b = {3, 2} at both; their union is one region. */
static void channels_saturate(void) {
  const float map[] = {4, 3, 2, 2.5f};
  const uint8_t a[] = {1, 1, 0, 0}, b[] = {0, 1, 1, 0};
  const uint8_t* const masks[] = {a, b};
  const uint32_t areas[] = {1, 2}, none[] = {1, 0}, many[] = {3, 2};
  const double limit = 1;
  onceover_metric aupro, auspro;
  onceover_segmentation_result result = {.struct_size = sizeof result};
  handle* metrics = created();
  CHECK(CHANNELS(metrics, map, 16, ONCEOVER_FLOAT32, masks, 4, areas, 2, 1, 4, 3) == ONCEOVER_OK);
  CHECK(COMPUTE(metrics, &limit, 1, 3, &aupro, &auspro, &result) == ONCEOVER_OK);
  CHECK(is(auspro, 0.75) && is(aupro, 2.0 / 3)); /* at 3: (1 + 1/2) / 2 and 2/3 of the region, up to an FPR of 1 */
  CHECK(result.channels == 2 && result.regions == 1 && result.anomalous_pixels == 3 && result.groups == 4);

  CHECK_FAILS(CHANNELS(metrics, map, 16, ONCEOVER_FLOAT32, masks, 4, none, 2, 1, 4, 0), ONCEOVER_INPUT,
              "image 1: saturation area 0 of channel 1, which has 2 pixels");
  CHECK_FAILS(CHANNELS(metrics, map, 16, ONCEOVER_FLOAT32, masks, 4, many, 2, 1, 4, 0), ONCEOVER_INPUT, "area 3");
  CHECK_FAILS(CHANNELS(metrics, map, 16, ONCEOVER_FLOAT32, NULL, 4, areas, 2, 1, 4, 0), ONCEOVER_USAGE,
              "masks is NULL");
  CHECK_FAILS(CHANNELS(metrics, map, 16, ONCEOVER_FLOAT32, masks, 4, NULL, 2, 1, 4, 0), ONCEOVER_USAGE,
              "saturation_areas is NULL");
  const uint8_t* const holes[] = {a, NULL};
  CHECK_FAILS(CHANNELS(metrics, map, 16, ONCEOVER_FLOAT32, holes, 4, areas, 2, 1, 4, 0), ONCEOVER_USAGE,
              "masks[1] of 2 is NULL");
  CHECK(result_of(metrics, -1).images == 1);
  CHECK(CHANNELS(metrics, map, 16, ONCEOVER_FLOAT32, NULL, 0, NULL, 0, 1, 4, 0) == ONCEOVER_OK); /* a good image */
  CHECK(result_of(metrics, -1).normal_pixels == 5);
  FREE(metrics);
}

static void every_kind_of_score_counts_with_its_value(void) {
  const uint16_t halves[] = {0x3c00, 0x4000, 0x4200}, nan_half[] = {0x3c00, 0x7e00}; /* 1 2 3, 1 NaN */
  const uint16_t words[] = {1, 2, 3};
  const uint8_t bytes[] = {1, 2, 3}, mask[] = {0, 1, 0};
  const float floats[] = {1, 2, 3};
  const void* const maps[] = {floats, halves, bytes, words};
  const onceover_score_type types[] = {ONCEOVER_FLOAT32, ONCEOVER_FLOAT16, ONCEOVER_UINT8, ONCEOVER_UINT16};
  handle* metrics = created();
  for (size_t i = 0; i < 4; ++i) CHECK(UPDATE(metrics, maps[i], 12, types[i], mask, 3, 1, 3, 0) == ONCEOVER_OK);
  const onceover_segmentation_result result = result_of(metrics, 0);
  CHECK(is(result.pixel_auroc, 0.5) && result.f1_max_threshold == 2 && result.normal_pixels == 8);
  CHECK_FAILS(UPDATE(metrics, nan_half, 4, ONCEOVER_FLOAT16, NULL, 0, 1, 2, 0), ONCEOVER_INPUT,
              "image 4: 1 of 2 scores are NaN");
  FREE(metrics);
}

static void strides_may_be_long_or_negative(void) {
  const float padded[2][6] = {{8, 1, 7, 0, NAN, NAN}, {9, 1, 2, 3, NAN, NAN}}; /* bad_map, its last row first */
  const uint8_t mask[2][5] = {{1, 0, 1, 0, 1}, {1, 0, 0, 0, 1}};
  handle *metrics = created(), *straight = created();
  CHECK(UPDATE(metrics, padded[1], -24, ONCEOVER_FLOAT32, mask[1], -5, 2, 4, 0) == ONCEOVER_OK);
  take_bad(straight, 0);
  CHECK(same_contents(metrics, straight));
  take_good(metrics);
  check_two_images(metrics);
  FREE(metrics);
  FREE(straight);
}

static void merging_is_taking_all_at_once_and_groups_keep_their_numbers(void) {
  handle *first = created(), *second = created(), *all = created();
  take_bad(first, 0);
  take_good(second);
  CHECK(MERGE(first, second) == ONCEOVER_OK);
  check_two_images(first);
  CHECK(result_of(second, ONCEOVER_ALL_GROUPS).images == 1); /* as it was */
  take_bad(second, 2);
  CHECK(MERGE(first, second) == ONCEOVER_OK && MERGE(first, first) == ONCEOVER_OK);
  for (size_t i = 0; i < 2; ++i) {
    take_bad(all, 0);
    take_bad(all, 2);
    take_good(all);
    take_good(all);
  }
  CHECK(same_contents(first, all));
  const onceover_segmentation_result group = result_of(first, 2), empty = result_of(first, 1);
  CHECK(group.regions == 4 && group.anomalous_pixels == 6 && group.groups == 3 && group.images == 8);
  CHECK(empty.regions == 0 && isnan(empty.pixel_auroc.value));
  FREE(second);

  const onceover_segmentation_options four = {.struct_size = sizeof four, .connectivity = 4};
  CHECK(CREATE(&four, &second) == ONCEOVER_OK);
  CHECK_FAILS(MERGE(first, second), ONCEOVER_USAGE, "8-connected regions, the other with 4-connected ones");
  CHECK_FAILS(MERGE(first, NULL), ONCEOVER_USAGE, "from is NULL");
  CHECK_FAILS(MERGE(NULL, first), ONCEOVER_USAGE, "metrics is NULL");
  CHECK(same_contents(first, all));
  FREE(first);
  FREE(second);
  FREE(all);
}

static void a_missing_class_is_no_failure(void) {
  const double limit = 0.3;
  onceover_metric aupro, auspro;
  size_t count = 99;
  onceover_segmentation_result result = {.struct_size = sizeof result};
  handle* metrics = created();
  for (int round = 0; round < 2; ++round) { /* nothing at all, then good images only */
    CHECK(COMPUTE(metrics, &limit, 1, -1, &aupro, &auspro, &result) == ONCEOVER_OK);
    CHECK(isnan(aupro.value) && isnan(auspro.value) && isnan(result.pixel_auroc.value));
    CHECK(isnan(result.average_precision.upper) && isnan(result.f1_max.lower) && isnan(result.f1_max_threshold));
    CHECK(result.images == (uint64_t)round);
    CHECK(CURVE(metrics, -1, 0, &count, NULL, NULL, NULL, NULL, NULL, NULL) == ONCEOVER_OK && count == 0);
    take_good(metrics);
  }
  FREE(metrics);
}

/* 3,000,000 normal scores do not fit into 4 MiB; the anomalous one, 0.5, is above about half of them. */
static void a_budget_gives_bounds_that_hold_the_exact_value(void) {
  const size_t count = 3000000;
  const onceover_segmentation_options options = {.struct_size = sizeof options, .page_budget_bytes = (size_t)4 << 20};
  const double limit = 0.7;
  onceover_metric aupro[2];
  onceover_segmentation_result result[2] = {{.struct_size = sizeof *result}, {.struct_size = sizeof *result}};
  handle* metrics[2] = {created(), NULL};
  float* map = allocate(count, sizeof *map);
  uint8_t* mask = allocate(count, 1);
  for (size_t i = 0; i < count; ++i) map[i] = (float)(i * 7919 % count) / (float)count;
  map[5] = 0.5f;
  mask[5] = 1;
  CHECK(CREATE(&options, &metrics[1]) == ONCEOVER_OK);
  for (size_t i = 0; i < 2; ++i) {
    CHECK(UPDATE(metrics[i], map, 4 * (ptrdiff_t)count, ONCEOVER_FLOAT32, mask, (ptrdiff_t)count, 1, count, 0) ==
          ONCEOVER_OK);
    CHECK(COMPUTE(metrics[i], &limit, 1, 0, &aupro[i], NULL, &result[i]) == ONCEOVER_OK);
  }
#define WITHIN(exact, bounded) ((bounded).lower <= (exact).value && (exact).value <= (bounded).upper)
  CHECK(result[0].dropped_key_bits == 0 && result[1].dropped_key_bits > 0);
  CHECK(WITHIN(aupro[0], aupro[1]) && aupro[1].lower < aupro[1].upper);
  CHECK(WITHIN(result[0].pixel_auroc, result[1].pixel_auroc));
  CHECK(result[1].pixel_auroc.lower < result[1].pixel_auroc.upper);
  CHECK(WITHIN(result[0].average_precision, result[1].average_precision));
  CHECK(WITHIN(result[0].f1_max, result[1].f1_max));
  CHECK(result[1].state_bytes < result[0].state_bytes + (1u << 20));
#undef WITHIN
  FREE(metrics[0]);
  FREE(metrics[1]);
  free(map);
  free(mask);
}

static void what_is_saved_is_loaded_and_damage_is_refused(void) {
  handle *metrics = created(), *loaded = NULL;
  size_t size = 0, untouched = 42;
  take_bad(metrics, 1);
  take_good(metrics);
  unsigned char* bytes = saved(metrics, &size);
  CHECK(LOAD(bytes, size, &loaded) == ONCEOVER_OK && same_contents(metrics, loaded));
  CHECK(result_of(loaded, 1).pixel_auroc.value == result_of(metrics, 1).pixel_auroc.value);
  take_good(loaded);
  CHECK(result_of(loaded, 1).images == 3 && result_of(metrics, 1).images == 2);
  FREE(loaded);

  CHECK_FAILS(SAVE(metrics, bytes, size - 1, &untouched), ONCEOVER_USAGE, "capacity is");
  CHECK_FAILS(SAVE(metrics, bytes, size, NULL), ONCEOVER_USAGE, "size is NULL");
  CHECK_FAILS(SAVE(NULL, bytes, size, &untouched), ONCEOVER_USAGE, "metrics is NULL");
  CHECK(untouched == 42);
  for (size_t cut = 0; cut < size; ++cut) {
    loaded = metrics;
    CHECK_FAILS(LOAD(bytes, cut, &loaded), ONCEOVER_INPUT, "no intact segmentation metrics");
    CHECK(loaded == NULL);
  }
  bytes[size / 2] ^= 1;
  CHECK_FAILS(LOAD(bytes, size, &loaded), ONCEOVER_INPUT, "the checksum differs");
  ++bytes[8];
  CHECK_FAILS(LOAD(bytes, size, &loaded), ONCEOVER_UNSUPPORTED, "version 2; this onceover reads version 1");
  CHECK_FAILS(LOAD(NULL, size, &loaded), ONCEOVER_USAGE, "bytes is NULL");
  CHECK_FAILS(LOAD(NULL, 0, &loaded), ONCEOVER_INPUT, "ends too early");
  CHECK_FAILS(LOAD(bytes, size, NULL), ONCEOVER_USAGE, "metrics is NULL");
  FREE(metrics);
  FREE(NULL);
  free(bytes);
}

static void components_are_runs_with_areas_and_boxes(void) {
  const uint8_t mask[3][5] = {{1, 1, 0, 0, 9}, {0, 0, 1, 0, 0}, {0, 0, 0, 0, 3}};
  const onceover_run joined[] = {{0, 0, 2, 0}, {0, 4, 5, 1}, {1, 2, 3, 0}, {2, 4, 5, 2}};
  const onceover_box boxes[] = {{0, 0, 2, 3}, {0, 4, 1, 5}, {2, 4, 3, 5}};
  onceover_run runs[8];
  onceover_box found[8];
  uint32_t areas[8];
  size_t run_count = 99, region_count = 99;
#define COMPONENTS onceover_connected_components
  CHECK(COMPONENTS(mask[0], 5, 3, 5, 0, 0, &run_count, runs, 0, &region_count, areas, found) == ONCEOVER_OK);
  CHECK(run_count == 4 && region_count == 3); /* 8-connected: the diagonal step joins */
  CHECK(COMPONENTS(mask[0], 5, 3, 5, 8, 4, &run_count, runs, 3, &region_count, areas, found) == ONCEOVER_OK);
  CHECK(memcmp(runs, joined, sizeof joined) == 0 && memcmp(found, boxes, sizeof boxes) == 0);
  CHECK(areas[0] == 3 && areas[1] == 1 && areas[2] == 1);
  CHECK(COMPONENTS(mask[2], -5, 3, 5, 4, 8, &run_count, NULL, 8, &region_count, areas, NULL) == ONCEOVER_OK);
  CHECK(run_count == 4 && region_count == 4 && areas[1] == 1 && areas[2] == 2); /* upside down, {1, 1} comes third */
  CHECK(COMPONENTS(NULL, 0, 0, 5, 8, 8, &run_count, runs, 8, &region_count, areas, found) == ONCEOVER_OK);
  CHECK(run_count == 0 && region_count == 0);

  CHECK_FAILS(COMPONENTS(mask[0], 5, 3, 5, 8, 3, &run_count, runs, 3, &region_count, areas, found), ONCEOVER_USAGE,
              "run_capacity is 3, expected at least the 4 runs");
  CHECK_FAILS(COMPONENTS(mask[0], 5, 3, 5, 8, 4, &run_count, runs, 2, &region_count, areas, found), ONCEOVER_USAGE,
              "region_capacity is 2, expected at least the 3 regions");
  CHECK_FAILS(COMPONENTS(mask[0], 5, 3, 5, 6, 4, &run_count, runs, 3, &region_count, areas, found), ONCEOVER_USAGE,
              "connectivity is 6");
  CHECK_FAILS(COMPONENTS(mask[0], -4, 3, 5, 8, 4, &run_count, runs, 3, &region_count, areas, found), ONCEOVER_USAGE,
              "stride_bytes is -4");
  CHECK_FAILS(COMPONENTS(NULL, 5, 3, 5, 8, 4, &run_count, runs, 3, &region_count, areas, found), ONCEOVER_USAGE,
              "mask is NULL");
  CHECK_FAILS(COMPONENTS(mask[0], 5, 3, 5, 8, 4, NULL, runs, 3, &region_count, areas, found), ONCEOVER_USAGE,
              "run_count is NULL");
  CHECK_FAILS(COMPONENTS(mask[0], 5, 3, 5, 8, 4, &run_count, runs, 3, NULL, areas, found), ONCEOVER_USAGE,
              "region_count is NULL");
  CHECK(run_count == 0 && region_count == 0);
#undef COMPONENTS
}

int main(void) {
  metrics_and_curves_are_those_worked_out_by_hand();
  a_tie_between_the_classes_counts_half();
  channels_saturate();
  every_kind_of_score_counts_with_its_value();
  strides_may_be_long_or_negative();
  merging_is_taking_all_at_once_and_groups_keep_their_numbers();
  a_missing_class_is_no_failure();
  a_budget_gives_bounds_that_hold_the_exact_value();
  what_is_saved_is_loaded_and_damage_is_refused();
  components_are_runs_with_areas_and_boxes();
  return summary("test_c_api_metrics");
}
