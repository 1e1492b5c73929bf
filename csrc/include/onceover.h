/* onceover: visual anomaly inspection on edge devices. The C ABI (C99): image → verdict, without Python. Beside it:
 * onceover_memory_bank.h (nearest neighbors), onceover_metrics.h (pixel metrics), onceover_monitor.h (drift),
 * onceover_corrections.h (false alarms); each for C++ in a .hpp of the same name. A whole program:
 *
 *   #include <stdio.h>
 *
 *   #include "onceover.h"
 *
 *   int main(int argc, char** argv) {  // part.onceover /opt/onnxruntime/lib/libonnxruntime.so.1
 *     static unsigned char pixels[480][640][3];  // what your camera gave: RGB, row by row
 *     onceover_package* package = NULL;
 *     onceover_session* session = NULL;
 *     onceover_session_options options = {.struct_size = sizeof options, .engine = "onnxruntime"};
 *     onceover_image image = {.struct_size = sizeof image, .format = ONCEOVER_RGB8, .height = 480, .width = 640};
 *     onceover_result result = {.struct_size = sizeof result};
 *     options.engine_library = argc > 2 ? argv[2] : "libonnxruntime.so.1";
 *     image.data = pixels;
 *     image.stride_bytes = sizeof pixels[0];
 *     onceover_status status = onceover_package_open(argc > 1 ? argv[1] : "part.onceover", NULL, &package);
 *     if (status == ONCEOVER_OK) status = onceover_session_create(package, &options, &session);
 *     if (status == ONCEOVER_OK) status = onceover_session_run(session, &image, &result);  // as often as you like
 *     if (status == ONCEOVER_OK)
 *       printf("%s, score %g\n", result.verdict == ONCEOVER_NORMAL ? "normal" : "not normal", (double)result.score);
 *     else
 *       fprintf(stderr, "%s\n", onceover_last_error());
 *     onceover_session_free(session);
 *     onceover_package_free(package);
 *     return status != ONCEOVER_OK;
 *   }
 *
 * For every function:
 * - It returns a status and throws nothing. When it fails, onceover_last_error() says what and what to do, what it was
 *   to change is as before, and of its results only handles (NULL) and onceover_result (no verdict) are written.
 * - Pointers to const are read, others are written. None may be NULL unless its comment says so, or it points to no
 *   elements.
 * - Pointers are used during the call only, unless a comment says "borrowed": then what they point to must stay, and
 *   stay as it is, that long. What a function hands out as a pointer to const is the library's: never freed.
 * - Images and matrices are row-major. More alignment than C's is asked for where it is needed.
 * - A package may be used by several threads at once. A session serves one thread at a time, and refuses a second one.
 * - Structs grow at their end and begin with their own size: set struct_size to sizeof and the rest to zero, as in
 *   `onceover_result result = {.struct_size = sizeof result};`. A library older or newer than the header reads and
 *   writes the members that both know, and never beyond struct_size. Zero is the default of every option. */
#ifndef ONCEOVER_H
#define ONCEOVER_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define ONCEOVER_API __attribute__((visibility("default")))
#else
#define ONCEOVER_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define ONCEOVER_ABI_VERSION 2 /* changes when a program built for another one would not work */

typedef enum onceover_status {
  ONCEOVER_OK = 0,
  ONCEOVER_INPUT = 1,         /* an image or file of the user's cannot be used */
  ONCEOVER_USAGE = 2,         /* an argument makes no sense */
  ONCEOVER_UNKNOWN_NAME = 3,  /* an engine or instruction set that does not exist */
  ONCEOVER_PACKAGE = 4,       /* a package is damaged, or is not a package */
  ONCEOVER_UNSUPPORTED = 5,   /* another format version, or an unknown required member */
  ONCEOVER_ENGINE = 6,        /* the engine failed, or its answer cannot be trusted */
  ONCEOVER_MEMORY = 7,        /* more memory needed than allowed or available */
  ONCEOVER_NOT_FITTED = 8,    /* a detector was used before fit (Python only) */
  ONCEOVER_MISSING_EXTRA = 9, /* an optional dependency is absent (Python only) */
  ONCEOVER_VERIFICATION = 10, /* a package does not reproduce its own record */
  ONCEOVER_INTERNAL = 11,     /* a defect of onceover itself */
  ONCEOVER_OUTPUT = 12,       /* a file cannot be written */
  ONCEOVER_CANCELLED = 13     /* the application asked to stop (C only; in Python an exception does) */
} onceover_status;

/* What went wrong in the last call of this thread that failed, or "". The library's; valid until the next one fails. */
ONCEOVER_API const char* onceover_last_error(void);
ONCEOVER_API const char* onceover_version(void);  /* of the library: "0.1.0" */
ONCEOVER_API uint32_t onceover_abi_version(void); /* compare with ONCEOVER_ABI_VERSION */
/* The instruction set in use: what ONCEOVER_ISA names, else this machine's best. UNKNOWN_NAME and USAGE for that. */
ONCEOVER_API onceover_status onceover_isa(const char** name);

/* ---- Package: what `onceover fit` wrote. ---- */

typedef struct onceover_package onceover_package;

typedef struct onceover_package_options {
  uint32_t struct_size;
  uint32_t copy;       /* 1: read the file into memory; else it is mapped, and must not be cut while it is open */
  uint32_t hash_small; /* 1: hash only members up to 64 KiB; damage of graph and memory bank is left to verify */
} onceover_package_options;

typedef struct onceover_package_info {
  uint32_t struct_size;
  uint32_t format_major, format_minor;
  uint8_t id[32]; /* SHA-256 that names every byte of the package: what a signature signs (export/FORMAT.md) */
  uint32_t input_height, input_width;              /* of the network: (1, 3, H, W) float32 */
  uint32_t grid_height, grid_width, embedding_dim; /* its features: (1, grid_height * grid_width, embedding_dim) */
  uint32_t calibrated;                             /* 0: no threshold, no verdicts */
  float threshold, map_threshold;                  /* +infinity when not calibrated */
  double false_alarm_rate;
  uint64_t bank_rows;
  const char* manifest; /* JSON, not terminated by 0; NULL: none. The package's, valid until it is freed */
  size_t manifest_bytes;
  uint32_t calibration_parts;         /* independent parts behind the threshold and the p-values */
  uint32_t cross_conformal;           /* 1: scored by banks without their fold; at most twice the rate is proven */
  double confidence;                  /* that the realised rate is at most false_alarm_rate; 0: it holds on average */
  uint32_t tile_rows, tile_columns;   /* the network runs once for each tile of an image; 1, 1: for the whole */
  uint32_t score_height, score_width; /* patch scores of an image, of all tiles; grid_height, grid_width for one */
  uint32_t map_height, map_width;     /* the anomaly map's own size; input_height, input_width for one tile */
  uint32_t has_roi;                   /* 1: only a part of the image is inspected; scores and maps are 0 outside */
  uint32_t product_count;             /* 1: the package's own; else see onceover_package_product */
} onceover_package_info;

/* One product of a package that several share; where it has one, that one, with an empty name. */
typedef struct onceover_product_info {
  uint32_t struct_size;
  uint32_t calibrated;
  char name[48]; /* UTF-8 */
  float threshold, map_threshold;
  double false_alarm_rate;
  uint64_t bank_rows;
  uint32_t has_roi;
  uint32_t has_gate; /* 1: images of it are told from others, as ONCEOVER_AUTOMATIC takes for all products */
} onceover_product_info;

/* Opens a file and checks it. `options` may be NULL. INPUT: it cannot be read; PACKAGE; UNSUPPORTED. */
ONCEOVER_API onceover_status onceover_package_open(const char* path, const onceover_package_options* options,
                                                   onceover_package** package);
/* The same for bytes in memory or flash, borrowed until the package and its sessions are freed. They are read in place
 * where they begin at a multiple of 64, else copied. */
ONCEOVER_API onceover_status onceover_package_view(const void* data, size_t bytes, onceover_package** package);
ONCEOVER_API onceover_status onceover_package_describe(const onceover_package* package, onceover_package_info* info);
/* What export/FORMAT.md says of a member, in place, at a multiple of 64: "bank_source" tells image and patch of each
 * memory bank row, "thumbnails" holds pictures of them. The package's, valid until it is freed; `data` gets NULL and
 * `bytes` 0 when there is no such member. */
ONCEOVER_API onceover_status onceover_package_find_member(const onceover_package* package, const char* name,
                                                          const void** data, size_t* bytes);
/* Product number `product`, from 0. What onceover_package_describe says of thresholds, rate, bank and region is of the
 * first one. USAGE: there is no such product. */
ONCEOVER_API onceover_status onceover_package_product(const onceover_package* package, uint32_t product,
                                                      onceover_product_info* info);
/* Hashes every member again. PACKAGE: one is damaged. */
ONCEOVER_API onceover_status onceover_package_verify(const onceover_package* package);
/* NULL is allowed. Sessions keep what they need of it. */
ONCEOVER_API void onceover_package_free(onceover_package* package);

/* ---- Session: package + engine → verdicts. ---- */

typedef struct onceover_session onceover_session;

/* The application's own network (engine "host"): reads input (1, 3, H, W), fills output (1, P, D), returns 0 or a code
 * of its own for a failure. Called by onceover_session_run, on its thread, once for each tile. */
typedef int32_t (*onceover_host_run)(void* context, const float* input, float* output);
/* The application's memory: NULL when there is none. Called while a session is created, first corrected and freed,
 * never in a run. */
typedef void* (*onceover_allocate)(void* context, size_t bytes, size_t alignment);
typedef void (*onceover_release)(void* context, void* pointer, size_t bytes, size_t alignment);

typedef struct onceover_session_options {
  uint32_t struct_size;
  uint32_t threads;           /* of scoring and engine, at most 256; 0: 1 */
  const char* engine;         /* "onnxruntime", "openvino" or "host"; NULL: "host" */
  const char* engine_library; /* path of libonnxruntime.so or libopenvino_c.so, or a name for the system's search */
  const char* device;         /* as docs/exporting.md; NULL: the CPU */
  const char* cache_dir;      /* for compiled graphs; NULL: none are kept */
  const char* const* engine_options; /* key, value, key, value, …, NULL; or NULL */
  onceover_host_run host_run;        /* NULL: run takes no images, run_features does */
  void* host_context;                /* borrowed, as is the allocator's */
  void* arena;                       /* where all buffers lie, borrowed until the session is freed; NULL: not used */
  size_t arena_bytes;
  onceover_allocate allocate; /* where there is no arena; NULL: the heap */
  onceover_release release;
  void* allocator_context;
  size_t memory_limit_bytes; /* of our buffers, not of what the engine allocates; 0: none */
  uint32_t max_map_width;    /* of maps whose regions are asked for: your images'; 0: the package's map_width */
  uint32_t touch_pages;      /* 1: read every page of the package now, so that no run waits for one */
  uint64_t cpu_mask;         /* CPUs 0 … 63 where threads that we start may run; 0: all */
} onceover_session_options;

typedef struct onceover_session_info {
  uint32_t struct_size;
  uint32_t threads;
  size_t memory_bytes; /* of our buffers; beside them a few handles, less than 4096 bytes and 2048 for each product
                          beyond the first, and the engine's own */
  const char* engine_version; /* the session's, as long as it lives */
  const char* isa;
  float threshold, map_threshold; /* in force, of the selected product or that of the last run; +infinity: none */
} onceover_session_info;

/* Bytes of arena or limit that a session with these options needs; takes as much from the heap for a moment, and opens
 * no engine. */
ONCEOVER_API onceover_status onceover_session_query_memory(const onceover_package* package,
                                                           const onceover_session_options* options, size_t* bytes);
/* MEMORY: the limit, the arena or the system has less than is needed; ENGINE; UNKNOWN_NAME; PACKAGE; USAGE. */
ONCEOVER_API onceover_status onceover_session_create(const onceover_package* package,
                                                     const onceover_session_options* options,
                                                     onceover_session** session);
ONCEOVER_API onceover_status onceover_session_describe(onceover_session* session, onceover_session_info* info);
ONCEOVER_API void onceover_session_free(onceover_session* session); /* NULL is allowed */

/* Alpha is ignored; NV12 has even sides. 16 bits are in the machine's byte order, and white is 65535: values of a
 * 12-bit camera are shifted left by 4 first. */
/* clang-format off */
typedef enum onceover_pixel_format {
  ONCEOVER_GRAY8 = 1, ONCEOVER_RGB8 = 2, ONCEOVER_BGR8 = 3, ONCEOVER_RGBA8 = 4, ONCEOVER_BGRA8 = 5,
  ONCEOVER_GRAY16 = 6, ONCEOVER_RGB16 = 7, ONCEOVER_BGR16 = 8, ONCEOVER_RGBA16 = 9, ONCEOVER_BGRA16 = 10,
  ONCEOVER_NV12 = 11
} onceover_pixel_format;
/* How NV12 was made from RGB. Limited: black is 16 and white 235. */
typedef enum onceover_yuv_matrix {
  ONCEOVER_BT601_LIMITED = 0, ONCEOVER_BT601_FULL = 1, ONCEOVER_BT709_LIMITED = 2, ONCEOVER_BT709_FULL = 3
} onceover_yuv_matrix;
/* NO_VERDICT: the call failed, or there is no threshold. WRONG_PART: none of the products is in view; score and map are
 * those of the product that comes nearest. */
typedef enum onceover_verdict {
  ONCEOVER_NO_VERDICT = 0, ONCEOVER_NORMAL = 1, ONCEOVER_ANOMALOUS = 2, ONCEOVER_WRONG_PART = 3
} onceover_verdict;
/* clang-format on */

typedef struct onceover_image {
  uint32_t struct_size;
  uint32_t format; /* onceover_pixel_format */
  uint32_t height, width;
  const void* data;       /* the first row: the top of the image, wherever it lies in memory */
  ptrdiff_t stride_bytes; /* from one row to the next; negative for frames stored bottom-up */
  const void* chroma;     /* of NV12: the first row of its U, V pairs */
  ptrdiff_t chroma_stride_bytes;
  uint32_t yuv_matrix;                               /* onceover_yuv_matrix */
  uint32_t roi_top, roi_left, roi_height, roi_width; /* the part to inspect; height and width 0: the whole image */
} onceover_image;

typedef struct onceover_result {
  uint32_t struct_size;
  uint32_t verdict; /* onceover_verdict */
  float score;      /* of the worst patch: distance to its nearest memory bank row, weighed by where it is; anomalous is
                       above the threshold */
  float threshold;
  double p_value;                   /* of the score among the calibration scores; 1 when there are none */
  float map_maximum;                /* of the anomaly map at its own size */
  uint32_t patch_row, patch_column; /* of the worst patch, in the grid of the patch scores */
  uint32_t nearest_row;             /* its nearest memory bank row */
  uint64_t prepare_ns, engine_ns, score_ns, map_ns;
  uint32_t product;  /* whose memory bank and thresholds these are; from 0 */
  double gate_ratio; /* with ONCEOVER_AUTOMATIC: how far from the product's own images, above 1 a wrong part; else 0 */
} onceover_result;

typedef struct onceover_region {     /* pixels of the map it was found in. An element of arrays, so it never grows */
  uint32_t top, left, bottom, right; /* bottom and right exclusive */
  uint32_t area, peak_row, peak_column;
  float peak_value;
  float centroid_row, centroid_column; /* mean of its pixels, each counting alike; pixel centers are whole numbers */
  uint32_t first_column;               /* of its first pixel in row order, which lies in row `top` */
} onceover_region;

typedef struct onceover_point { /* a pixel. An element of arrays, so it never grows */
  uint32_t row, column;
} onceover_point;

/* One image → result. Our code allocates nothing, opens nothing and, with one thread, takes no lock. INPUT: an image
 * that cannot be read; ENGINE: a failed run, or an answer or a score that is not finite. */
ONCEOVER_API onceover_status onceover_session_run(onceover_session* session, const onceover_image* image,
                                                  onceover_result* result);
/* The two halves around a network that runs elsewhere: image → input (tiles, 3, H, W), and its answer, features
 * (tiles * P, D), → result. Row p of the features starts at features[p * stride_floats]; tiles go row by row. */
ONCEOVER_API onceover_status onceover_session_prepare(onceover_session* session, const onceover_image* image,
                                                      float* input, size_t input_floats);
ONCEOVER_API onceover_status onceover_session_run_features(onceover_session* session, const float* features,
                                                           size_t patches, size_t dims, size_t stride_floats,
                                                           onceover_result* result);
/* The last run's anomaly map at any size; row y at map + y * stride_floats. USAGE: there was none, or it failed. */
ONCEOVER_API onceover_status onceover_session_draw_map(onceover_session* session, float* map, size_t height,
                                                       size_t width, size_t stride_floats);
/* The regions above the map threshold of a map that draw_map drew, those with the largest peaks first, up to `capacity`
 * of them; `count` gets how many there are. None unless the last image was anomalous. USAGE: the map is wider than the
 * session's max_map_width. */
ONCEOVER_API onceover_status onceover_session_find_regions(onceover_session* session, const float* map, size_t height,
                                                           size_t width, size_t stride_floats, onceover_region* regions,
                                                           size_t capacity, size_t* count);
/* The outline of a region that find_regions told of this map: the pixels of its outer border, clockwise as seen, from
 * its first pixel in row order, closed; up to `capacity` of them, at most 4 per pixel of its area. `count` gets how
 * many there are. USAGE: it is no region of this map, or the map threshold was changed since. */
ONCEOVER_API onceover_status onceover_session_trace_contour(onceover_session* session, const float* map, size_t height,
                                                            size_t width, size_t stride_floats,
                                                            const onceover_region* region, onceover_point* points,
                                                            size_t capacity, size_t* count);
/* How rare such a region is: (1 + calibration parts with a map value of at least `peak_value`) / (1 + all of them), for
 * maps at about input size. Asked of any session, run or not. USAGE: a peak that is not a number. */
ONCEOVER_API onceover_status onceover_session_region_p_value(onceover_session* session, float peak_value,
                                                             double* p_value);
/* The last run's patch scores and nearest memory bank rows (score_height, score_width); valid until the next run. Where
 * tiles overlap, the least score counts. */
ONCEOVER_API onceover_status onceover_session_patches(onceover_session* session, const float** scores,
                                                      const uint32_t** nearest_rows);
/* Which product the next runs inspect. At first the only one, or of several ONCEOVER_AUTOMATIC: the one whose gate the
 * image comes nearest to, and ONCEOVER_WRONG_PART where no gate lets it in; so also for a single product. USAGE: there
 * is no such product, or one without a gate. A run under ONCEOVER_AUTOMATIC is USAGE where a product has no gate. */
#define ONCEOVER_AUTOMATIC UINT32_MAX
ONCEOVER_API onceover_status onceover_session_select_product(onceover_session* session, uint32_t product);
/* Decide by these instead of the package's, from the next run on; finite. Of several products one must be selected. */
ONCEOVER_API onceover_status onceover_session_set_threshold(onceover_session* session, float threshold);
ONCEOVER_API onceover_status onceover_session_set_map_threshold(onceover_session* session, float map_threshold);
/* Runs the reference images of the package and compares with what the machine that fitted it computed. `images` (how
 * many) and `largest_difference` (relative, of scores and map) may be NULL. VERIFICATION: this machine differs. */
ONCEOVER_API onceover_status onceover_session_self_test(onceover_session* session, uint32_t* images,
                                                        double* largest_difference);

#ifdef __cplusplus
}
#endif
#endif
