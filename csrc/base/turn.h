// One object serves one thread at a time: the turn of a thread, refused to a second one; nobody waits. In Python every
// bound class with state that is read or written while the GIL is released takes it in every method, while the GIL is
// held.
#pragma once

#include <atomic>

#include "base/error.h"

namespace onceover {

class Turn {
 public:
  // `what` names the object in the message. Throws Error(kUsage) when another thread holds the turn.
  Turn(std::atomic<bool>& busy, const char* what) : busy_(busy) {
    if (busy_.exchange(true)) {
      fail(Status::kUsage, "this %s is in use by another thread; use one per thread (a package may be shared)", what);
    }
  }
  ~Turn() { busy_.store(false); }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;

 private:
  std::atomic<bool>& busy_;
};

}  // namespace onceover
