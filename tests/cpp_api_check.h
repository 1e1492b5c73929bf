// What the tests of onceover.hpp and its kin have in common.
#pragma once

#include <cstring>

#include "host_network.h"
#include "onceover.hpp"

// The statement throws StatusError with this status, and its message contains `text`.
template <typename Statement>
bool throws(const Statement& statement, onceover_status status, const char* text) {
  try {
    statement();
  } catch (const onceover::StatusError& error) {
    return error.status() == status && std::strstr(error.what(), text) != nullptr;
  }
  return false;
}

// Of sessions whose network is this program's.
inline onceover::InspectionOptions host_options() {
  onceover::InspectionOptions options;
  options.other.host_run = host_network;
  return options;
}
