// What a monitor needs to know of a package, from its calibration.
#pragma once

#include "monitor/monitor.h"
#include "package/reader.h"

namespace onceover {

// An uncalibrated package has no accepted parts, and so no chart of p-values. Throws Error(kPackage).
MonitoredPackage monitored(const Package& package);

}  // namespace onceover
