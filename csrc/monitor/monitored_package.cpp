#include "monitor/monitored_package.h"

#include <algorithm>

#include "package/config.h"

namespace onceover {

MonitoredPackage monitored(const Package& package) {
  const Calibration calibration = read_calibration(package);
  MonitoredPackage told;
  std::copy(package.id().begin(), package.id().end(), told.id.begin());
  if (!calibration.calibrated) return told;
  told.calibration_parts = calibration.n;
  // A score up to the threshold, which is itself one of them, has at most as many calibration scores below it as the
  // threshold has.
  const float* end = calibration.scores + calibration.n;
  const auto below = std::lower_bound(calibration.scores, end, calibration.threshold) - calibration.scores;
  told.accepted_cells = std::min(calibration.n, static_cast<uint32_t>(below) + 1);
  return told;
}

}  // namespace onceover
