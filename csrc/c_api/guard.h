// What every function of the public headers stands behind: no exception crosses the border, and no struct is read or
// written beyond the size its caller knows.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "base/error.h"
#include "onceover.h"

namespace onceover {

// The status of the exception being handled; its message is kept for onceover_last_error.
onceover_status report_current_exception(const char* function) noexcept;

// Runs the body of one C function.
template <typename Body>
onceover_status guarded(const char* function, const Body& body) noexcept {
  try {
    body();
    return ONCEOVER_OK;
  } catch (...) {
    return report_current_exception(function);
  }
}

template <typename T>
T* required(T* pointer, const char* name) {
  if (pointer == nullptr) fail(Status::kUsage, "%s is NULL", name);
  return pointer;
}

// An array of no elements needs no address.
template <typename T>
T* required_array(T* pointer, size_t count, const char* name) {
  return count == 0 ? pointer : required(pointer, name);
}

// Where the first published version of a struct ended: what every caller has. Specialized beside its functions.
template <typename Struct>
inline constexpr size_t kFirstSize = 0;

inline constexpr size_t kLargestStruct = 4096;  // more is a struct_size that was never set

template <typename Struct>
void check_struct_size(const Struct& given, const char* name) {
  static_assert(kFirstSize<Struct> > 0);
  if (given.struct_size < kFirstSize<Struct> || given.struct_size > kLargestStruct) {
    fail(Status::kUsage, "%s->struct_size is %u, expected sizeof, at least %zu; set it before the call", name,
         static_cast<unsigned>(given.struct_size), kFirstSize<Struct>);
  }
}

// Members that the caller's version lacks are zero; those that ours lacks are not looked at. NULL: all zero.
template <typename Struct>
Struct read_struct(const Struct* given, const char* name) {
  Struct read = {};
  if (given == nullptr) return read;
  check_struct_size(*given, name);
  std::memcpy(&read, given, std::min<size_t>(given->struct_size, sizeof read));
  return read;
}

// `to` has passed check_struct_size, before the work was done.
template <typename Struct>
void write_struct(Struct written, Struct& to) noexcept {
  written.struct_size = to.struct_size;
  std::memcpy(&to, &written, std::min<size_t>(to.struct_size, sizeof written));
}

}  // namespace onceover
