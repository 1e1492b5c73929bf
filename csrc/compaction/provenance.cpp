#include "compaction/provenance.h"

#include <algorithm>
#include <optional>

#include "base/error.h"
#include "compaction/json_text.h"

namespace onceover {
namespace {

constexpr uint32_t kNoImage = UINT32_MAX;  // of a row whose image the manifest does not name

// Of a path as POSIX writes it; empty where it names no file.
std::string_view file_name(std::string_view path) {
  while (!path.empty() && path.back() == '/') path.remove_suffix(1);
  path = path.substr(path.rfind('/') + 1);  // npos + 1 is 0
  return path == "." ? std::string_view() : path;
}

std::vector<const Proposal*> confirmed(const Corrections& corrections) {
  std::vector<const Proposal*> found;
  for (const Proposal& each : corrections.ledger().proposals()) {
    if (each.standing == Standing::kConfirmed) found.push_back(&each);
  }
  return found;
}

std::string compaction(const Corrections& corrections, CalibrationState calibration) {
  const BankChanges& changes = corrections.changes(0);
  std::string candidates;
  for (const Proposal* each : confirmed(corrections)) {
    candidates += (candidates.empty() ? "" : ", ") + std::to_string(each->id);
  }
  return "{\"added_rows\": " + std::to_string(changes.numbers.size()) + ", \"calibration\": \"" + name_of(calibration) +
         "\", \"candidates\": [" + candidates + "], \"from\": \"" + hex(corrections.package().id()) +
         "\", \"journal\": \"" + hex(corrections.state().head) +
         "\", \"removed_rows\": " + std::to_string(changes.removed.size()) + "}";
}

// Image and patch of the rows that are left and of those that joined, whose images are numbered from `first_image` on.
std::vector<uint32_t> source_of(const Corrections& corrections, const CompactedBank& bank, const MemberView& member,
                                std::optional<size_t> first_image) {
  const auto* old = member.as<uint32_t>(2);
  if (member.dimensions[0] != bank.fitted().rows || member.dimensions[1] != 2) {
    fail(Status::kPackage,
         "%s: member 'bank_source' is %llu x %llu, expected %zu x 2, a row for each of the memory bank",
         corrections.package().label().c_str(), static_cast<unsigned long long>(member.dimensions[0]),
         static_cast<unsigned long long>(member.dimensions[1]), bank.fitted().rows);
  }
  std::vector<uint32_t> source;
  for (const uint32_t row : bank.left()) source.insert(source.end(), {old[2 * row], old[2 * row + 1]});
  const std::vector<uint32_t>& joined = corrections.changes(0).numbers;
  size_t image = 0;
  for (const Proposal* each : confirmed(corrections)) {
    const uint32_t number = first_image ? static_cast<uint32_t>(*first_image + image++) : kNoImage;
    for (uint32_t i = 0; i < each->patches.size(); ++i) {
      const uint32_t row = corrections.fitted_rows(0) + each->first_row + i;
      if (std::binary_search(joined.begin(), joined.end(), row)) {
        source.insert(source.end(), {number, each->patches[i]});
      }
    }
  }
  return source;
}

}  // namespace

Provenance provenance_of(const Corrections& corrections, const CompactedBank& bank, CalibrationState calibration) {
  const Package& package = corrections.package();
  const MemberView* stored = package.find("manifest.json");
  JsonText manifest(stored == nullptr ? std::string("{}")
                                      : std::string(reinterpret_cast<const char*>(stored->data),
                                                    static_cast<size_t>(stored->size_bytes)),
                    package.label() + ": member 'manifest.json'");
  if (manifest.is_object({"detector"})) {
    manifest.set({"detector"}, "bank_rows", std::to_string(bank.rows().rows));
    if (manifest.find({"detector", "search_index"})) {
      manifest.set({"detector"}, "search_index", json_string(name_of(bank.bank().index().representation)));
    }
  }

  Provenance result;
  if (const MemberView* source = package.find("bank_source")) {
    const std::optional<size_t> images = manifest.count({"data", "bank_images"});
    result.source = source_of(corrections, bank, *source, images);
    std::vector<std::string> names, digests;
    for (const Proposal* each : confirmed(corrections)) {
      const std::string_view name = file_name(each->name);
      names.push_back(json_string(name.empty() ? "correction " + std::to_string(each->id) : std::string(name)));
      digests.push_back(json_string(hex(each->image)));  // zeros: an image that nobody has
    }
    if (images) manifest.append({"data", "bank_images"}, names);
    // The two lists belong together, entry by entry.
    if (images && manifest.count({"data", "bank_sha256"}) == images) manifest.append({"data", "bank_sha256"}, digests);
  }

  if (const std::optional<std::string_view> before = manifest.find({"compacted"})) {
    const std::string told(*before);
    if (manifest.count({"compacted_before"})) {
      manifest.append({"compacted_before"}, {told});
    } else {
      manifest.set({}, "compacted_before", "[" + told + "]");
    }
  }
  manifest.set({}, "compacted", compaction(corrections, calibration));
  result.manifest = manifest.text();
  return result;
}

}  // namespace onceover
