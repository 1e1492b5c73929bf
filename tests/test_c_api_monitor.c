/* The drift monitor in C: an alarm, saving and loading, what is refused, and that an update allocates nothing. What its
 * charts compute: test_monitor.cpp. */
#include <math.h>
#include <stddef.h>

#include "c_api_check.h"
#include "count_allocations.h"
#include "onceover_monitor.h"

static uint64_t state = 1;
static double uniform(void) { /* a linear congruential generator, Knuth's MMIX */
  state = state * 6364136223846793005u + 1442695040888963407u;
  return (double)(state >> 11) / 9007199254740992.0;
}

static onceover_monitor* created(void) {
  onceover_monitor* monitor = NULL;
  CHECK(onceover_monitor_create(NULL, NULL, &monitor) == ONCEOVER_OK && monitor != NULL);
  if (monitor == NULL) exit(2);
  return monitor;
}

static onceover_result part_with(float score) {
  onceover_result result = {.struct_size = sizeof result, .verdict = ONCEOVER_NORMAL, .score = score, .p_value = 1};
  return result;
}

static uint32_t take(onceover_monitor* monitor, double score, double brightness) {
  uint32_t alarms = 99;
  const onceover_result result = part_with((float)score);
  const onceover_image_statistics image = {
      .struct_size = sizeof image, .brightness = (float)brightness, .sharpness = (float)uniform()};
  CHECK(onceover_monitor_update(monitor, &result, &image, &alarms) == ONCEOVER_OK);
  return alarms;
}

static onceover_monitor_info info_of_monitor(const onceover_monitor* monitor) {
  onceover_monitor_info info = {.struct_size = sizeof info};
  CHECK(onceover_monitor_describe(monitor, &info, NULL) == ONCEOVER_OK && info.struct_size == sizeof info);
  return info;
}

static void a_dimmer_lamp_is_an_alarm_and_nothing_is_allocated_on_the_way(void) {
  onceover_monitor* monitor = created();
  const size_t before = allocated.calls;
  uint32_t early = 0, late = 0;
  for (int i = 0; i < 1000; ++i) early |= take(monitor, uniform(), 0.5 + 0.1 * uniform());
  for (int i = 0; i < 200; ++i) late |= take(monitor, uniform(), 0.45 + 0.1 * uniform());
  CHECK(allocated.calls == before);
  CHECK(early == 0 && late == 1u << ONCEOVER_CHART_BRIGHTNESS);
  onceover_chart_state charts[ONCEOVER_CHARTS];
  CHECK(onceover_monitor_describe(monitor, NULL, charts) == ONCEOVER_OK);
  CHECK(charts[ONCEOVER_CHART_BRIGHTNESS].alarm_part > 1000 && charts[ONCEOVER_CHART_BRIGHTNESS].parts == 1200);
  CHECK(charts[ONCEOVER_CHART_BRIGHTNESS].value < charts[ONCEOVER_CHART_BRIGHTNESS].lower);
  CHECK(charts[ONCEOVER_CHART_SCORE_EWMA].alarm_part == 0 && charts[ONCEOVER_CHART_SCORE_EWMA].upper > 0);
  CHECK(isnan(charts[ONCEOVER_CHART_P_VALUES].value) && charts[ONCEOVER_CHART_P_VALUES].parts == 0);
  CHECK(info_of_monitor(monitor).alarms == late && info_of_monitor(monitor).parts == 1200);
  CHECK(onceover_monitor_restart(monitor, 1) == ONCEOVER_OK && info_of_monitor(monitor).alarms == 0);
  onceover_monitor_free(monitor);
}

static void a_loaded_monitor_goes_on_as_the_saved_one(void) {
  onceover_monitor *monitor = created(), *loaded = NULL;
  for (int i = 0; i < 300; ++i) take(monitor, uniform(), uniform());
  size_t size = 0, written = 0;
  CHECK(onceover_monitor_save(monitor, NULL, 0, &size) == ONCEOVER_OK && size == info_of_monitor(monitor).state_bytes);
  unsigned char *a = allocate(size, 1), *b = allocate(size, 1);
  CHECK(onceover_monitor_save(monitor, a, size, &written) == ONCEOVER_OK && written == size);
  CHECK(onceover_monitor_load(NULL, a, size, &loaded) == ONCEOVER_OK && loaded != NULL);
  const uint64_t here = state;
  for (int i = 0; i < 300; ++i) take(monitor, uniform(), uniform());
  state = here;
  for (int i = 0; i < 300; ++i) take(loaded, uniform(), uniform());
  CHECK(onceover_monitor_save(monitor, a, size, &written) == ONCEOVER_OK);
  CHECK(onceover_monitor_save(loaded, b, size, &written) == ONCEOVER_OK && memcmp(a, b, size) == 0);
  CHECK_FAILS(onceover_monitor_save(monitor, a, size - 1, &written), ONCEOVER_USAGE, "a monitor takes");
  onceover_monitor_free(loaded);
  a[100] ^= 1;
  CHECK_FAILS(onceover_monitor_load(NULL, a, size, &loaded), ONCEOVER_INPUT, "the checksum differs");
  CHECK(loaded == NULL);
  free(a);
  free(b);
  onceover_monitor_free(monitor);
}

static void what_cannot_be_is_refused(void) {
  onceover_monitor* monitor = NULL;
  onceover_monitor_options options = {.struct_size = sizeof options, .average_run_length = 5};
  CHECK_FAILS(onceover_monitor_create(NULL, &options, &monitor), ONCEOVER_USAGE, "average run length is 5");
  options.average_run_length = 0;
  options.struct_size = 4;
  CHECK_FAILS(onceover_monitor_create(NULL, &options, &monitor), ONCEOVER_USAGE, "options->struct_size is 4");
  CHECK(monitor == NULL);
  CHECK_FAILS(onceover_monitor_create(NULL, NULL, NULL), ONCEOVER_USAGE, "monitor is NULL");
  monitor = created();
  uint32_t alarms = 0;
  onceover_result result = part_with(NAN);
  CHECK_FAILS(onceover_monitor_update(monitor, &result, NULL, &alarms), ONCEOVER_INPUT, "part 1: its score is");
  result.score = 1;
  CHECK_FAILS(onceover_monitor_update(monitor, &result, NULL, NULL), ONCEOVER_USAGE, "alarms is NULL");
  CHECK_FAILS(onceover_monitor_update(NULL, &result, NULL, &alarms), ONCEOVER_USAGE, "monitor is NULL");
  CHECK_FAILS(onceover_monitor_update(monitor, NULL, NULL, &alarms), ONCEOVER_USAGE, "result is NULL");
  CHECK(info_of_monitor(monitor).parts == 0);
  CHECK(onceover_monitor_update(monitor, &result, NULL, &alarms) == ONCEOVER_OK && alarms == 0);
  CHECK(info_of_monitor(monitor).parts == 1);
  onceover_monitor_free(monitor);
  onceover_monitor_free(NULL);
}

static void an_image_is_measured_within_its_roi(void) {
  static unsigned char pixels[64][64];
  for (int y = 0; y < 64; ++y) {
    for (int x = 0; x < 64; ++x) pixels[y][x] = x < 32 ? 51 : 204;
  }
  onceover_image image = {.struct_size = sizeof image,
                          .format = ONCEOVER_GRAY8,
                          .height = 64,
                          .width = 64,
                          .data = pixels,
                          .stride_bytes = 64};
  onceover_image_statistics measured = {.struct_size = sizeof measured};
  CHECK(onceover_measure_image(&image, &measured) == ONCEOVER_OK);
  CHECK(fabs(measured.brightness - 0.5) < 1e-6 && measured.sharpness > 0);
  image.roi_height = 64;
  image.roi_width = 32;
  CHECK(onceover_measure_image(&image, &measured) == ONCEOVER_OK);
  CHECK(fabs(measured.brightness - 0.2) < 1e-6 && measured.sharpness == 0);
  image.data = NULL;
  CHECK_FAILS(onceover_measure_image(&image, &measured), ONCEOVER_INPUT, "");
  measured.struct_size = 0;
  CHECK_FAILS(onceover_measure_image(&image, &measured), ONCEOVER_USAGE, "statistics->struct_size is 0");
}

int main(void) {
  a_dimmer_lamp_is_an_alarm_and_nothing_is_allocated_on_the_way();
  a_loaded_monitor_goes_on_as_the_saved_one();
  what_cannot_be_is_refused();
  an_image_is_measured_within_its_roi();
  return summary("c_api_monitor");
}
