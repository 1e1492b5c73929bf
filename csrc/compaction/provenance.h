// Where a compacted package came from: its manifest, and image and patch of every memory bank row.
#pragma once

#include <string>
#include <vector>

#include "compaction/compacted_bank.h"

namespace onceover {

struct Provenance {
  std::string manifest;          // JSON
  std::vector<uint32_t> source;  // the member "bank_source", (M, 2); empty where the package has none
};

// The manifest of the package with what is new: "compacted" (old package, journal, candidates), what "compacted" was
// before at the end of "compacted_before", the rows of the bank, and the images of the corrections behind the bank's.
// Throws Error(kPackage) for a manifest that is no JSON object, or a bank_source that does not fit the bank.
Provenance provenance_of(const Corrections& corrections, const CompactedBank& bank, CalibrationState calibration);

}  // namespace onceover
