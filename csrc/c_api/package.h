// The handle of a package, for the files of this room that take one.
#pragma once

#include <memory>

#include "onceover.h"
#include "package/reader.h"

struct onceover_package final {
  std::shared_ptr<const onceover::Package> package;
};
