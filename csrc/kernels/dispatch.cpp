// Reads kernels.def: which tables exist, which this machine can run, which one is active. The only file of the core
// that reads the environment.
#include "kernels/dispatch.h"

#include <cstdlib>
#include <cstring>
#include <string>

#include "base/cpu_features.h"
#include "base/error.h"

// ONCEOVER_ON_<architecture>(code): code where we compile for it, else nothing.
#define ONCEOVER_ON_any(...) __VA_ARGS__
#if defined(__x86_64__)
#define ONCEOVER_ON_x86_64(...) __VA_ARGS__
#else
#define ONCEOVER_ON_x86_64(...)
#endif
#if defined(__aarch64__)
#define ONCEOVER_ON_aarch64(...) __VA_ARGS__
#else
#define ONCEOVER_ON_aarch64(...)
#endif

namespace onceover {

#define ONCEOVER_KERNEL(symbol, name, architecture) \
  ONCEOVER_ON_##architecture(extern const KernelTable symbol##_kernels;)
#include "kernels/kernels.def"
#undef ONCEOVER_KERNEL

namespace {

struct Known {
  const char* name;
  const KernelTable* table = nullptr;  // null where the architecture, the CPU or the OS lacks it
};

std::vector<Known> known_kernels() {
  std::vector<Known> known;
#define ONCEOVER_KERNEL(symbol, name, architecture) \
  known.push_back({name, nullptr});                 \
  ONCEOVER_ON_##architecture(if (cpu_runs_##symbol()) known.back().table = &symbol##_kernels;)
#include "kernels/kernels.def"
#undef ONCEOVER_KERNEL
  return known;
}

std::string names(const std::vector<Known>& known, bool runnable_only) {
  std::string text;
  for (const Known& each : known) {
    if (runnable_only && each.table == nullptr) continue;
    text += (text.empty() ? "" : ", ") + std::string(each.name);
  }
  return text;
}

// `asked_by` says where the name came from: it opens the message.
const KernelTable& find(const char* name, const char* asked_by) {
  const std::vector<Known> known = known_kernels();
  for (const Known& each : known) {
    if (std::strcmp(each.name, name) != 0) continue;
    if (each.table != nullptr) return *each.table;
    fail(Status::kUsage, "%s '%s': this CPU or operating system cannot run it; available here: %s", asked_by, name,
         names(known, true).c_str());
  }
  fail(Status::kUnknownName, "%s '%s' does not exist; known: %s; available here: %s", asked_by, name,
       names(known, false).c_str(), names(known, true).c_str());
}

const KernelTable& choose() {
  const char* forced = std::getenv("ONCEOVER_ISA");
  if (forced != nullptr && *forced != '\0') return find(forced, "instruction set (from ONCEOVER_ISA)");
  return *available_kernels().front();  // scalar always runs
}

}  // namespace

const KernelTable& kernels() {
  static const KernelTable& active = choose();  // a throw leaves it unset: the next call throws again
  return active;
}

std::vector<const KernelTable*> available_kernels() {
  std::vector<const KernelTable*> tables;
  for (const Known& each : known_kernels()) {
    if (each.table != nullptr) tables.push_back(each.table);
  }
  return tables;
}

const KernelTable& kernels_named(const char* name) { return find(name, "instruction set"); }

}  // namespace onceover
