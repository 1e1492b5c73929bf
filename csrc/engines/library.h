// The shared library of an engine, opened at run time, and owners for what its C API hands out.
#pragma once

#include <memory>
#include <string>
#include <vector>

namespace onceover {

struct LibraryNames {
  const char* engine;   // "openvino"
  const char* file;     // "libopenvino_c.so": what to look for
  const char* package;  // what pip installs
};

// Opens the library and never closes it: engine libraries keep threads and thread-local state, and do not survive
// being unmapped, least of all before objects of theirs. Throws Error(kEngine) naming path, reason and what to install.
void* open_library(const LibraryNames& names, const std::string& path);

// nullptr when the library has no such symbol.
void* find_symbol(void* library, const char* symbol) noexcept;

std::string joined(const std::vector<std::string>& names);  // "CPU, GPU.0", for messages; "none"

// A C API's object and the call that frees it.
template <typename T>
using Handle = std::unique_ptr<T, void (*)(T*)>;

// Runs `create`, which fills a pointer or throws, and owns the result.
template <typename T, typename Create>
Handle<T> own(void (*release)(T*), Create&& create) {
  T* pointer = nullptr;
  create(&pointer);
  return Handle<T>(pointer, release);
}

}  // namespace onceover
