// System calls that a signal may interrupt: a device's timers must not fail a save or an open.
#pragma once

#include <cerrno>

namespace onceover {

// Makes the call again as long as it answers -1 with EINTR; returns what it answered at last.
template <typename Call>
auto retry_interrupted(Call&& call) {
  auto answer = call();
  while (answer == -1 && errno == EINTR) answer = call();
  return answer;
}

}  // namespace onceover
