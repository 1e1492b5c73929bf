#include "c_api/session_options.h"

#include <cstddef>

#include "c_api/guard.h"

namespace onceover {

template <>
inline constexpr size_t kFirstSize<onceover_session_options> =
    offsetof(onceover_session_options, cpu_mask) + sizeof(uint64_t);

namespace {

const char* text_or_empty(const char* text) { return text == nullptr ? "" : text; }

EngineOptions engine_options(const onceover_session_options& given) {
  EngineOptions engine;
  engine.name = given.engine == nullptr ? "host" : given.engine;
  engine.library_path = text_or_empty(given.engine_library);
  engine.threads = given.threads == 0 ? 1 : given.threads;
  engine.device = text_or_empty(given.device);
  engine.cache_dir = text_or_empty(given.cache_dir);
  for (const char* const* each = given.engine_options; each != nullptr && *each != nullptr; each += 2) {
    if (each[1] == nullptr) fail(Status::kUsage, "options->engine_options: '%s' has no value", *each);
    engine.options.emplace_back(each[0], each[1]);
  }
  engine.host = {given.host_run, given.host_context};
  return engine;
}

}  // namespace

onceover_session_options read_session_options(const onceover_session_options* options) {
  const onceover_session_options given = read_struct(options, "options");
  if (given.threads > kMaxEngineThreads) {  // before any of them is started
    fail(Status::kUsage, "options->threads is %u, expected at most %u", given.threads, kMaxEngineThreads);
  }
  if ((given.allocate == nullptr) != (given.release == nullptr)) {
    fail(Status::kUsage, "options->allocate and options->release belong together; set both or none");
  }
  if (given.arena != nullptr && given.allocate != nullptr) {
    fail(Status::kUsage, "options name both an arena and an allocator; set one of them");
  }
  if (given.arena_bytes > UINTPTR_MAX - reinterpret_cast<uintptr_t>(given.arena)) {
    fail(Status::kUsage, "options->arena_bytes is %zu, more than there can be at options->arena", given.arena_bytes);
  }
  if (given.arena == nullptr && given.arena_bytes != 0) {
    fail(Status::kUsage, "options->arena is NULL and options->arena_bytes %zu", given.arena_bytes);
  }
  if (given.host_run != nullptr && given.engine != nullptr && std::strcmp(given.engine, "host") != 0) {
    fail(Status::kUsage, "options->host_run is set and options->engine is '%s'; only the engine host calls it",
         given.engine);
  }
  return given;
}

SessionOptions session_options(const onceover_session_options& given, Arena& arena) {
  SessionOptions options;
  options.engine = engine_options(given);
  options.memory_limit_bytes = given.memory_limit_bytes;
  options.max_map_width = given.max_map_width;
  options.cpu_mask = given.cpu_mask;
  options.touch_pages = given.touch_pages != 0;
  if (given.arena != nullptr) options.allocator = arena.allocator();
  if (given.allocate != nullptr) options.allocator = {given.allocator_context, given.allocate, given.release};
  return options;
}

}  // namespace onceover
