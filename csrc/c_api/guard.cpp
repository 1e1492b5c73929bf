#include "c_api/guard.h"

#include <cstdio>
#include <new>

namespace onceover {
namespace {

// Plain chars: a thread-local object with a destructor would keep the library from being unloaded.
thread_local char last_error[512] = "";

onceover_status report(Status status, const char* function, const char* message) noexcept {
  std::snprintf(last_error, sizeof last_error, "%s: %s", function, message);
  return static_cast<onceover_status>(status);
}

}  // namespace

onceover_status report_current_exception(const char* function) noexcept {
  try {
    throw;
  } catch (const Error& error) {
    return report(error.status(), function, error.what());
  } catch (const std::bad_alloc&) {
    return report(Status::kMemory, function, "out of memory");
  } catch (const std::exception& error) {
    return report(Status::kInternal, function, error.what());
  } catch (...) {
    return report(Status::kInternal, function, "an unknown exception");
  }
}

}  // namespace onceover

extern "C" const char* onceover_last_error(void) { return onceover::last_error; }
