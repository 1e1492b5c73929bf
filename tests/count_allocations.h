/* Every way to allocate that glibc and the C++ library have, counted. Include it in one file of a program. */
#ifndef COUNT_ALLOCATIONS_H
#define COUNT_ALLOCATIONS_H

#include <stddef.h>
#include <stdlib.h>

static struct {
  size_t calls, bytes; /* bytes asked for, never subtracted */
} allocated = {0, 0};

#if defined(COUNT_ALLOCATIONS) && defined(__GLIBC__)
#define COUNTS_ALLOCATIONS 1
extern void* __libc_malloc(size_t size);
extern void* __libc_calloc(size_t count, size_t size);
extern void* __libc_realloc(void* pointer, size_t size);
extern void* __libc_memalign(size_t alignment, size_t size);

static void count(size_t bytes) {
  __atomic_fetch_add(&allocated.calls, 1, __ATOMIC_RELAXED);
  __atomic_fetch_add(&allocated.bytes, bytes, __ATOMIC_RELAXED);
}

void* malloc(size_t size) {
  count(size);
  return __libc_malloc(size);
}
void* calloc(size_t number, size_t size) {
  count(number * size);
  return __libc_calloc(number, size);
}
void* realloc(void* pointer, size_t size) {
  count(size);
  return __libc_realloc(pointer, size);
}
void* memalign(size_t alignment, size_t size) {
  count(size);
  return __libc_memalign(alignment, size);
}
void* aligned_alloc(size_t alignment, size_t size) {
  count(size);
  return __libc_memalign(alignment, size);
}
int posix_memalign(void** pointer, size_t alignment, size_t size) {
  count(size);
  *pointer = __libc_memalign(alignment, size);
  return *pointer == NULL;
}
#else
#define COUNTS_ALLOCATIONS 0
#endif

#endif
