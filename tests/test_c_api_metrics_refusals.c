/* The pixel metrics in C: what is refused and in which words, options, and structs of another version's size. */
#include <math.h>
#include <stddef.h>

#include "c_api_check.h"
#include "onceover_metrics.h"

#define CREATE onceover_segmentation_metrics_create
#define UPDATE onceover_segmentation_metrics_update
#define COMPUTE onceover_segmentation_metrics_compute
#define CURVE onceover_segmentation_metrics_curve

static const float map[2][3] = {{3, 1, 2}, {0, 0, 1}};
static const uint8_t mask[2][3] = {{1, 0, 0}, {0, 0, 0}};

/* With one image. */
static onceover_segmentation_metrics* gathered(void) {
  onceover_segmentation_metrics* metrics = NULL;
  CHECK(CREATE(NULL, &metrics) == ONCEOVER_OK && metrics != NULL);
  if (metrics == NULL) exit(2);
  CHECK(UPDATE(metrics, map, 12, ONCEOVER_FLOAT32, mask[0], 3, 2, 3, 0) == ONCEOVER_OK);
  return metrics;
}

static void images_that_make_no_sense_are_refused_and_change_nothing(void) {
  const float nans[2][3] = {{NAN, 1, 2}, {0, -NAN, INFINITY}};
  onceover_segmentation_metrics* metrics = gathered();
  onceover_segmentation_result before = {.struct_size = sizeof before}, after = before;
  CHECK(COMPUTE(metrics, NULL, 0, 0, NULL, NULL, &before) == ONCEOVER_OK);
  CHECK_FAILS(UPDATE(NULL, map, 12, ONCEOVER_FLOAT32, mask[0], 3, 2, 3, 0), ONCEOVER_USAGE, "metrics is NULL");
  CHECK_FAILS(UPDATE(metrics, NULL, 12, ONCEOVER_FLOAT32, mask[0], 3, 2, 3, 0), ONCEOVER_USAGE, "map is NULL");
  CHECK(strstr(onceover_last_error(), "onceover_segmentation_metrics_update: ") == onceover_last_error());
  CHECK_FAILS(UPDATE(metrics, map, 12, 4, mask[0], 3, 2, 3, 0), ONCEOVER_USAGE, "score_type is 4, expected 0 to 3");
  CHECK_FAILS(UPDATE(metrics, map, 3, ONCEOVER_FLOAT32, mask[0], 3, 2, 3, 0), ONCEOVER_USAGE,
              "map_stride_bytes is 3, expected at least the 3 pixels of a row of 4 bytes each");
  CHECK_FAILS(UPDATE(metrics, map, -8, ONCEOVER_FLOAT32, mask[0], 3, 2, 3, 0), ONCEOVER_USAGE, "stride_bytes is -8");
  CHECK_FAILS(UPDATE(metrics, map, 12, ONCEOVER_FLOAT32, mask[0], 2, 2, 3, 0), ONCEOVER_USAGE,
              "mask_stride_bytes is 2, expected at least the 3 pixels");
  CHECK_FAILS(UPDATE(metrics, map, PTRDIFF_MIN, ONCEOVER_FLOAT32, mask[0], 3, 2, SIZE_MAX, 0), ONCEOVER_USAGE,
              "map_stride_bytes");
  CHECK_FAILS(UPDATE(metrics, map, 14, ONCEOVER_FLOAT32, mask[0], 3, 2, 3, 0), ONCEOVER_USAGE,
              "stride of 14 bytes, expected multiples of 4");
  CHECK_FAILS(UPDATE(metrics, (const char*)map + 2, 12, ONCEOVER_FLOAT32, NULL, 0, 1, 3, 0), ONCEOVER_USAGE,
              "multiples of 4");
  CHECK_FAILS(UPDATE(metrics, map, 12, ONCEOVER_FLOAT32, mask[0], 3, 2, 3, ONCEOVER_ALL_GROUPS), ONCEOVER_USAGE,
              "group is -1, expected 0 to 65535");
  CHECK_FAILS(UPDATE(metrics, map, 12, ONCEOVER_FLOAT32, mask[0], 3, 2, 3, 65536), ONCEOVER_USAGE, "group 65536");
  CHECK_FAILS(UPDATE(metrics, map, 12, ONCEOVER_FLOAT32, mask[0], 3, 0, 3, 0), ONCEOVER_INPUT, "no pixels");
  CHECK_FAILS(UPDATE(metrics, map, 12, ONCEOVER_FLOAT32, mask[0], 3, 2, 0, 0), ONCEOVER_INPUT, "no pixels");
  CHECK_FAILS(UPDATE(metrics, nans, 12, ONCEOVER_FLOAT32, mask[0], 3, 2, 3, 7), ONCEOVER_INPUT,
              "image 1: 2 of 6 scores are NaN");
  CHECK(COMPUTE(metrics, NULL, 0, 0, NULL, NULL, &after) == ONCEOVER_OK);
  CHECK(after.images == 1 && after.groups == 1 && after.normal_pixels == 5 && after.anomalous_pixels == 1);
  CHECK(after.pixel_auroc.value == before.pixel_auroc.value);
  onceover_segmentation_metrics_free(metrics);
}

static void what_cannot_be_computed_is_refused_and_nothing_is_written(void) {
  const double limits[] = {0.3, 1.5}, zero = 0, nan = NAN;
  onceover_metric aupro[2] = {{-7, -7, -7}, {-7, -7, -7}};
  onceover_segmentation_result result = {.struct_size = sizeof result, .images = 77};
  size_t count = 77;
  float threshold = -7;
  onceover_segmentation_metrics* metrics = gathered();
  CHECK_FAILS(COMPUTE(NULL, limits, 1, 0, aupro, NULL, &result), ONCEOVER_USAGE, "metrics is NULL");
  CHECK_FAILS(COMPUTE(metrics, NULL, 1, 0, aupro, NULL, &result), ONCEOVER_USAGE, "limits is NULL");
  CHECK_FAILS(COMPUTE(metrics, limits, 1, 0, NULL, NULL, &result), ONCEOVER_USAGE, "aupro is NULL");
  CHECK_FAILS(COMPUTE(metrics, limits, 1, 0, aupro, NULL, NULL), ONCEOVER_USAGE, "result is NULL");
  CHECK_FAILS(COMPUTE(metrics, limits, 2, 0, aupro, NULL, &result), ONCEOVER_USAGE, "fpr_limit is 1.5");
  CHECK_FAILS(COMPUTE(metrics, &zero, 1, 0, aupro, NULL, &result), ONCEOVER_USAGE, "fpr_limit is 0");
  CHECK_FAILS(COMPUTE(metrics, &nan, 1, 0, aupro, NULL, &result), ONCEOVER_USAGE, "(0, 1]");
  CHECK_FAILS(COMPUTE(metrics, limits, 1, 1, aupro, NULL, &result), ONCEOVER_USAGE, "group 1 of 1");
  CHECK_FAILS(COMPUTE(metrics, limits, 1, -2, aupro, NULL, &result), ONCEOVER_USAGE, "group -2 of 1");
  CHECK_FAILS(CURVE(NULL, 0, 0, &count, NULL, NULL, NULL, NULL, NULL, NULL), ONCEOVER_USAGE, "metrics is NULL");
  CHECK_FAILS(CURVE(metrics, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL), ONCEOVER_USAGE, "count is NULL");
  CHECK_FAILS(CURVE(metrics, 9, 0, &count, NULL, NULL, NULL, NULL, NULL, NULL), ONCEOVER_USAGE, "group 9 of 1");
  CHECK_FAILS(CURVE(metrics, 0, 1, &count, &threshold, NULL, NULL, NULL, NULL, NULL), ONCEOVER_USAGE,
              "capacity is 1, expected at least the 3 vertices"); /* +infinity, 3, -infinity */
  CHECK(aupro[0].value == -7 && result.images == 77 && count == 77 && threshold == -7);
  onceover_segmentation_metrics_free(metrics);
}

static void options_are_followed_or_refused(void) {
  const float diagonal[4] = {2, 0, 0, 2};
  const uint8_t corners[4] = {1, 0, 0, 1};
  onceover_segmentation_options options = {.struct_size = sizeof options};
  onceover_segmentation_result result = {.struct_size = sizeof result};
  onceover_segmentation_metrics *metrics = NULL, *none = NULL;
  const int32_t given[] = {0, 8, 4};
  for (size_t i = 0; i < 3; ++i) {
    options.connectivity = given[i];
    CHECK(CREATE(&options, &metrics) == ONCEOVER_OK);
    CHECK(UPDATE(metrics, diagonal, 8, ONCEOVER_FLOAT32, corners, 2, 2, 2, 0) == ONCEOVER_OK);
    CHECK(COMPUTE(metrics, NULL, 0, 0, NULL, NULL, &result) == ONCEOVER_OK && result.regions == (i == 2 ? 2 : 1));
    onceover_segmentation_metrics_free(metrics);
  }
  none = metrics; /* not to be touched but to be set to NULL */
  options.connectivity = 6;
  CHECK_FAILS(CREATE(&options, &none), ONCEOVER_USAGE, "connectivity is 6, expected 8");
  CHECK(none == NULL);
  options.connectivity = 8;
  options.page_budget_bytes = 4096;
  CHECK_FAILS(CREATE(&options, &none), ONCEOVER_USAGE, "page budget of 4096 bytes; expected at least 4194304");
  CHECK_FAILS(CREATE(NULL, NULL), ONCEOVER_USAGE, "metrics is NULL");
}

/* Structs as a newer header would have them: with more at the end, which this library must leave alone. */
static void structs_may_be_longer_but_not_shorter_than_the_first_version(void) {
  struct {
    onceover_segmentation_options known;
    const char* unknown;
  } options = {{.struct_size = sizeof options}, "?"};
  struct {
    onceover_segmentation_result known;
    uint64_t unknown[2];
  } result = {{.struct_size = sizeof result}, {5, 6}};
  onceover_segmentation_metrics *metrics = NULL, *none = NULL;
  CHECK(CREATE(&options.known, &metrics) == ONCEOVER_OK);
  CHECK(COMPUTE(metrics, NULL, 0, ONCEOVER_ALL_GROUPS, NULL, NULL, &result.known) == ONCEOVER_OK);
  CHECK(result.known.struct_size == sizeof result && result.unknown[0] == 5 && result.unknown[1] == 6);
  CHECK(result.known.images == 0 && result.known.state_bytes > 0);

  const uint32_t bad_sizes[] = {0, 4, 1u << 20};
  for (size_t i = 0; i < sizeof bad_sizes / sizeof *bad_sizes; ++i) {
    options.known.struct_size = result.known.struct_size = bad_sizes[i];
    CHECK_FAILS(CREATE(&options.known, &none), ONCEOVER_USAGE, "options->struct_size");
    CHECK_FAILS(COMPUTE(metrics, NULL, 0, -1, NULL, NULL, &result.known), ONCEOVER_USAGE, "result->struct_size");
  }
  options.known.struct_size = offsetof(onceover_segmentation_options, page_budget_bytes);
  result.known.struct_size = offsetof(onceover_segmentation_result, state_bytes);
  CHECK_FAILS(CREATE(&options.known, &none), ONCEOVER_USAGE, "options->struct_size");
  CHECK_FAILS(COMPUTE(metrics, NULL, 0, -1, NULL, NULL, &result.known), ONCEOVER_USAGE, "result->struct_size");
  onceover_segmentation_metrics_free(metrics);
}

int main(void) {
  images_that_make_no_sense_are_refused_and_change_nothing();
  what_cannot_be_computed_is_refused_and_nothing_is_written();
  options_are_followed_or_refused();
  structs_may_be_longer_but_not_shorter_than_the_first_version();
  return summary("test_c_api_metrics_refusals");
}
