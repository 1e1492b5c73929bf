/* What the tests of sessions in C share: packages and sessions that exist, and images for them. The package is the one
 * that host_package.cpp wrote: its path is the first argument of every test. */
#ifndef SESSION_CHECK_H
#define SESSION_CHECK_H

#include "c_api_check.h"
#include "host_network.h"
#include "onceover.h"

enum { FRAME_HEIGHT = 40, FRAME_WIDTH = 56 };

static const char* package_path = NULL;

static inline void take_package_path(int argc, char** argv) {
  if (argc < 2) {
    fprintf(stderr, "%s needs the path of a package\n", argv[0]);
    exit(2);
  }
  package_path = argv[1];
}

static inline onceover_package* opened(void) {
  onceover_package* package = NULL;
  CHECK(onceover_package_open(package_path, NULL, &package) == ONCEOVER_OK && package != NULL);
  if (package == NULL) exit(2);
  return package;
}

static inline onceover_session_options host_options(void) {
  const onceover_session_options options = {.struct_size = sizeof options, .host_run = host_network};
  return options;
}

static inline onceover_session* created(const onceover_package* package, const onceover_session_options* options) {
  onceover_session* session = NULL;
  CHECK(onceover_session_create(package, options, &session) == ONCEOVER_OK && session != NULL);
  if (session == NULL) exit(2);
  return session;
}

static inline onceover_session* host_session(void) {
  onceover_package* package = opened();
  const onceover_session_options options = host_options();
  onceover_session* session = created(package, &options);
  onceover_package_free(package); /* the session keeps what it needs */
  return session;
}

typedef struct frame {
  uint8_t pixels[FRAME_HEIGHT * FRAME_WIDTH * 3];
  onceover_image image;
} frame;

/* In place: the image points into the frame. */
static inline void fill_frame(frame* to, uint32_t seed, int defect) {
  const onceover_image image = {.struct_size = sizeof image,
                                .format = ONCEOVER_RGB8,
                                .height = FRAME_HEIGHT,
                                .width = FRAME_WIDTH,
                                .data = to->pixels,
                                .stride_bytes = FRAME_WIDTH * 3};
  host_image(seed, defect, FRAME_HEIGHT, FRAME_WIDTH, 3, to->pixels);
  to->image = image;
}

static inline onceover_result run_of(onceover_session* session, const onceover_image* image) {
  onceover_result result = {.struct_size = sizeof result};
  CHECK(onceover_session_run(session, image, &result) == ONCEOVER_OK && result.struct_size == sizeof result);
  return result;
}

/* All but the times. */
static inline int same_result(onceover_result a, onceover_result b) {
  return a.verdict == b.verdict && memcmp(&a.score, &b.score, sizeof a.score) == 0 && a.p_value == b.p_value &&
         a.map_maximum == b.map_maximum && a.patch_row == b.patch_row && a.patch_column == b.patch_column &&
         a.nearest_row == b.nearest_row && a.threshold == b.threshold;
}

#endif
