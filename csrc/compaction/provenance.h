// Where a compacted package came from: its manifest, and image and patch of every memory bank row.
#pragma once

#include <vector>

#include "compaction/compacted_bank.h"
#include "compaction/json_text.h"

namespace onceover {

// The manifest of the corrections' package, to be added to; of several products each has an object of its own in
// "products". Throws Error(kPackage) for one that is no JSON object, or whose "products" are others.
JsonText manifest_of(const Corrections& corrections);

// Writes into the manifest, or the bank's product's part of it, what is new: "compacted" (old package, journal,
// candidates), what "compacted" was before at the end of "compacted_before", the rows of the bank, and the images of
// the corrections behind the bank's. → the product's member "bank_source", (M, 2); empty where the package has none.
// Throws Error(kPackage) for a bank_source that does not fit the bank.
std::vector<uint32_t> add_provenance(JsonText& manifest, const Corrections& corrections, const CompactedBank& bank,
                                     CalibrationState calibration);

}  // namespace onceover
