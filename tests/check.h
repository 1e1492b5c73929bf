// The three lines of test framework the C++ tests need: CHECK, CHECK_THROWS and a summary that fails the process.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <string>

#include "base/error.h"

namespace check {

inline int failures = 0;
inline int checks = 0;

inline bool that(bool ok, const char* expression, const char* file, int line) {
  ++checks;
  if (!ok && ++failures <= 20) std::fprintf(stderr, "%s:%d: failed: %s\n", file, line, expression);
  return ok;
}

inline int summary(const char* name) {
  std::printf("%s: %d checks, %d failed\n", name, checks, failures);
  return failures == 0 && checks > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

}  // namespace check

#define CHECK(expression) check::that((expression), #expression, __FILE__, __LINE__)
// The statement throws onceover::Error with this status, and its message contains `text`.
#define CHECK_THROWS(statement, expected, text)                                                          \
  do {                                                                                                   \
    bool right = false;                                                                                  \
    try {                                                                                                \
      statement;                                                                                         \
    } catch (const onceover::Error& error) {                                                             \
      right = error.status() == (expected) && std::string(error.what()).find(text) != std::string::npos; \
      if (!right) std::fprintf(stderr, "got: %s\n", error.what());                                       \
    }                                                                                                    \
    check::that(right, #statement " throws " #expected, __FILE__, __LINE__);                             \
  } while (0)
