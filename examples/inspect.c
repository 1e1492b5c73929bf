/* Inspects one picture: cc inspect.c $(pkg-config --cflags --libs onceover) -o inspect
 *   ./inspect part.onceover /path/of/libonnxruntime.so picture.ppm
 * The picture is a binary PPM of 8 bits (magick picture.png -depth 8 picture.ppm). */
#include <onceover.h>
#include <stdio.h>
#include <stdlib.h>

static int failed(const char* what) {
  fprintf(stderr, "%s: %s\n", what, onceover_last_error());
  return 3;
}

/* → pixels, row by row; the caller's to free. NULL: not such a file. */
static unsigned char* read_ppm(const char* path, unsigned* height, unsigned* width) {
  unsigned char* pixels = NULL;
  FILE* file = fopen(path, "rb");
  if (file != NULL && fscanf(file, "P6 %u %u 255", width, height) == 2 && *width <= 32768 && *height <= 32768) {
    const size_t bytes = (size_t)*height * *width * 3;
    fgetc(file); /* the one white space before the pixels */
    pixels = malloc(bytes);
    if (pixels != NULL && fread(pixels, 1, bytes, file) != bytes) {
      free(pixels);
      pixels = NULL;
    }
  }
  if (file != NULL) fclose(file);
  return pixels;
}

int main(int argc, char** argv) {
  onceover_package* package = NULL;
  onceover_session* session = NULL;
  onceover_session_options options = {.struct_size = sizeof options, .engine = "onnxruntime"};
  onceover_image image = {.struct_size = sizeof image, .format = ONCEOVER_RGB8};
  onceover_result result = {.struct_size = sizeof result};
  unsigned height = 0, width = 0;
  if (argc != 4) {
    fprintf(stderr, "usage: %s PACKAGE ENGINE_LIBRARY PICTURE.ppm\n", argv[0]);
    return 2;
  }
  options.engine_library = argv[2];
  if (onceover_package_open(argv[1], NULL, &package) != ONCEOVER_OK) return failed(argv[1]);
  if (onceover_session_create(package, &options, &session) != ONCEOVER_OK) return failed(argv[2]);
  onceover_package_free(package); /* the session keeps what it needs */

  unsigned char* pixels = read_ppm(argv[3], &height, &width);
  if (pixels == NULL) {
    fprintf(stderr, "%s: not a binary PPM of 8 bits\n", argv[3]);
    return 3;
  }
  image.data = pixels;
  image.height = height;
  image.width = width;
  image.stride_bytes = (ptrdiff_t)width * 3;
  if (onceover_session_run(session, &image, &result) != ONCEOVER_OK) return failed(argv[3]);
  printf("%s score %.9g threshold %.9g p %.9g patch %u,%u\n",
         result.verdict == ONCEOVER_ANOMALOUS ? "anomalous"
         : result.verdict == ONCEOVER_NORMAL  ? "normal"
                                              : "uncalibrated",
         (double)result.score, (double)result.threshold, result.p_value, (unsigned)result.patch_row,
         (unsigned)result.patch_column);
  free(pixels);
  onceover_session_free(session);
  return result.verdict == ONCEOVER_ANOMALOUS;
}
