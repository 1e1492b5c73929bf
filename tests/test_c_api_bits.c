/* The same bits on every machine: hashes of what sessions answer on x86-64 and ARM64, with every instruction set, are
 * the constants below. They were computed on one machine and say nothing but that all others agree with it; what the
 * answers must be is for the other tests. The network is host_network.h, so that no engine is part of it. */
#include "session_check.h"

#define SCORES 0x68c6a5da5d4271cdu   /* scores, p-values, worst patches, patch scores, nearest memory bank rows */
#define MAPS 0x0e79ddc1f785863cu     /* anomaly maps at input size and at another, and their regions */
#define PACKAGES 0x30762848dbdb4d42u /* the package itself, which the session wrote */

enum { IMAGES = 20, HEIGHT = 50, WIDTH = 70 };

static uint64_t hash_of(uint64_t hash, const void* bytes, size_t size) { /* FNV-1a */
  for (size_t i = 0; i < size; ++i) hash = (hash ^ ((const unsigned char*)bytes)[i]) * 1099511628211u;
  return hash;
}

static void every_answer_has_the_bits_of_all_other_machines(uint32_t threads) {
  static float map[HEIGHT * WIDTH];
  uint64_t scores = 14695981039346656037u, maps = scores, packages = scores;
  onceover_package* package = opened();
  onceover_session_options options = host_options();
  onceover_package_info info = {.struct_size = sizeof info};
  options.threads = threads;
  options.max_map_width = WIDTH;
  onceover_session* session = created(package, &options);
  CHECK(onceover_package_describe(package, &info) == ONCEOVER_OK);
  packages = hash_of(packages, info.id, sizeof info.id);
  for (uint32_t seed = 50; seed < 50 + IMAGES; ++seed) {
    frame seen;
    onceover_region regions[8];
    const float* patches = NULL;
    const uint32_t* rows = NULL;
    size_t count = 0;
    fill_frame(&seen, seed, seed % 2 == 0);
    const onceover_result result = run_of(session, &seen.image);
    CHECK(onceover_session_patches(session, &patches, &rows) == ONCEOVER_OK);
    scores =
        hash_of(scores, &result.verdict, offsetof(onceover_result, prepare_ns) - offsetof(onceover_result, verdict));
    scores = hash_of(scores, patches, HOST_PATCHES * sizeof *patches);
    scores = hash_of(scores, rows, HOST_PATCHES * sizeof *rows);
    CHECK(onceover_session_draw_map(session, map, HOST_HEIGHT, HOST_WIDTH, HOST_WIDTH) == ONCEOVER_OK);
    maps = hash_of(maps, map, HOST_HEIGHT * HOST_WIDTH * sizeof *map);
    CHECK(onceover_session_draw_map(session, map, HEIGHT, WIDTH, WIDTH) == ONCEOVER_OK);
    CHECK(onceover_session_find_regions(session, map, HEIGHT, WIDTH, WIDTH, regions, 8, &count) == ONCEOVER_OK);
    maps = hash_of(maps, map, sizeof map);
    maps = hash_of(maps, regions, (count < 8 ? count : 8) * sizeof *regions);
  }
  CHECK(scores == SCORES);
  CHECK(maps == MAPS);
  CHECK(packages == PACKAGES);
  if (failures > 0) {
    fprintf(stderr, "scores 0x%016llx, maps 0x%016llx, package 0x%016llx\n", (unsigned long long)scores,
            (unsigned long long)maps, (unsigned long long)packages);
  }
  onceover_session_free(session);
  onceover_package_free(package);
}

int main(int argc, char** argv) {
  take_package_path(argc, argv);
  every_answer_has_the_bits_of_all_other_machines(1);
  every_answer_has_the_bits_of_all_other_machines(3);
  return summary("test_c_api_bits");
}
