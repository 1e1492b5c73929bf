/* Image → verdict as a C99 program meets it: packages from file and memory, every way to hand over an image, features,
 * maps and regions, thresholds, the self-test, memory. What is refused: test_c_api_session_refusals.c. */
#define _POSIX_C_SOURCE 200112L

#include <math.h>
#include <stdlib.h>

#include "session_check.h"

static void a_package_says_what_it_is(void) {
  onceover_package* package = opened();
  onceover_package_info info = {.struct_size = sizeof info};
  CHECK(onceover_package_describe(package, &info) == ONCEOVER_OK);
  CHECK(info.format_major == 1 && info.input_height == HOST_HEIGHT && info.input_width == HOST_WIDTH);
  CHECK(info.grid_height == HOST_ROWS && info.grid_width == HOST_COLUMNS && info.embedding_dim == HOST_DIM);
  CHECK(info.product_count == 1);
  onceover_product_info product = {.struct_size = sizeof product};
  CHECK(onceover_package_product(package, 0, &product) == ONCEOVER_OK);
  CHECK(product.calibrated == 1 && product.threshold == info.threshold && product.bank_rows == info.bank_rows);
  CHECK(product.name[0] == '\0' && product.has_roi == 0 && product.has_gate == 0);
  CHECK(onceover_package_product(package, 1, &product) == ONCEOVER_USAGE);
  CHECK(strcmp(onceover_last_error(), "onceover_package_product: product is 1, expected 0 to 0") == 0);
  CHECK(info.tile_rows == 1 && info.tile_columns == 1 && info.has_roi == 0);
  CHECK(info.score_height == HOST_ROWS && info.score_width == HOST_COLUMNS);
  CHECK(info.map_height == HOST_HEIGHT && info.map_width == HOST_WIDTH);
  CHECK(info.calibrated == 1 && info.false_alarm_rate == 0.05 && info.threshold > 0 && info.map_threshold > 0);
  CHECK(info.calibration_parts == 19 && info.cross_conformal == 0 && info.confidence == 0);
  CHECK(info.bank_rows == 40 * HOST_PATCHES);
  CHECK(info.manifest_bytes == 16 && memcmp(info.manifest, "{\"name\": \"host\"}", 16) == 0);
  CHECK(onceover_package_verify(package) == ONCEOVER_OK);
  const void* member = NULL;
  size_t bytes = 0;
  CHECK(onceover_package_find_member(package, "memory_bank", &member, &bytes) == ONCEOVER_OK && member != NULL);
  CHECK(bytes == info.bank_rows * HOST_DIM * sizeof(float) && (uintptr_t)member % 64 == 0);
  CHECK(onceover_package_find_member(package, "no_such", &member, &bytes) == ONCEOVER_OK && member == NULL);
  CHECK(bytes == 0);
  onceover_package_free(package);
  onceover_package_free(NULL);

  const onceover_package_options copied = {.struct_size = sizeof copied, .copy = 1, .hash_small = 1};
  onceover_package_info again = {.struct_size = sizeof again};
  CHECK(onceover_package_open(package_path, &copied, &package) == ONCEOVER_OK);
  CHECK(onceover_package_describe(package, &again) == ONCEOVER_OK && memcmp(again.id, info.id, sizeof info.id) == 0);
  onceover_package_free(package);
}

static void the_library_says_what_it_is(void) {
  const char* isa = NULL;
  CHECK(onceover_abi_version() == ONCEOVER_ABI_VERSION);
  CHECK(strchr(onceover_version(), '.') != NULL);
  CHECK(onceover_isa(&isa) == ONCEOVER_OK && strlen(isa) > 0);
  CHECK_FAILS(onceover_isa(NULL), ONCEOVER_USAGE, "name is NULL");
}

static void good_parts_are_normal_and_a_defect_is_found(void) {
  onceover_session* session = host_session();
  frame good, bad;
  fill_frame(&good, 100, 0);
  fill_frame(&bad, 100, 1);
  const onceover_result normal = run_of(session, &good.image), anomalous = run_of(session, &bad.image);
  CHECK(normal.verdict == ONCEOVER_NORMAL && normal.score <= normal.threshold && normal.p_value > 0.05);
  CHECK(anomalous.verdict == ONCEOVER_ANOMALOUS && anomalous.score > anomalous.threshold);
  CHECK(anomalous.p_value == 1.0 / 20 && anomalous.nearest_row < 40 * HOST_PATCHES);
  CHECK(anomalous.prepare_ns > 0 && anomalous.engine_ns > 0 && anomalous.score_ns > 0 && anomalous.map_ns > 0);

  const float* scores = NULL;
  const uint32_t* rows = NULL;
  CHECK(onceover_session_patches(session, &scores, &rows) == ONCEOVER_OK);
  const size_t worst = anomalous.patch_row * HOST_COLUMNS + anomalous.patch_column;
  CHECK(scores[worst] == anomalous.score && rows[worst] == anomalous.nearest_row);
  for (size_t p = 0; p < HOST_PATCHES; ++p) CHECK(scores[p] <= anomalous.score);
  CHECK(same_result(run_of(session, &bad.image), anomalous)); /* again: the same bits */
  onceover_session_free(session);
  onceover_session_free(NULL);
}

/* ---- The same picture in every format and every way to lie in memory. ---- */

static onceover_image repacked(const frame* from, uint32_t format, const int* order, size_t channels, uint8_t* to) {
  onceover_image image = from->image;
  for (size_t i = 0; i < FRAME_HEIGHT * FRAME_WIDTH; ++i) {
    for (size_t c = 0; c < channels; ++c) to[i * channels + c] = order[c] < 0 ? 17 : from->pixels[i * 3 + order[c]];
  }
  image.format = format;
  image.data = to;
  image.stride_bytes = (ptrdiff_t)(FRAME_WIDTH * channels);
  return image;
}

static void every_order_of_channels_is_the_same_picture(void) {
  static const int bgr[] = {2, 1, 0}, rgba[] = {0, 1, 2, -1}, bgra[] = {2, 1, 0, -1};
  static uint8_t bytes[FRAME_HEIGHT * FRAME_WIDTH * 4];
  onceover_session* session = host_session();
  frame seen;
  fill_frame(&seen, 57, 1);
  const onceover_result expected = run_of(session, &seen.image);
  onceover_image image = repacked(&seen, ONCEOVER_BGR8, bgr, 3, bytes);
  CHECK(same_result(run_of(session, &image), expected));
  image = repacked(&seen, ONCEOVER_RGBA8, rgba, 4, bytes);
  CHECK(same_result(run_of(session, &image), expected));
  image = repacked(&seen, ONCEOVER_BGRA8, bgra, 4, bytes);
  CHECK(same_result(run_of(session, &image), expected));

  static const int gray[] = {0}, grays[] = {0, 0, 0};
  static uint8_t single[FRAME_HEIGHT * FRAME_WIDTH];
  onceover_image one = repacked(&seen, ONCEOVER_GRAY8, gray, 1, single);
  image = repacked(&seen, ONCEOVER_RGB8, grays, 3, bytes);
  CHECK(same_result(run_of(session, &one), run_of(session, &image)));
  CHECK(!same_result(run_of(session, &one), expected));
  onceover_session_free(session);
}

static void strides_and_a_roi_change_where_pixels_lie_and_nothing_else(void) {
  enum { STRIDE = FRAME_WIDTH * 3 + 13, TOP = 6, LEFT = 10, HEIGHT = 28, WIDTH = 30 };
  static uint8_t flipped[FRAME_HEIGHT * STRIDE], part[HEIGHT * WIDTH * 3];
  onceover_session* session = host_session();
  frame seen;
  fill_frame(&seen, 57, 1);
  for (size_t y = 0; y < FRAME_HEIGHT; ++y) {
    memcpy(flipped + (FRAME_HEIGHT - 1 - y) * STRIDE, seen.pixels + y * FRAME_WIDTH * 3, FRAME_WIDTH * 3);
  }
  onceover_image bottom_up = seen.image;
  bottom_up.data = flipped + (FRAME_HEIGHT - 1) * STRIDE;
  bottom_up.stride_bytes = -STRIDE;
  CHECK(same_result(run_of(session, &bottom_up), run_of(session, &seen.image)));

  for (size_t y = 0; y < HEIGHT; ++y) {
    memcpy(part + y * WIDTH * 3, seen.pixels + ((TOP + y) * FRAME_WIDTH + LEFT) * 3, WIDTH * 3);
  }
  onceover_image cut = seen.image, roi = seen.image;
  cut.data = part;
  cut.height = HEIGHT;
  cut.width = WIDTH;
  cut.stride_bytes = WIDTH * 3;
  roi.roi_top = bottom_up.roi_top = TOP;
  roi.roi_left = bottom_up.roi_left = LEFT;
  roi.roi_height = bottom_up.roi_height = HEIGHT;
  roi.roi_width = bottom_up.roi_width = WIDTH;
  const onceover_result expected = run_of(session, &cut);
  CHECK(same_result(run_of(session, &roi), expected));
  CHECK(same_result(run_of(session, &bottom_up), expected));
  CHECK(!same_result(run_of(session, &seen.image), expected));
  onceover_session_free(session);
}

static void nv12_frames_and_their_roi_are_read(void) {
  enum { STRIDE = FRAME_WIDTH + 8, TOP = 4, LEFT = 6, HEIGHT = 30, WIDTH = 32 };
  static uint8_t luma[FRAME_HEIGHT * STRIDE], chroma[FRAME_HEIGHT / 2 * STRIDE];
  onceover_session* session = host_session();
  frame gray;
  fill_frame(&gray, 57, 1);
  memset(chroma, 128, sizeof chroma); /* full range without color: luma is gray */
  for (size_t y = 0; y < FRAME_HEIGHT; ++y) {
    for (size_t x = 0; x < FRAME_WIDTH; ++x) luma[y * STRIDE + x] = gray.pixels[(y * FRAME_WIDTH + x) * 3];
  }
  onceover_image nv12 = {.struct_size = sizeof nv12, .format = ONCEOVER_NV12, .height = FRAME_HEIGHT};
  nv12.width = FRAME_WIDTH;
  nv12.data = luma;
  nv12.chroma = chroma;
  nv12.stride_bytes = nv12.chroma_stride_bytes = STRIDE;
  nv12.yuv_matrix = ONCEOVER_BT601_FULL;
  onceover_image plain = nv12;
  plain.format = ONCEOVER_GRAY8;
  CHECK(same_result(run_of(session, &nv12), run_of(session, &plain)));
  nv12.roi_top = plain.roi_top = TOP;
  nv12.roi_left = plain.roi_left = LEFT;
  nv12.roi_height = plain.roi_height = HEIGHT;
  nv12.roi_width = plain.roi_width = WIDTH;
  const onceover_result expected = run_of(session, &plain);
  CHECK(same_result(run_of(session, &nv12), expected));
  /* Color outside the ROI is not looked at, color inside is: the ROI begins where it should in chroma, too. */
  enum { INPUT = 3 * HOST_HEIGHT * HOST_WIDTH };
  static float before[INPUT], outside[INPUT], corner[INPUT];
  CHECK(onceover_session_prepare(session, &nv12, before, INPUT) == ONCEOVER_OK);
  for (size_t y = 0; y < FRAME_HEIGHT / 2; ++y) {
    for (size_t x = 0; x < FRAME_WIDTH; ++x) {
      const int inside = y >= TOP / 2 && y < (TOP + HEIGHT) / 2 && x >= LEFT && x < LEFT + WIDTH;
      if (!inside) chroma[y * STRIDE + x] = 255;
    }
  }
  CHECK(onceover_session_prepare(session, &nv12, outside, INPUT) == ONCEOVER_OK);
  CHECK(memcmp(before, outside, sizeof before) == 0);
  chroma[TOP / 2 * STRIDE + LEFT] = 255;
  CHECK(onceover_session_prepare(session, &nv12, corner, INPUT) == ONCEOVER_OK);
  CHECK(memcmp(before, corner, sizeof before) != 0);
  onceover_session_free(session);
}

/* ---- Networks of the application, maps, thresholds. ---- */

static void features_give_the_result_of_the_image_they_come_from(void) {
  enum { STRIDE = HOST_DIM + 5 };
  static float input[3 * HOST_HEIGHT * HOST_WIDTH], packed[HOST_PATCHES * HOST_DIM], features[HOST_PATCHES * STRIDE];
  onceover_package* package = opened();
  onceover_session *session = host_session(), *fed = NULL;
  CHECK(onceover_session_create(package, NULL, &fed) == ONCEOVER_OK); /* without options: features only */
  onceover_package_free(package);
  frame seen;
  fill_frame(&seen, 57, 1);
  CHECK(onceover_session_prepare(fed, &seen.image, input, 3 * HOST_HEIGHT * HOST_WIDTH) == ONCEOVER_OK);
  CHECK(host_network(NULL, input, packed) == 0);
  for (size_t p = 0; p < HOST_PATCHES; ++p) {
    memcpy(features + p * STRIDE, packed + p * HOST_DIM, HOST_DIM * sizeof *packed);
  }
  onceover_result result = {.struct_size = sizeof result};
  CHECK(onceover_session_run_features(fed, features, HOST_PATCHES, HOST_DIM, STRIDE, &result) == ONCEOVER_OK);
  CHECK(same_result(result, run_of(session, &seen.image)) && result.engine_ns == 0 && result.prepare_ns == 0);
  onceover_session_free(fed);
  onceover_session_free(session);
}

static void maps_of_any_size_and_their_regions_are_drawn_where_the_caller_says(void) {
  enum { HEIGHT = 80, WIDTH = 112, STRIDE = 120 };
  static float map[HEIGHT * STRIDE];
  onceover_session_options options = host_options();
  options.max_map_width = WIDTH;
  onceover_package* package = opened();
  onceover_session* session = created(package, &options);
  frame seen;
  fill_frame(&seen, 100, 1);
  run_of(session, &seen.image);
  for (size_t i = 0; i < HEIGHT * STRIDE; ++i) map[i] = -1;
  CHECK(onceover_session_draw_map(session, map, HEIGHT, WIDTH, STRIDE) == ONCEOVER_OK);
  float largest = 0;
  for (size_t y = 0; y < HEIGHT; ++y) {
    for (size_t x = 0; x < STRIDE; ++x) {
      CHECK((map[y * STRIDE + x] >= 0) == (x < WIDTH)); /* nothing beyond the rows */
      largest = map[y * STRIDE + x] > largest ? map[y * STRIDE + x] : largest;
    }
  }
  onceover_region region;
  size_t count = 0;
  CHECK(onceover_session_find_regions(session, map, HEIGHT, WIDTH, STRIDE, &region, 1, &count) == ONCEOVER_OK);
  CHECK(count >= 1 && region.peak_value == largest && map[region.peak_row * STRIDE + region.peak_column] == largest);
  CHECK(region.top <= region.peak_row && region.peak_row < region.bottom && region.area > 0);
  CHECK(region.left < WIDTH / 2 && region.right > WIDTH / 2); /* the defect is in the middle */
  CHECK(region.centroid_row > region.top && region.centroid_row < region.bottom - 1);
  CHECK(region.centroid_column > region.left && region.centroid_column < region.right - 1);
  onceover_session_info info = {.struct_size = sizeof info};
  static onceover_point points[4 * HEIGHT * WIDTH];
  size_t length = 0;
  CHECK(onceover_session_describe(session, &info) == ONCEOVER_OK);
  CHECK(onceover_session_trace_contour(session, map, HEIGHT, WIDTH, STRIDE, &region, points, 4 * HEIGHT * WIDTH,
                                       &length) == ONCEOVER_OK);
  CHECK(length > 8 && length <= 4 * region.area);
  CHECK(points[0].row == region.top && points[0].column == region.first_column);
  for (size_t i = 0; i < length; ++i) { /* each above the threshold, and a neighbor of the next */
    const onceover_point at = points[i], next = points[(i + 1) % length];
    CHECK(map[at.row * STRIDE + at.column] > info.map_threshold);
    CHECK(labs((long)at.row - (long)next.row) <= 1 && labs((long)at.column - (long)next.column) <= 1);
  }
  double rare = 0, common = 0;
  CHECK(onceover_session_region_p_value(session, region.peak_value, &rare) == ONCEOVER_OK);
  CHECK(onceover_session_region_p_value(session, 0, &common) == ONCEOVER_OK);
  CHECK(rare == 1.0 / 20 && common == 1); /* 19 parts, none of them with such a peak */
  CHECK(onceover_session_set_map_threshold(session, largest) == ONCEOVER_OK);
  CHECK(onceover_session_find_regions(session, map, HEIGHT, WIDTH, STRIDE, NULL, 0, &count) == ONCEOVER_OK);
  CHECK(count == 0);
  onceover_session_free(session);
  onceover_package_free(package);
}

static void thresholds_can_be_the_users_own(void) {
  onceover_session* session = host_session();
  frame seen;
  fill_frame(&seen, 100, 1);
  const onceover_result before = run_of(session, &seen.image);
  CHECK(onceover_session_set_threshold(session, before.score) == ONCEOVER_OK);
  CHECK(run_of(session, &seen.image).verdict == ONCEOVER_NORMAL);
  onceover_session_info info = {.struct_size = sizeof info};
  CHECK(onceover_session_describe(session, &info) == ONCEOVER_OK && info.threshold == before.score);
  CHECK(onceover_session_set_threshold(session, nextafterf(before.score, 0)) == ONCEOVER_OK);
  CHECK(run_of(session, &seen.image).verdict == ONCEOVER_ANOMALOUS);
  uint32_t images = 0;
  double difference = 1;
  CHECK(onceover_session_self_test(session, &images, &difference) == ONCEOVER_OK && images == 3 && difference < 1e-4);
  CHECK(onceover_session_self_test(session, NULL, NULL) == ONCEOVER_OK);
  onceover_session_free(session);
}

/* ---- Memory. ---- */

static void bytes_in_flash_are_a_package(void) {
  FILE* file = fopen(package_path, "rb");
  void* flash = NULL;
  enum { MOST = 1 << 20 };
  if (file == NULL || posix_memalign(&flash, 64, MOST + 1) != 0) exit(2);
  frame seen;
  fill_frame(&seen, 57, 1);
  onceover_session* session = host_session();
  const onceover_result expected = run_of(session, &seen.image);
  onceover_session_free(session);
  const onceover_session_options options = host_options();
  for (size_t shift = 0; shift < 2; ++shift) { /* read in place, and copied */
    char* data = (char*)flash + shift;
    rewind(file);
    const size_t bytes = fread(data, 1, MOST, file);
    onceover_package* package = NULL;
    CHECK(onceover_package_view(data, bytes, &package) == ONCEOVER_OK);
    onceover_package_info info = {.struct_size = sizeof info};
    CHECK(onceover_package_describe(package, &info) == ONCEOVER_OK);
    CHECK((info.manifest >= data && info.manifest < data + bytes) == (shift == 0));
    session = created(package, &options);
    onceover_package_free(package);
    CHECK(same_result(run_of(session, &seen.image), expected));
    onceover_session_free(session);
  }
  fclose(file);
  free(flash);
}

static void an_arena_of_the_size_asked_for_is_enough_at_any_address_and_less_is_not(void) {
  onceover_package* package = opened();
  onceover_session_options options = host_options();
  frame seen;
  fill_frame(&seen, 57, 1);
  for (uint32_t threads = 1; threads <= 2; ++threads) {
    size_t bytes = 0;
    options = host_options();
    options.threads = threads;
    options.max_map_width = 300 * threads;
    CHECK(onceover_session_query_memory(package, &options, &bytes) == ONCEOVER_OK && bytes > 64);
    unsigned char* block = allocate(bytes + 128, 1);
    for (size_t shift = 0; shift < 64; shift += 9) {
      memset(block, 0xa5, bytes + 128);
      options.arena = block + shift;
      options.arena_bytes = bytes;
      onceover_session* session = created(package, &options);
      const onceover_result result = run_of(session, &seen.image);
      onceover_session_info info = {.struct_size = sizeof info};
      CHECK(onceover_session_describe(session, &info) == ONCEOVER_OK);
      CHECK(info.memory_bytes + 64 <= bytes && info.threads == threads && strcmp(info.engine_version, "host") == 0);
      CHECK(result.score > 0);
      onceover_session_free(session);
      for (size_t i = 0; i < 64; ++i) CHECK(block[shift + bytes + i] == 0xa5);
      for (size_t i = 0; i < shift; ++i) CHECK(block[i] == 0xa5);
    }
    onceover_session* none = NULL;
    options.arena = block;
    options.arena_bytes = bytes - 128;
    CHECK_FAILS(onceover_session_create(package, &options, &none), ONCEOVER_MEMORY, "the allocator has none");
    options.arena = NULL;
    options.arena_bytes = 0;
    options.memory_limit_bytes = bytes - 64;
    onceover_session_free(created(package, &options));
    options.memory_limit_bytes = bytes - 65;
    CHECK_FAILS(onceover_session_create(package, &options, &none), ONCEOVER_MEMORY, "memory limit");
    free(block);
  }
  onceover_package_free(package);
}

int main(int argc, char** argv) {
  take_package_path(argc, argv);
  a_package_says_what_it_is();
  the_library_says_what_it_is();
  good_parts_are_normal_and_a_defect_is_found();
  every_order_of_channels_is_the_same_picture();
  strides_and_a_roi_change_where_pixels_lie_and_nothing_else();
  nv12_frames_and_their_roi_are_read();
  features_give_the_result_of_the_image_they_come_from();
  maps_of_any_size_and_their_regions_are_drawn_where_the_caller_says();
  thresholds_can_be_the_users_own();
  bytes_in_flash_are_a_package();
  an_arena_of_the_size_asked_for_is_enough_at_any_address_and_less_is_not();
  return summary("test_c_api_session");
}
