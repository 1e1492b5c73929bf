#include "engines/library.h"

#include <dlfcn.h>

#include "base/error.h"

namespace onceover {

void* open_library(const LibraryNames& names, const std::string& path) {
  if (path.empty()) {
    fail(Status::kEngine, "engine %s: no library path given; pass the path of %s", names.engine, names.file);
  }
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (library == nullptr) {
    const char* reason = dlerror();
    fail(Status::kEngine,
         "engine %s: cannot load %s (%s); give the path of a %s for this machine (pip install %s has one)",
         names.engine, path.c_str(), reason != nullptr ? reason : "no reason given", names.file, names.package);
  }
  return library;
}

void* find_symbol(void* library, const char* symbol) noexcept { return dlsym(library, symbol); }

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text.empty() ? "none" : text;
}

}  // namespace onceover
