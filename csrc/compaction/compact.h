// A package and its journal → a new package with the corrections inside, which has proven itself before it gets its
// name. What the corrected session decides, the new package decides, with the same bits.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "compaction/compacted_bank.h"
#include "session/session.h"

namespace onceover {

struct CompactOptions {
  // A session of a package: first of the corrected one, and when that is gone of the new one.
  std::function<std::unique_ptr<Session>(std::shared_ptr<const Package>)> open_session;
  CompactProgress progress = [](const char*, size_t, size_t) {};
};

// Writes `output`, another file, and returns the id of the new package. Its memory bank has the rows that are left and
// those that joined, in this order; thresholds are those that the corrections came to; candidates that are not
// confirmed are left behind, and optional members that this version does not know. Of several products those that
// nothing was corrected of keep their members, byte for byte. The same package and journal give the same bytes on one
// machine.
//
// The file is written under another name, read back, replayed and renamed: what fails or is killed leaves `output` as
// it was. Throws Error(kUsage) for a journal without effect, for an output that is the package or the journal, or
// beside which a journal lies that would not be its own; kPackage, kVerification, kOutput, and what open_session
// throws.
Digest compact(const Corrections& corrections, const std::string& output, const CompactOptions& options);

}  // namespace onceover
