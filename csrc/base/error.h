// The one exception of the core: a status of include/onceover.h and a message that says what, where, what to do.
#pragma once

#include <cstdarg>
#include <stdexcept>
#include <string>

#include "onceover.h"

namespace onceover {

enum class Status : int {
  kInput = ONCEOVER_INPUT,
  kUsage = ONCEOVER_USAGE,
  kUnknownName = ONCEOVER_UNKNOWN_NAME,
  kPackage = ONCEOVER_PACKAGE,
  kUnsupported = ONCEOVER_UNSUPPORTED,
  kEngine = ONCEOVER_ENGINE,
  kMemory = ONCEOVER_MEMORY,
  kVerification = ONCEOVER_VERIFICATION,
  kInternal = ONCEOVER_INTERNAL,
  kOutput = ONCEOVER_OUTPUT,
  kCancelled = ONCEOVER_CANCELLED,
};

class Error : public std::runtime_error {
 public:
  Error(Status status, const std::string& message) : std::runtime_error(message), status_(status) {}
  Status status() const noexcept { return status_; }

 private:
  Status status_;
};

// Throws Error with a printf-formatted message.
[[noreturn]] void fail(Status status, const char* format, ...) __attribute__((format(printf, 2, 3)));

}  // namespace onceover
