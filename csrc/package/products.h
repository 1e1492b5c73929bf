// Several products in one package: members "products" (their names) and "gate" (how an image of each looks as a whole).
#pragma once

#include <string>
#include <vector>

#include "package/config.h"

namespace onceover {

// Of the package; one product with an empty name where it does not say. Throws Error(kPackage) unless there are 2 to
// kMaxProducts distinct names of 1 to kMaxProductNameBytes bytes, without control characters, and every required member
// with a number behind its name is one of theirs.
std::vector<std::string> read_products(const Package& package);
// Throws Error(kUsage) for what read_products would refuse.
std::vector<uint8_t> write_products(const std::vector<std::string>& names);

// The mean embedding of the inspected patches, (D), among those of the product's own images: a Mahalanobis distance.
// Its inverse covariance has `rank` axes of their own; along all others it is `isotropic`.
struct GateModel {
  uint32_t dims = 0, rank = 0;
  uint32_t part_count = 0;         // held-out parts behind the threshold
  float threshold = 0;             // a distance above it is no image of this product; positive
  float isotropic = 0;             // inverse variance; positive
  const float* mean = nullptr;     // (D)
  const float* weights = nullptr;  // (rank), inverse variances; positive
  const float* axes = nullptr;     // (rank, D), orthonormal

  // pooled (D) → sqrt of the squared Mahalanobis distance; computed in float64.
  double distance(const float* pooled) const noexcept;
};

// Whether the product has a gate; then it is read in place. Throws Error(kPackage).
bool read_gate(const Package& package, const Config& config, uint32_t product, GateModel& gate);
// Throws Error(kUsage) for what read_gate would refuse.
std::vector<uint8_t> write_gate(const GateModel& gate);

}  // namespace onceover
