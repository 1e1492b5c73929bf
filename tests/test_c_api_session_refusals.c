/* What packages and sessions in C refuse: with which status, in which words, and what stays as it was. */
#define _POSIX_C_SOURCE 200112L

#include <math.h>

#include "session_check.h"

static void packages_that_cannot_be_opened_are_refused(void) {
  onceover_package* package = NULL;
  onceover_package_info info = {.struct_size = sizeof info};
  CHECK_FAILS(onceover_package_open("no/such.onceover", NULL, &package), ONCEOVER_INPUT, "no/such.onceover");
  CHECK(package == NULL);
  CHECK_FAILS(onceover_package_open(NULL, NULL, &package), ONCEOVER_USAGE, "path is NULL");
  CHECK_FAILS(onceover_package_open(package_path, NULL, NULL), ONCEOVER_USAGE, "package is NULL");
  CHECK_FAILS(onceover_package_view("no package", 10, &package), ONCEOVER_PACKAGE, "not an onceover package");
  CHECK_FAILS(onceover_package_view(NULL, 10, &package), ONCEOVER_USAGE, "data is NULL");
  CHECK_FAILS(onceover_package_verify(NULL), ONCEOVER_USAGE, "package is NULL");
  const void* member = NULL;
  size_t bytes = 0;
  CHECK_FAILS(onceover_package_find_member(NULL, "config", &member, &bytes), ONCEOVER_USAGE, "package is NULL");
  CHECK_FAILS(onceover_package_describe(NULL, &info), ONCEOVER_USAGE, "package is NULL");
  package = opened();
  CHECK_FAILS(onceover_package_describe(package, NULL), ONCEOVER_USAGE, "info is NULL");
  onceover_package_free(package);
}

static void damage_that_opening_did_not_look_for_is_found_by_verify(void) {
  enum { MOST = 1 << 20 };
  unsigned char* data = allocate(MOST, 1);
  const char* damaged = "damaged_for_test_c_api.onceover";
  FILE* file = fopen(package_path, "rb");
  if (file == NULL) exit(2);
  const size_t bytes = fread(data, 1, MOST, file);
  fclose(file);
  onceover_package* package = NULL;
  onceover_package_info info = {.struct_size = sizeof info};
  CHECK(onceover_package_view(data, bytes, &package) == ONCEOVER_OK);
  CHECK(onceover_package_describe(package, &info) == ONCEOVER_OK && info.bank_rows * HOST_DIM * 4 <= 65536);
  onceover_package_free(package);
  data[bytes - 1] ^= 1; /* in the last member, the parity record: small, so every opening looks at it */
  file = fopen(damaged, "wb");
  if (file == NULL || fwrite(data, 1, bytes, file) != bytes || fclose(file) != 0) exit(2);
  CHECK_FAILS(onceover_package_open(damaged, NULL, &package), ONCEOVER_PACKAGE, "'parity'");
  CHECK(package == NULL);
  data[bytes - 1] ^= 1;
  void* flash = NULL; /* borrowed and read in place, so that it can be changed after it was opened */
  if (posix_memalign(&flash, 64, bytes) != 0) exit(2);
  memcpy(flash, data, bytes);
  CHECK(onceover_package_view(flash, bytes, &package) == ONCEOVER_OK);
  CHECK(onceover_package_verify(package) == ONCEOVER_OK);
  ((unsigned char*)flash)[bytes - 1] ^= 1;
  CHECK_FAILS(onceover_package_verify(package), ONCEOVER_PACKAGE, "'parity'");
  onceover_package_free(package);
  remove(damaged);
  free(flash);
  free(data);
}

static void options_that_exclude_each_other_are_refused(void) {
  static unsigned char block[64];
  onceover_package* package = opened();
  onceover_session* session = NULL;
  size_t bytes = 7;
#define CREATE onceover_session_create(package, &options, &session)
  onceover_session_options options = host_options();
  options.arena_bytes = 64;
  CHECK_FAILS(CREATE, ONCEOVER_USAGE, "arena is NULL");
  CHECK_FAILS(onceover_session_query_memory(package, &options, &bytes), ONCEOVER_USAGE, "arena is NULL");
  CHECK(bytes == 7);
  options.arena = block;
  CHECK_FAILS(CREATE, ONCEOVER_MEMORY, "has none");
  options.arena_bytes = SIZE_MAX;
  CHECK_FAILS(CREATE, ONCEOVER_USAGE, "more than there can be");
  options = host_options();
  options.engine = "tensorrt";
  options.host_run = NULL;
  CHECK_FAILS(CREATE, ONCEOVER_UNKNOWN_NAME, "Known: onnxruntime, openvino, host");
  options.engine = "onnxruntime";
  CHECK_FAILS(CREATE, ONCEOVER_ENGINE, "no library path given");
  options.engine_library = "no/such/libonnxruntime.so";
  CHECK_FAILS(CREATE, ONCEOVER_ENGINE, "no/such/libonnxruntime.so");
  CHECK(strstr(onceover_last_error(), "give the path of a libonnxruntime.so for this machine") != NULL);
  options.host_run = host_network;
  CHECK_FAILS(CREATE, ONCEOVER_USAGE, "only the engine host calls it");
  options = host_options();
  for (options.threads = 257; options.threads < 1000000; options.threads *= 1000) { /* so many are never started */
    CHECK_FAILS(CREATE, ONCEOVER_USAGE, "expected at most 256");
  }
  options = host_options();
  options.max_map_width = 40000;
  CHECK_FAILS(CREATE, ONCEOVER_USAGE, "40000 columns");
  const char* const odd[] = {"key", NULL};
  options = host_options();
  options.engine_options = odd;
  CHECK_FAILS(CREATE, ONCEOVER_USAGE, "'key' has no value");
  CHECK(session == NULL);
  CHECK_FAILS(onceover_session_create(NULL, &options, &session), ONCEOVER_USAGE, "package is NULL");
  CHECK_FAILS(onceover_session_create(NULL, NULL, &session), ONCEOVER_USAGE, "package is NULL");
  CHECK_FAILS(onceover_session_create(package, NULL, NULL), ONCEOVER_USAGE, "session is NULL");
  onceover_package_free(package);
#undef CREATE
}

static void* misaligned(void* context, size_t bytes, size_t alignment) {
  (void)alignment;
  (void)bytes;
  return (char*)context + 1;
}
static void ignore(void* context, void* pointer, size_t bytes, size_t alignment) {
  (void)context, (void)pointer, (void)bytes, (void)alignment;
}

static void allocators_are_not_trusted(void) {
  static unsigned char block[256];
  onceover_package* package = opened();
  onceover_session* session = NULL;
  onceover_session_options options = host_options();
  options.allocate = misaligned;
  CHECK_FAILS(onceover_session_create(package, &options, &session), ONCEOVER_USAGE, "belong together");
  options.release = ignore;
  options.allocator_context = block + 64 - (uintptr_t)block % 64;
  CHECK_FAILS(onceover_session_create(package, &options, &session), ONCEOVER_USAGE, "expected a multiple of 64");
  options.arena = block;
  options.arena_bytes = sizeof block;
  CHECK_FAILS(onceover_session_create(package, &options, &session), ONCEOVER_USAGE, "both an arena and an allocator");
  CHECK(session == NULL);
  onceover_package_free(package);
}

/* A failed run leaves no verdict of the image before, whatever it failed of. */
#define REFUSED_IMAGE(expected, text)                                                           \
  do {                                                                                          \
    result.verdict = ONCEOVER_NORMAL;                                                           \
    CHECK_FAILS(onceover_session_run(session, &image, &result), expected, text);                \
    CHECK(result.verdict == ONCEOVER_NO_VERDICT && result.score == 0 && result.threshold == 0); \
  } while (0)

static void images_that_cannot_be_read_are_refused(void) {
  onceover_session* session = host_session();
  onceover_result result = {.struct_size = sizeof result};
  frame seen;
  fill_frame(&seen, 57, 0);
  onceover_image image = seen.image;
  image.data = NULL;
  REFUSED_IMAGE(ONCEOVER_INPUT, "no data");
  image = seen.image, image.format = 0;
  REFUSED_IMAGE(ONCEOVER_INPUT, "pixel format 0");
  image = seen.image, image.format = 12;
  REFUSED_IMAGE(ONCEOVER_INPUT, "pixel format 12");
  image = seen.image, image.height = 0;
  REFUSED_IMAGE(ONCEOVER_INPUT, "0 x 56");
  image = seen.image, image.width = 1u << 20;
  REFUSED_IMAGE(ONCEOVER_INPUT, "40 x 1048576");
  image = seen.image, image.stride_bytes = FRAME_WIDTH * 3 - 1;
  REFUSED_IMAGE(ONCEOVER_INPUT, "167 bytes apart");
  image = seen.image, image.stride_bytes = -(FRAME_WIDTH * 3 - 1);
  REFUSED_IMAGE(ONCEOVER_INPUT, "-167 bytes apart");
  image = seen.image, image.format = ONCEOVER_NV12;
  REFUSED_IMAGE(ONCEOVER_INPUT, "no chroma plane");
  image.chroma = seen.pixels, image.chroma_stride_bytes = 56, image.yuv_matrix = 4;
  REFUSED_IMAGE(ONCEOVER_INPUT, "color matrix 4");
  image.yuv_matrix = 0, image.roi_height = image.roi_width = 16, image.roi_left = 1;
  REFUSED_IMAGE(ONCEOVER_INPUT, "must be even");
  image = seen.image, image.roi_height = 8;
  REFUSED_IMAGE(ONCEOVER_INPUT, "ROI of 8 x 0");
  image.roi_width = 8, image.roi_top = 33;
  REFUSED_IMAGE(ONCEOVER_INPUT, "at row 33");
  image.roi_top = UINT32_MAX;
  REFUSED_IMAGE(ONCEOVER_INPUT, "does not lie within");
  image.roi_top = 0, image.roi_height = 7;
  REFUSED_IMAGE(ONCEOVER_INPUT, "7 x 8 pixels");
  image = seen.image;
  CHECK_FAILS(onceover_session_run(NULL, &image, &result), ONCEOVER_USAGE, "session is NULL");
  CHECK_FAILS(onceover_session_run(session, NULL, &result), ONCEOVER_USAGE, "image is NULL");
  CHECK_FAILS(onceover_session_run(session, &image, NULL), ONCEOVER_USAGE, "result is NULL");
  onceover_session_free(session);
}

static void what_follows_a_run_needs_one_that_succeeded(void) {
  static float map[HOST_HEIGHT * HOST_WIDTH], features[HOST_PATCHES * HOST_DIM];
  onceover_session* session = host_session();
  onceover_result result = {.struct_size = sizeof result};
  const float* scores = NULL;
  const uint32_t* rows = NULL;
  size_t count = 9;
  frame seen;
  fill_frame(&seen, 57, 1);
#define DRAW(height, width, stride) onceover_session_draw_map(session, map, height, width, stride)
#define FIND(width, regions, capacity) \
  onceover_session_find_regions(session, map, HOST_HEIGHT, width, width, regions, capacity, &count)
  CHECK_FAILS(DRAW(HOST_HEIGHT, HOST_WIDTH, HOST_WIDTH), ONCEOVER_USAGE, "call run first");
  CHECK_FAILS(onceover_session_patches(session, &scores, &rows), ONCEOVER_USAGE, "call run first");
  CHECK(scores == NULL && rows == NULL);
  run_of(session, &seen.image);
  CHECK_FAILS(DRAW(0, HOST_WIDTH, HOST_WIDTH), ONCEOVER_USAGE, "map is 0 x 48");
  CHECK_FAILS(DRAW(HOST_HEIGHT, 40000, 40000), ONCEOVER_USAGE, "map is 32 x 40000");
  CHECK_FAILS(DRAW(HOST_HEIGHT, HOST_WIDTH, HOST_WIDTH - 1), ONCEOVER_USAGE, "stride_floats is 47");
  CHECK_FAILS(onceover_session_draw_map(session, NULL, 4, 4, 4), ONCEOVER_USAGE, "map is NULL");
  CHECK_FAILS(FIND(HOST_WIDTH + 1, NULL, 0), ONCEOVER_USAGE, "set max_map_width");
  /* A good part has no regions, but must not hide that the map of a bad one will be too wide. */
  CHECK(onceover_session_set_threshold(session, 1e6f) == ONCEOVER_OK);
  CHECK(run_of(session, &seen.image).verdict == ONCEOVER_NORMAL);
  CHECK_FAILS(FIND(HOST_WIDTH + 1, NULL, 0), ONCEOVER_USAGE, "set max_map_width");
  CHECK(onceover_session_set_threshold(session, 0) == ONCEOVER_OK);
  CHECK(run_of(session, &seen.image).verdict == ONCEOVER_ANOMALOUS);
  CHECK_FAILS(FIND(HOST_WIDTH, NULL, 1), ONCEOVER_USAGE, "regions is NULL");
  CHECK(count == 9);
#define TRACE(region, points, capacity) \
  onceover_session_trace_contour(session, map, HOST_HEIGHT, HOST_WIDTH, HOST_WIDTH, region, points, capacity, &count)
  onceover_region region = {0};
  CHECK_FAILS(TRACE(NULL, NULL, 0), ONCEOVER_USAGE, "region is NULL");
  CHECK_FAILS(TRACE(&region, NULL, 0), ONCEOVER_USAGE, "not one of this map");
  CHECK(onceover_session_draw_map(session, map, HOST_HEIGHT, HOST_WIDTH, HOST_WIDTH) == ONCEOVER_OK);
  CHECK(FIND(HOST_WIDTH, &region, 1) == ONCEOVER_OK && count >= 1);
  CHECK_FAILS(TRACE(&region, NULL, 1), ONCEOVER_USAGE, "points is NULL");
  CHECK(onceover_session_set_map_threshold(session, region.peak_value) == ONCEOVER_OK);
  CHECK_FAILS(TRACE(&region, NULL, 0), ONCEOVER_USAGE, "not one of this map");
  CHECK_FAILS(onceover_session_prepare(session, &seen.image, map, 5), ONCEOVER_USAGE, "input_floats is 5");
  CHECK_FAILS(onceover_session_set_threshold(session, NAN), ONCEOVER_USAGE, "finite");
  double p_value = 7;
  CHECK_FAILS(onceover_session_region_p_value(session, NAN, &p_value), ONCEOVER_USAGE, "peak_value is not a number");
  CHECK_FAILS(onceover_session_region_p_value(session, 1, NULL), ONCEOVER_USAGE, "p_value is NULL");
  CHECK_FAILS(onceover_session_region_p_value(NULL, 1, &p_value), ONCEOVER_USAGE, "session is NULL");
  CHECK(p_value == 7);
  CHECK_FAILS(onceover_session_set_map_threshold(session, INFINITY), ONCEOVER_USAGE, "finite");

  features[3 * HOST_DIM] = NAN;
  CHECK_FAILS(onceover_session_run_features(session, features, HOST_PATCHES, HOST_DIM, HOST_DIM, &result),
              ONCEOVER_ENGINE, "features of patch 3");
  CHECK(result.verdict == ONCEOVER_NO_VERDICT);
  CHECK_FAILS(DRAW(HOST_HEIGHT, HOST_WIDTH, HOST_WIDTH), ONCEOVER_USAGE, "its last run failed");
  CHECK_FAILS(onceover_session_run_features(session, features, HOST_PATCHES, HOST_DIM, HOST_DIM - 1, &result),
              ONCEOVER_USAGE, "stride_floats is 15");
  CHECK_FAILS(onceover_session_run_features(session, features, HOST_PATCHES + 1, HOST_DIM, HOST_DIM, &result),
              ONCEOVER_USAGE, "25 x 16");
  CHECK_FAILS(onceover_session_run_features(session, NULL, HOST_PATCHES, HOST_DIM, HOST_DIM, &result), ONCEOVER_USAGE,
              "features is NULL");
  onceover_session_free(session);
#undef DRAW
#undef FIND
}

static int32_t answer_nan(void* context, const float* input, float* output) {
  (void)context, (void)input;
  for (size_t i = 0; i < HOST_PATCHES * HOST_DIM; ++i) output[i] = NAN;
  return 0;
}
static int32_t answer_huge(void* context, const float* input, float* output) {
  (void)context, (void)input;
  for (size_t i = 0; i < HOST_PATCHES * HOST_DIM; ++i) output[i] = 3e38f; /* finite, but the distance is not */
  return 0;
}

static void a_score_that_is_not_finite_is_never_good(void) {
  onceover_package* package = opened();
  onceover_session_options options = host_options();
  onceover_result result = {.struct_size = sizeof result};
  int32_t code = 0;
  frame seen;
  fill_frame(&seen, 57, 0);
  options.host_context = &code;
  onceover_session* session = created(package, &options);
  onceover_image image = seen.image;
  code = 77;
  REFUSED_IMAGE(ONCEOVER_ENGINE, "failed with code 77");
  onceover_session_free(session);
  options.host_run = answer_nan;
  session = created(package, &options);
  REFUSED_IMAGE(ONCEOVER_ENGINE, "NaN or infinite");
  onceover_session_free(session);
  options.host_run = answer_huge;
  session = created(package, &options);
  CHECK(onceover_session_set_threshold(session, 1e38f) == ONCEOVER_OK);
  REFUSED_IMAGE(ONCEOVER_ENGINE, "not finite");
  onceover_session_free(session);
  onceover_package_free(package);
}

/* Structs as newer and older headers have them. */
static void structs_may_be_longer_but_not_shorter_than_the_first_version(void) {
  struct {
    onceover_package_info known;
    uint64_t unknown;
  } info = {{.struct_size = sizeof info}, 5};
  struct {
    onceover_session_options known;
    uint64_t unknown;
  } options = {{.struct_size = sizeof options, .host_run = host_network}, 6};
  struct {
    onceover_result known;
    uint64_t unknown;
  } result = {{.struct_size = sizeof result}, 7};
  struct {
    onceover_session_info known;
    uint64_t unknown;
  } session_info = {{.struct_size = sizeof session_info}, 8};
  struct {
    onceover_image known;
    uint64_t unknown;
  } image = {{0}, 9};
  frame seen;
  fill_frame(&seen, 57, 0);
  image.known = seen.image;
  image.known.struct_size = sizeof image;
  onceover_package* package = opened();
  onceover_session *session = NULL, *none = NULL;
  CHECK(onceover_package_describe(package, &info.known) == ONCEOVER_OK && info.unknown == 5);
  CHECK(onceover_session_create(package, &options.known, &session) == ONCEOVER_OK);
  CHECK(onceover_session_run(session, &image.known, &result.known) == ONCEOVER_OK && result.unknown == 7);
  CHECK(result.known.struct_size == sizeof result && result.known.score > 0);
  CHECK(onceover_session_describe(session, &session_info.known) == ONCEOVER_OK && session_info.unknown == 8);

  const uint32_t bad_sizes[] = {0, 4, 1u << 20};
  const onceover_result before = result.known;
  onceover_package_free(package);
  for (size_t i = 0; i < sizeof bad_sizes / sizeof *bad_sizes; ++i) {
    const onceover_package_options opening = {.struct_size = bad_sizes[i]};
    info.known.struct_size = options.known.struct_size = session_info.known.struct_size = bad_sizes[i];
    CHECK_FAILS(onceover_package_open(package_path, &opening, &package), ONCEOVER_USAGE, "options->struct_size");
    package = opened();
    CHECK_FAILS(onceover_package_describe(package, &info.known), ONCEOVER_USAGE, "info->struct_size");
    CHECK_FAILS(onceover_session_create(package, &options.known, &none), ONCEOVER_USAGE, "options->struct_size");
    CHECK_FAILS(onceover_session_describe(session, &session_info.known), ONCEOVER_USAGE, "info->struct_size");
    result.known.struct_size = bad_sizes[i];
    CHECK_FAILS(onceover_session_run(session, &image.known, &result.known), ONCEOVER_USAGE, "result->struct_size");
    CHECK(result.known.score == before.score); /* what has no known size is not written */
    result.known.struct_size = sizeof result;
    image.known.struct_size = bad_sizes[i];
    CHECK_FAILS(onceover_session_run(session, &image.known, &result.known), ONCEOVER_USAGE, "image->struct_size");
    image.known.struct_size = sizeof image;
    result.known = before;
    onceover_package_free(package);
  }
  onceover_session_free(session);
}

int main(int argc, char** argv) {
  take_package_path(argc, argv);
  packages_that_cannot_be_opened_are_refused();
  damage_that_opening_did_not_look_for_is_found_by_verify();
  options_that_exclude_each_other_are_refused();
  allocators_are_not_trusted();
  images_that_cannot_be_read_are_refused();
  what_follows_a_run_needs_one_that_succeeded();
  a_score_that_is_not_finite_is_never_good();
  structs_may_be_longer_but_not_shorter_than_the_first_version();
  return summary("test_c_api_session_refusals");
}
