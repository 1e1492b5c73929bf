// The journal as Python holds it, for the session that applies it.
#pragma once

#include <atomic>

#include "corrections/corrections.h"

namespace onceover {

struct BoundCorrections {
  BoundCorrections(std::shared_ptr<const Package> package, std::string path, uint32_t max_added_rows)
      : corrections(std::move(package), std::move(path), max_added_rows) {}

  Corrections corrections;
  std::atomic<bool> busy{false};
};

}  // namespace onceover
