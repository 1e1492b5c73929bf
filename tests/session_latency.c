/* session_latency PACKAGE FRAMES [PAUSE_MS]: how long single runs take, the network being host_network.h: what onceover
 * itself adds to a frame. With a pause, each frame comes after an idle time, as on a slow line. Prints quantiles of all
 * runs and the slowest; nothing here passes or fails by time. */
#define _POSIX_C_SOURCE 200112L

#include <time.h>

#include "session_check.h"

static uint64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static int compare(const void* a, const void* b) {
  const uint64_t x = *(const uint64_t*)a, y = *(const uint64_t*)b;
  return (x > y) - (x < y);
}

/* The smallest time that at least this part of the runs took no longer than. */
static double quantile_us(const uint64_t* sorted, size_t count, double part) {
  const size_t rank = (size_t)(part * (double)count + 0.999999);
  return (double)sorted[rank > 0 ? rank - 1 : 0] * 1e-3;
}

int main(int argc, char** argv) {
  take_package_path(argc, argv);
  const size_t frames = argc > 2 ? strtoul(argv[2], NULL, 10) : 1000;
  const long pause_ms = argc > 3 ? strtol(argv[3], NULL, 10) : 0;
  const struct timespec pause = {pause_ms / 1000, pause_ms % 1000 * 1000000};
  uint64_t* times = allocate(frames, sizeof *times);
  frame seen[2];
  size_t anomalous = 0;
  onceover_session_options options = host_options();
  options.touch_pages = 1;
  onceover_package* package = opened();
  onceover_session* session = created(package, &options);
  fill_frame(&seen[0], 100, 0);
  fill_frame(&seen[1], 100, 1);
  for (size_t i = 0; i < frames; ++i) {
    if (pause_ms > 0) nanosleep(&pause, NULL);
    onceover_result result = {.struct_size = sizeof result};
    const uint64_t start = now_ns();
    const onceover_status status = onceover_session_run(session, &seen[i % 2].image, &result);
    times[i] = now_ns() - start;
    CHECK(status == ONCEOVER_OK && times[i] > 0);
    anomalous += result.verdict == ONCEOVER_ANOMALOUS;
  }
  CHECK(frames >= 2 && anomalous == frames / 2);
  const double first_us = (double)times[0] * 1e-3;
  qsort(times, frames, sizeof *times, compare);
  printf("%zu frames, pause %ld ms: first %.1f us, p50 %.1f, p99 %.1f, p99.99 %.1f, max %.1f us\n", frames, pause_ms,
         first_us, quantile_us(times, frames, 0.5), quantile_us(times, frames, 0.99),
         quantile_us(times, frames, 0.9999), quantile_us(times, frames, 1));
  free(times);
  onceover_session_free(session);
  onceover_package_free(package);
  return summary("session_latency");
}
