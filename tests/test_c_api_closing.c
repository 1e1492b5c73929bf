/* A program that has opened libonceover.so, used it and closed it, is rid of it: no destructor of the library, of a
 * thread or of the process holds it, and no memory stays behind. Arguments: the library, a package. */
#define _POSIX_C_SOURCE 200112L

#include <dlfcn.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "host_network.h"
#include "onceover_memory_bank.h"

/* Under qemu's user mode resident memory is the emulator's own, which keeps what it translated: a library of one
 * function leaves two pages each time it is opened, called and closed. There only heap and mappings are compared, which
 * are the program's. Sanitizers keep what was freed: they look for leaks themselves. */
#ifdef SANITIZED
enum { SANITIZERS = 1 };
#else
enum { SANITIZERS = 0 };
#endif
enum { WARM_UP = 50, ROUNDS = 2000, EMULATED_ROUNDS = 200, MOST_PAGES = 100, MOST_HEAP_BYTES = 65536 };

/* ISO C has no cast from an object pointer to a function pointer. */
static void find(void* library, const char* name, void* function) {
  void* symbol = dlsym(library, name);
  if (symbol == NULL) {
    fprintf(stderr, "no %s in the library\n", name);
    exit(1);
  }
  memcpy(function, &symbol, sizeof symbol);
}

static int builds_and_fails(void* library) {
  const float rows[] = {1, 2, 3, 4};
  onceover_memory_bank* bank = NULL;
  onceover_status (*build)(const float*, size_t, size_t, const onceover_memory_bank_options*, onceover_memory_bank**);
  void (*release)(onceover_memory_bank*);
  const char* (*last_error)(void);
  find(library, "onceover_memory_bank_build", &build);
  find(library, "onceover_memory_bank_free", &release);
  find(library, "onceover_last_error", &last_error);
  if (build(rows, 2, 0, NULL, &bank) != ONCEOVER_INPUT || strlen(last_error()) == 0) return 0;
  if (build(rows, 2, 2, NULL, &bank) != ONCEOVER_OK) return 0;
  release(bank);
  return 1;
}

/* On two threads, so that one that the library started ends before it is closed. */
static int inspects(void* library, const char* path) {
  onceover_status (*open)(const char*, const onceover_package_options*, onceover_package**);
  onceover_status (*create)(const onceover_package*, const onceover_session_options*, onceover_session**);
  onceover_status (*run)(onceover_session*, const onceover_image*, onceover_result*);
  void (*free_session)(onceover_session*);
  void (*free_package)(onceover_package*);
  find(library, "onceover_package_open", &open);
  find(library, "onceover_session_create", &create);
  find(library, "onceover_session_run", &run);
  find(library, "onceover_session_free", &free_session);
  find(library, "onceover_package_free", &free_package);
  static uint8_t pixels[32 * 48];
  onceover_package* package = NULL;
  onceover_session* session = NULL;
  const onceover_session_options options = {.struct_size = sizeof options, .threads = 2, .host_run = host_network};
  onceover_image image = {.struct_size = sizeof image, .format = ONCEOVER_GRAY8, .height = 32, .width = 48};
  onceover_result result = {.struct_size = sizeof result};
  image.data = pixels;
  image.stride_bytes = 48;
  const int right = open(path, NULL, &package) == ONCEOVER_OK && create(package, &options, &session) == ONCEOVER_OK &&
                    run(session, &image, &result) == ONCEOVER_OK && result.verdict == ONCEOVER_ANOMALOUS;
  free_session(session);
  free_package(package);
  return right;
}

typedef struct usage {
  long resident_pages, mappings;
  size_t heap_bytes;
} usage;

static usage measure(void) {
  usage now = {0, 0, 0};
  long size = 0;
#ifdef __GLIBC__
  malloc_trim(0); /* it keeps up to some 300 pages of what was freed, sometimes more and sometimes less */
#endif
  FILE* file = fopen("/proc/self/statm", "r");
  if (file == NULL || fscanf(file, "%ld %ld", &size, &now.resident_pages) != 2) exit(2);
  fclose(file);
  file = fopen("/proc/self/maps", "r");
  if (file == NULL) exit(2);
  for (int c = getc(file); c != EOF; c = getc(file)) now.mappings += c == '\n';
  fclose(file);
#if defined(__GLIBC__) && (__GLIBC__ > 2 || __GLIBC_MINOR__ >= 33)
  now.heap_bytes = mallinfo2().uordblks;
#endif
  return now;
}

int main(int argc, char** argv) {
  const int emulated = getenv("ONCEOVER_QEMU") != NULL;
  const int rounds = SANITIZERS ? WARM_UP + 1 : emulated ? EMULATED_ROUNDS : ROUNDS;
  usage before = {0, 0, 0};
  if (argc != 3) return 2;
  for (int round = 0; round < rounds; ++round) {
    void* library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    if (library == NULL || !builds_and_fails(library) || !inspects(library, argv[2])) {
      fprintf(stderr, "%s cannot be opened and used: %s\n", argv[1], library == NULL ? dlerror() : "wrong answers");
      return 1;
    }
    dlclose(library);
    if (dlopen(argv[1], RTLD_NOW | RTLD_NOLOAD) != NULL) {
      fprintf(stderr, "%s was closed and is still there\n", argv[1]);
      return 1;
    }
    if (round == WARM_UP) before = measure();
  }
  const usage after = measure();
  const long pages = after.resident_pages - before.resident_pages, mappings = after.mappings - before.mappings;
  const long heap = (long)after.heap_bytes - (long)before.heap_bytes;
  printf(
      "test_c_api_closing: opened, used and closed %d times; since round %d %ld bytes of heap, %ld mappings, %ld "
      "pages\n",
      rounds, WARM_UP, heap, mappings, pages);
  if (SANITIZERS) return 0;
  return heap > MOST_HEAP_BYTES || mappings > 4 || (pages > MOST_PAGES && !emulated);
}
