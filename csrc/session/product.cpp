#include "session/product.h"

#include <cmath>
#include <limits>

#include "base/error.h"
#include "session/bank_members.h"

namespace onceover {
namespace {

float finite_threshold(float threshold, const char* name) {
  if (!std::isfinite(threshold)) {
    fail(Status::kUsage, "the %s is %g, expected a finite number", name, static_cast<double>(threshold));
  }
  return threshold;
}

}  // namespace

const char* name_of(Decision decision) noexcept {
  switch (decision) {
    case Decision::kUncalibrated:
      return "uncalibrated";
    case Decision::kNormal:
      return "normal";
    case Decision::kAnomalous:
      return "anomalous";
  }
  return "unknown";
}

Decision decision_of(float score, float threshold) noexcept {
  return threshold == std::numeric_limits<float>::infinity() ? Decision::kUncalibrated
         : score > threshold                                 ? Decision::kAnomalous
                                                             : Decision::kNormal;
}

Product::Product(const Package& package, const Config& config, const KernelTable& table, Memory& memory)
    : index_(index_of(package, memory_bank_of(package, config), table, memory, own_index_)),
      calibration_(read_calibration(package)),
      threshold_(calibration_.threshold),
      map_threshold_(calibration_.map_threshold) {}

void Product::set_threshold(float threshold) { threshold_ = finite_threshold(threshold, "threshold"); }

void Product::set_map_threshold(float map_threshold) {
  map_threshold_ = finite_threshold(map_threshold, "map threshold");
}

}  // namespace onceover
