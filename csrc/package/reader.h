// The only package parser: maps or views one file, checks everything, hands out views. Layout: export/FORMAT.md.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "package/file_bytes.h"
#include "package/layout.h"

namespace onceover {

struct MemberView {
  std::string_view package;  // label of the package, for messages
  std::string_view name;
  DataType type = DataType::kBytes;
  uint32_t dimension_count = 0;
  std::array<uint64_t, kMaxDimensions> dimensions{};
  bool required = false;
  const uint8_t* data = nullptr;  // 64-byte aligned within the file
  uint64_t size_bytes = 0;
  Digest sha256{};

  // The member as an array of T (float, uint32_t); throws Error(kPackage) when type or rank
  // differ from what the caller expects.
  template <typename T>
  const T* as(size_t rank) const;
};

// Which members are hashed when a package is opened. Header, table of contents, id and padding always are checked.
enum class HashedMembers {
  kAll,
  kSmall,  // up to kSmallMemberBytes; damage of a larger one (graph, memory bank, its index) is not noticed
};
inline constexpr uint64_t kSmallMemberBytes = 65536;

struct OpenOptions {
  HashedMembers hashed = HashedMembers::kAll;
  bool copy = false;  // read the file into memory instead of mapping it: no later change of the file can be seen
};

class Package {
 public:
  // Maps a file read-only and checks it. Throws Error(kInput) when it cannot be read or changes meanwhile, kPackage
  // when it is damaged (what, at which byte), kUnsupported for another major version or an unknown required member.
  static std::shared_ptr<const Package> open(const std::string& path, const OpenOptions& options = {});
  // Borrows `size` bytes, which must outlive the package (flash, a test). `label` names it in messages. Bytes that do
  // not start at a multiple of 64 are copied, because members promise that alignment.
  static std::shared_ptr<const Package> view(const uint8_t* data, size_t size, const std::string& label);

  Package(const Package&) = delete;
  Package& operator=(const Package&) = delete;

  const std::string& label() const noexcept { return label_; }
  const Digest& id() const noexcept { return id_; }  // SHA-256 over header, table of contents and member hashes
  uint16_t minor_version() const noexcept { return minor_; }
  void check_members() const;  // every hash, again; throws Error(kPackage): a member is damaged
  HashedMembers hashed() const noexcept { return hashed_; }
  const std::vector<MemberView>& members() const noexcept { return members_; }
  const MemberView* find(std::string_view name) const noexcept;
  const MemberView& require(std::string_view name) const;  // throws Error(kPackage): the member is missing

 private:
  Package() = default;
  void parse(HashedMembers hashed);  // fills members_ from bytes_
  void check_hash(const MemberView& member) const;
  void check_content(uint64_t directory_end, HashedMembers hashed) const;
  std::string label_;
  FileBytes bytes_;
  uint16_t minor_ = 0;
  HashedMembers hashed_ = HashedMembers::kAll;
  Digest id_{};
  std::vector<MemberView> members_;
};

}  // namespace onceover
