// The handle of a session, for the files of this room that take one.
#pragma once

#include <atomic>
#include <string>

#include "base/turn.h"
#include "c_api/guard.h"
#include "c_api/package.h"
#include "c_api/session_options.h"
#include "session/session.h"

struct onceover_session final {
  onceover_session(const onceover_package& package, const onceover_session_options& options)
      : arena(options.arena, options.arena_bytes),
        session(package.package, onceover::session_options(options, arena)),
        engine_version(session.engine_version()) {}

  onceover::Arena arena;  // before the session, whose buffers lie in it
  onceover::Session session;
  std::string engine_version;
  std::atomic<bool> busy{false};
};

namespace onceover {

// The body of a function on a session, for one thread at a time.
template <typename Body>
onceover_status with_session(const char* function, onceover_session* session, const Body& body) noexcept {
  return guarded(function, [&] {
    const Turn turn(required(session, "session")->busy, "session");
    body(session->session);
  });
}

}  // namespace onceover
