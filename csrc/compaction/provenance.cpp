#include "compaction/provenance.h"

#include <algorithm>
#include <optional>

#include "base/error.h"
#include "package/products.h"

namespace onceover {
namespace {

constexpr uint32_t kNoImage = UINT32_MAX;  // of a row whose image the manifest does not name

// Of a path as POSIX writes it; empty where it names no file.
std::string_view file_name(std::string_view path) {
  while (!path.empty() && path.back() == '/') path.remove_suffix(1);
  path = path.substr(path.rfind('/') + 1);  // npos + 1 is 0
  return path == "." ? std::string_view() : path;
}

std::vector<const Proposal*> confirmed(const Corrections& corrections, uint32_t product) {
  std::vector<const Proposal*> found;
  for (const Proposal& each : corrections.ledger().proposals()) {
    if (each.product == product && each.standing == Standing::kConfirmed) found.push_back(&each);
  }
  return found;
}

std::string compaction(const Corrections& corrections, uint32_t product, CalibrationState calibration) {
  const BankChanges& changes = corrections.changes(product);
  std::string candidates;
  for (const Proposal* each : confirmed(corrections, product)) {
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
    fail(Status::kPackage, "%s: member '%s' is %llu x %llu, expected %zu x 2, a row for each of the memory bank",
         corrections.package().label().c_str(), std::string(member.name).c_str(),
         static_cast<unsigned long long>(member.dimensions[0]), static_cast<unsigned long long>(member.dimensions[1]),
         bank.fitted().rows);
  }
  std::vector<uint32_t> source;
  for (const uint32_t row : bank.left()) source.insert(source.end(), {old[2 * row], old[2 * row + 1]});
  const std::vector<uint32_t>& joined = corrections.changes(bank.product()).numbers;
  size_t image = 0;
  for (const Proposal* each : confirmed(corrections, bank.product())) {
    const uint32_t number = first_image ? static_cast<uint32_t>(*first_image + image++) : kNoImage;
    for (uint32_t i = 0; i < each->patches.size(); ++i) {
      const uint32_t row = corrections.fitted_rows(bank.product()) + each->first_row + i;
      if (std::binary_search(joined.begin(), joined.end(), row)) {
        source.insert(source.end(), {number, each->patches[i]});
      }
    }
  }
  return source;
}

using Path = JsonText::Path;

Path operator+(Path path, const Path& further) {
  path.insert(path.end(), further.begin(), further.end());
  return path;
}

}  // namespace

JsonText manifest_of(const Corrections& corrections) {
  const Package& package = corrections.package();
  const MemberView* stored = package.find("manifest.json");
  const std::string label = package.label() + ": member 'manifest.json'";
  JsonText manifest(stored == nullptr ? std::string("{}")
                                      : std::string(reinterpret_cast<const char*>(stored->data),
                                                    static_cast<size_t>(stored->size_bytes)),
                    label);
  const std::vector<std::string> products = read_products(package);
  if (products.size() == 1) return manifest;
  if (!manifest.find({"products"})) {  // written by others than `combine`
    std::string listed;
    for (const std::string& name : products) {
      listed += (listed.empty() ? "{\"name\": " : ", {\"name\": ") + json_string(name) + "}";
    }
    manifest.set({}, "products", "[" + listed + "]");
  }
  bool are_listed = manifest.count({"products"}) == products.size();
  for (size_t i = 0; i < products.size(); ++i) {
    are_listed = are_listed && manifest.is_object({"products", std::to_string(i)});
  }
  if (are_listed) return manifest;
  fail(Status::kPackage, "%s: its 'products' are not one object for each of %zu products; combine them again",
       label.c_str(), products.size());
}

std::vector<uint32_t> add_provenance(JsonText& manifest, const Corrections& corrections, const CompactedBank& bank,
                                     CalibrationState calibration) {
  const Package& package = corrections.package();
  const uint32_t product = bank.product();
  const Path own = corrections.product_count() == 1 ? Path() : Path{"products", std::to_string(product)};
  const Path detector = own + Path{"detector"};
  if (manifest.is_object(detector)) {
    manifest.set(detector, "bank_rows", std::to_string(bank.rows().rows));
    if (manifest.find(detector + Path{"search_index"})) {
      manifest.set(detector, "search_index", json_string(name_of(bank.bank().index().representation)));
    }
  }

  std::vector<uint32_t> rows;
  if (const MemberView* source = package.find(member_name("bank_source", product))) {
    const Path listed = own + Path{"data", "bank_images"}, hashed = own + Path{"data", "bank_sha256"};
    const std::optional<size_t> images = manifest.count(listed);
    rows = source_of(corrections, bank, *source, images);
    std::vector<std::string> names, digests;
    for (const Proposal* each : confirmed(corrections, product)) {
      const std::string_view name = file_name(each->name);
      names.push_back(json_string(name.empty() ? "correction " + std::to_string(each->id) : std::string(name)));
      digests.push_back(json_string(hex(each->image)));  // zeros: an image that nobody has
    }
    if (images) manifest.append(listed, names);
    // The two lists belong together, entry by entry.
    if (images && manifest.count(hashed) == images) manifest.append(hashed, digests);
  }

  const Path before = own + Path{"compacted_before"};
  if (const std::optional<std::string_view> earlier = manifest.find(own + Path{"compacted"})) {
    const std::string told(*earlier);
    if (manifest.count(before)) {
      manifest.append(before, {told});
    } else {
      manifest.set(own, "compacted_before", "[" + told + "]");
    }
  }
  manifest.set(own, "compacted", compaction(corrections, product, calibration));
  return rows;
}

}  // namespace onceover
