#include "session/bank_members.h"

#include "base/error.h"
#include "base/finite.h"
#include "scoring/build.h"

namespace onceover {

MatrixView<const float> memory_bank_of(const Package& package, const Config& config, uint32_t product) {
  const std::string name = member_name("memory_bank", product);
  const MemberView& member = package.require(name);
  const float* rows = member.as<float>(2);
  const uint64_t row_count = member.dimensions[0], columns = member.dimensions[1];
  if (columns != config.embedding_dim) {
    fail(Status::kPackage, "%s: member '%s' has %llu columns, the patch embedding has %u; write it again",
         package.label().c_str(), name.c_str(), static_cast<unsigned long long>(columns), config.embedding_dim);
  }
  if (row_count < 1 || row_count >= UINT32_MAX) {
    fail(Status::kPackage, "%s: member '%s' has %llu rows, allowed are 1 to %u; write it again",
         package.label().c_str(), name.c_str(), static_cast<unsigned long long>(row_count), UINT32_MAX - 1);
  }
  const MatrixView<const float> bank(rows, static_cast<size_t>(row_count), config.embedding_dim);
  try {
    check_finite_rows(bank, name.c_str());
  } catch (const Error& error) {  // a user's input there, a damaged package here
    fail(Status::kPackage, "%s: %s; write it again", package.label().c_str(), error.what());
  }
  return bank;
}

SearchIndex index_of(const Package& package, MatrixView<const float> bank, const KernelTable& table, Memory& memory,
                     Buffer<uint8_t>& own, uint32_t product) {
  const std::string name = member_name("bank_index", product);
  const MemberView* member = package.find(name);
  if (member == nullptr) {
    BuildOptions scan_only;
    scan_only.forced = true;
    scan_only.representation = Representation::kScan;
    own = build_index(bank, scan_only, table, memory);
    return view_index(own.data(), own.size(), bank);
  }
  try {
    const SearchIndex index = view_index(member->as<uint8_t>(1), static_cast<size_t>(member->size_bytes), bank);
    check_made_for(index);
    if (index.removed_count == index.row_count) fail(Status::kInput, "every row is removed");
    return index;
  } catch (const Error& error) {  // a user's input there, a damaged package here
    fail(Status::kPackage, "%s: member '%s': %s", package.label().c_str(), name.c_str(), error.what());
  }
}

}  // namespace onceover
