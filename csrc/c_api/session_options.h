// onceover_session_options → what a session is made of.
#pragma once

#include "c_api/arena.h"
#include "onceover.h"
#include "session/session.h"

namespace onceover {

// What the caller's version of the struct knows; NULL: all zero. Throws Error(kUsage) for options that exclude each
// other.
onceover_session_options read_session_options(const onceover_session_options* options);

// `arena` is of the options, and used when they name one.
SessionOptions session_options(const onceover_session_options& options, Arena& arena);

}  // namespace onceover
