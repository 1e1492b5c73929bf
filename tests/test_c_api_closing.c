/* A program that has opened libonceover.so, used it and closed it, is rid of it: no destructor of the library, of a
 * thread or of the process holds it. */
#define _POSIX_C_SOURCE 200112L

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "onceover.h"

typedef onceover_status (*build_function)(const float*, size_t, size_t, const onceover_memory_bank_options*,
                                          onceover_memory_bank**);
typedef void (*free_function)(onceover_memory_bank*);
typedef const char* (*error_function)(void);

/* ISO C has no cast from an object pointer to a function pointer. */
static void find(void* library, const char* name, void* function) {
  void* symbol = dlsym(library, name);
  memcpy(function, &symbol, sizeof symbol);
}

static int use(void* library) {
  const float rows[] = {1, 2, 3, 4};
  onceover_memory_bank* bank = NULL;
  build_function build = NULL;
  free_function release = NULL;
  error_function last_error = NULL;
  find(library, "onceover_memory_bank_build", &build);
  find(library, "onceover_memory_bank_free", &release);
  find(library, "onceover_last_error", &last_error);
  if (build == NULL || release == NULL || last_error == NULL) return 0;
  if (build(rows, 2, 0, NULL, &bank) != ONCEOVER_INPUT || strlen(last_error()) == 0) return 0;
  if (build(rows, 2, 2, NULL, &bank) != ONCEOVER_OK) return 0;
  release(bank);
  return 1;
}

int main(int argc, char** argv) {
  int round;
  for (round = 0; round < 3; ++round) {
    void* library = argc == 2 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : NULL;
    if (library == NULL || !use(library)) {
      fprintf(stderr, "%s cannot be opened and used\n", argc == 2 ? argv[1] : "(no library named)");
      return 1;
    }
    dlclose(library);
    if (dlopen(argv[1], RTLD_NOW | RTLD_NOLOAD) != NULL) {
      fprintf(stderr, "%s was closed and is still there\n", argv[1]);
      return 1;
    }
  }
  printf("test_c_api_closing: opened, used and closed %d times\n", round);
  return 0;
}
