/* What sessions take from the heap: with an arena a few handles when they are created, and nothing at all in 10,000
 * frames; and that a run at one thread takes no lock. Under sanitizers, which bring a malloc and locks of their own,
 * the frames run and nothing is counted. */
#define _GNU_SOURCE /* RTLD_NEXT */

#include <dlfcn.h>
#include <pthread.h>

#include "count_allocations.h"
#include "session_check.h"

static size_t locks = 0;

#if COUNTS_ALLOCATIONS
int pthread_mutex_lock(pthread_mutex_t* mutex) {
  int (*real)(pthread_mutex_t*);
  void* symbol = dlsym(RTLD_NEXT, "pthread_mutex_lock");
  memcpy(&real, &symbol, sizeof real); /* ISO C has no cast from an object pointer to a function pointer */
  __atomic_fetch_add(&locks, 1, __ATOMIC_RELAXED);
  return real(mutex);
}
#endif

enum { FRAMES = 10000, EMULATED_FRAMES = 300, HANDLE_BYTES = 4096, PRODUCT_BYTES = 2048 };

static size_t frames_to_run(void) { return getenv("ONCEOVER_QEMU") == NULL ? FRAMES : EMULATED_FRAMES; }

#define TRACE(region, points, capacity, length) \
  onceover_session_trace_contour(session, map, 64, 96, 96, region, points, capacity, length)

static void ten_thousand_frames_allocate_nothing(void) {
  static float map[64 * 96];
  frame seen[2];
  onceover_region regions[4];
  onceover_point points[64];
  onceover_package* package = opened();
  onceover_session_options options = host_options();
  options.max_map_width = 96;
  onceover_session* session = created(package, &options);
  fill_frame(&seen[0], 100, 0);
  fill_frame(&seen[1], 58, 1);
  size_t count = 0, failed = 0, anomalous = 0;
  const size_t before = allocated.calls, frames = frames_to_run();
  for (size_t i = 0; i < frames; ++i) { /* from the very first frame on; sizes change on the way */
    onceover_result result = {.struct_size = sizeof result};
    onceover_image image = seen[i % 2].image;
    if (i % 3 == 0) image.roi_height = image.roi_width = 38;
    failed += onceover_session_run(session, &image, &result) != ONCEOVER_OK;
    failed += onceover_session_draw_map(session, map, 64, 96, 96) != ONCEOVER_OK;
    failed += onceover_session_find_regions(session, map, 64, 96, 96, regions, 4, &count) != ONCEOVER_OK;
    size_t length = 1;
    if (count > 0) failed += TRACE(&regions[0], points, 64, &length) != ONCEOVER_OK || length == 0;
    anomalous += result.verdict == ONCEOVER_ANOMALOUS;
  }
  CHECK(allocated.calls == before);
  CHECK(failed == 0);
  CHECK(anomalous > frames / 4 && anomalous < frames);
  onceover_session_free(session);
  onceover_package_free(package);
}

/* Of a package of another kind than the plain one, wherever its frames go. */
static void frames_of_any_package_allocate_nothing(const char* path) {
  static float map[64 * 96];
  frame seen[2];
  onceover_region regions[4];
  package_path = path;
  onceover_package* package = opened();
  onceover_session_options options = host_options();
  options.max_map_width = 96;
  onceover_session* session = created(package, &options);
  fill_frame(&seen[0], 100, 0);
  fill_frame(&seen[1], 58, 1);
  size_t count = 0, failed = 0;
  const size_t before = allocated.calls, frames = frames_to_run() / 10;
  for (size_t i = 0; i < frames; ++i) {
    onceover_result result = {.struct_size = sizeof result};
    failed += onceover_session_run(session, &seen[i % 2].image, &result) != ONCEOVER_OK;
    failed += onceover_session_draw_map(session, map, 64, 96, 96) != ONCEOVER_OK;
    failed += onceover_session_find_regions(session, map, 64, 96, 96, regions, 4, &count) != ONCEOVER_OK;
  }
  CHECK(allocated.calls == before);
  CHECK(failed == 0);
  onceover_session_free(session);
  onceover_package_free(package);
}

static void a_session_in_an_arena_takes_a_few_handles_from_the_heap(void) {
  onceover_package* package = opened();
  onceover_session_options options = host_options();
  onceover_package_info info = {.struct_size = sizeof info};
  CHECK(onceover_package_describe(package, &info) == ONCEOVER_OK);
  size_t bytes = 0;
  CHECK(onceover_session_query_memory(package, &options, &bytes) == ONCEOVER_OK);
  options.arena = allocate(bytes, 1);
  options.arena_bytes = bytes;
  const size_t before = allocated.bytes;
  onceover_session* session = created(package, &options);
  CHECK(allocated.bytes - before < HANDLE_BYTES + (info.product_count - 1) * PRODUCT_BYTES);
  if (COUNTS_ALLOCATIONS) CHECK(allocated.bytes > before); /* the counter counts */
  onceover_session_free(session);
  onceover_package_free(package);
  free(options.arena);
}

static size_t locks_of_a_run(uint32_t threads) {
  frame seen;
  onceover_package* package = opened();
  onceover_session_options options = host_options();
  options.threads = threads;
  onceover_session* session = created(package, &options);
  fill_frame(&seen, 58, 1);
  run_of(session, &seen.image);
  const size_t before = __atomic_load_n(&locks, __ATOMIC_RELAXED);
  run_of(session, &seen.image);
  const size_t taken = __atomic_load_n(&locks, __ATOMIC_RELAXED) - before;
  onceover_session_free(session);
  onceover_package_free(package);
  return taken;
}

static void a_run_at_one_thread_takes_no_lock(void) {
  CHECK(locks_of_a_run(1) == 0);
  if (COUNTS_ALLOCATIONS) CHECK(locks_of_a_run(2) > 0); /* the counter counts */
}

int main(int argc, char** argv) {
  take_package_path(argc, argv);
  a_run_at_one_thread_takes_no_lock();
  ten_thousand_frames_allocate_nothing();
  a_session_in_an_arena_takes_a_few_handles_from_the_heap();
  static const char* const kinds[] = {".tiles", ".products"}; /* tiles with a region of interest; gates */
  const char* plain = package_path;
  for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; ++i) {
    char path[4096];
    snprintf(path, sizeof path, "%s%s", plain, kinds[i]);
    frames_of_any_package_allocate_nothing(path);
    a_session_in_an_arena_takes_a_few_handles_from_the_heap();
  }
  printf("%zu frames%s\n", frames_to_run(), COUNTS_ALLOCATIONS ? "" : ", allocations are not counted here");
  return summary("test_c_api_allocations");
}
