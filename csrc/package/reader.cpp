// Opens a package: every byte of the file is checked here, once, so that nothing after it has to doubt a view.
// The order is chosen for the reader of the message: first what was cut or converted on the way, then damage of the
// table of contents as a whole (its hash), then what only a wrong writer can produce, then damage of members.
#include "package/reader.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "base/sha256.h"

namespace onceover {
namespace {

using ull = unsigned long long;  // printf's %llu

// Bytes from a damaged file, safe to print.
std::string printable(const char* text, size_t size) {
  static const char* kHex = "0123456789abcdef";
  std::string out;
  for (size_t i = 0; i < size && text[i] != '\0'; ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c >= 0x20 && c < 0x7f) {
      out += text[i];
    } else {
      out += std::string("\\x") + kHex[c >> 4] + kHex[c & 15];
    }
  }
  return out;
}

bool starts_with(const uint8_t* data, size_t size, std::string_view prefix) {
  return size >= prefix.size() && std::memcmp(data, prefix.data(), prefix.size()) == 0;
}

void check_magic(const char* label, const uint8_t* data, size_t size) {
  const size_t compared = std::min(size, sizeof kMagic);
  if (std::memcmp(data, kMagic, compared) == 0) {
    if (size >= sizeof(FileHeader)) return;
    fail(Status::kPackage, "%s: the file ends at byte %zu, inside its 64-byte header; it is truncated, copy it again",
         label, size);
  }
  // What text-mode transfer makes of the magic: CR LF to LF, LF to CR LF, eighth bit cleared, byte replaced as invalid
  // UTF-8, byte taken for Latin-1.
  for (const std::string_view damaged :
       {"\x89OOV\n\x1a", "\x89OOV\r\r\n", "\x09OOV", "\xef\xbf\xbdOOV", "\xc2\x89OOV", "?OOV"}) {
    if (starts_with(data, size, damaged)) {
      fail(Status::kPackage,
           "%s: this onceover package was changed by a text-mode transfer; copy it again in binary mode (for git: "
           "mark it 'binary' in .gitattributes)",
           label);
    }
  }
  if (starts_with(data, size, "version https://git-lfs")) {
    fail(Status::kPackage, "%s: this is a Git LFS pointer, not the package itself; fetch it with: git lfs pull", label);
  }
  fail(Status::kPackage, "%s: not an onceover package, or its first bytes are damaged (its magic number is missing)",
       label);
}

FileHeader read_header(const char* label, const uint8_t* data, size_t size) {
  check_magic(label, data, size);
  FileHeader header;
  std::memcpy(&header, data, sizeof header);
  if (header.major != kFormatMajor) {
    fail(Status::kUnsupported,
         "%s: package format %u.%u, this version reads %u.x; use the onceover version that wrote it, or fit again",
         label, header.major, header.minor, kFormatMajor);
  }
  if (header.file_bytes > size) {
    fail(Status::kPackage,
         "%s: the file ends at byte %zu, its header says %llu: %llu bytes are missing; it is truncated, copy it again",
         label, size, ull{header.file_bytes}, ull{header.file_bytes - size});
  }
  if (header.file_bytes < size) {
    fail(Status::kPackage,
         "%s: the file has %zu bytes, its header says %llu: %llu bytes too many; something was appended, copy it again",
         label, size, ull{header.file_bytes}, ull{size - header.file_bytes});
  }
  if (header.header_bytes != sizeof(FileHeader) || header.table_offset != sizeof(FileHeader)) {
    fail(Status::kPackage, "%s: header of %u bytes and table at byte %llu, expected %zu and %zu; the header is damaged",
         label, header.header_bytes, ull{header.table_offset}, sizeof(FileHeader), sizeof(FileHeader));
  }
  if (header.member_count < 1 || header.member_count > kMaxMembers) {
    fail(Status::kPackage, "%s: %u members, expected 1 to %zu; the header is damaged", label, header.member_count,
         kMaxMembers);
  }
  const size_t largest_entry = header.minor > kFormatMinor ? kMaxEntryBytes : sizeof(TableEntry);
  if (header.entry_bytes < sizeof(TableEntry) || header.entry_bytes > largest_entry || header.entry_bytes % 8 != 0) {
    fail(Status::kPackage, "%s: table entries of %u bytes, format %u.%u has a multiple of 8 from %zu to %zu", label,
         header.entry_bytes, header.major, header.minor, sizeof(TableEntry), largest_entry);
  }
  for (const uint8_t byte : header.zero) {
    if (byte != 0) {
      fail(Status::kUnsupported,
           "%s: reserved header bytes are set: the file is damaged, or written by a newer onceover (format %u.%u, this "
           "version knows %u.%u); copy it again or update onceover",
           label, header.major, header.minor, kFormatMajor, kFormatMinor);
    }
  }
  return header;
}

// What one entry of the table says, without offsets, which check_layout judges.
MemberView read_entry(const std::string& label, const TableEntry& entry, const char* name_in_file, size_t index) {
  MemberView member;
  const std::string shown = printable(entry.name, sizeof entry.name);
  member.package = label;
  member.name = std::string_view(name_in_file, strnlen(name_in_file, sizeof entry.name));
  const bool padded =
      std::all_of(entry.name + member.name.size(), entry.name + sizeof entry.name, [](char c) { return c == '\0'; });
  if (!is_member_name(member.name) || !padded) {
    fail(Status::kPackage,
         "%s: member %zu is named '%s'; expected 1 to %zu characters of [a-z0-9_.-], the first a letter or digit, "
         "padded with zeros; its writer is at fault or hostile, do not use it",
         label.c_str(), index, shown.c_str(), kMaxNameBytes);
  }
  member.required = (entry.flags & kRequiredFlag) != 0;
  member.type = static_cast<DataType>(entry.type);
  member.dimension_count = entry.dimension_count;
  member.size_bytes = entry.size_bytes;
  const bool reserved = std::any_of(entry.zeros, entry.zeros + sizeof entry.zeros, [](uint8_t b) { return b != 0; });
  if ((entry.flags & ~kRequiredFlag) != 0 || entry.zero != 0 || reserved || data_type_bytes(member.type) == 0) {
    fail(Status::kUnsupported,
         "%s: member '%s' has flags %#x, type %u or reserved fields that this version does not know; update onceover",
         label.c_str(), shown.c_str(), entry.flags, entry.type);
  }
  if (member.required && !is_known_member(member.name)) {
    fail(Status::kUnsupported,
         "%s: member '%s' is required, and this version does not know it; update onceover, or use the version that "
         "wrote the package",
         label.c_str(), shown.c_str());
  }
  std::copy(entry.dimensions, entry.dimensions + kMaxDimensions, member.dimensions.begin());
  const uint64_t expected = member_bytes(member.type, entry.dimensions, entry.dimension_count);
  const bool spare = std::any_of(entry.dimensions + std::min<size_t>(entry.dimension_count, kMaxDimensions),
                                 entry.dimensions + kMaxDimensions, [](uint64_t d) { return d != 0; });
  if (expected == 0 || spare) {
    fail(Status::kPackage,
         "%s: member '%s' has %u dimensions %llu, %llu, %llu, %llu; expected 1 to %zu, none of them 0, unused ones 0, "
         "and a size below 2^64 bytes; its writer is at fault, write it again",
         label.c_str(), shown.c_str(), entry.dimension_count, ull{entry.dimensions[0]}, ull{entry.dimensions[1]},
         ull{entry.dimensions[2]}, ull{entry.dimensions[3]}, kMaxDimensions);
  }
  if (expected != entry.size_bytes) {
    fail(Status::kPackage,
         "%s: member '%s' has %llu bytes, its type %s and dimensions say %llu; its writer is at fault, write it again",
         label.c_str(), shown.c_str(), ull{entry.size_bytes}, data_type_name(member.type), ull{expected});
  }
  return member;
}

void check_zero(const char* label, const uint8_t* data, uint64_t begin, uint64_t end) {
  for (uint64_t i = begin; i < end; ++i) {
    if (data[i] != 0) {
      fail(Status::kPackage, "%s: padding byte %llu is %u, expected 0; the file is damaged, copy it again", label,
           ull{i}, data[i]);
    }
  }
}

// Where the table's parts end; member_count and entry_bytes are bounded, so nothing here overflows.
struct Directory {
  explicit Directory(const FileHeader& header)
      : digests(header.table_offset + uint64_t{header.member_count} * header.entry_bytes),
        id(digests + uint64_t{header.member_count} * sizeof(Digest)),
        end(id + sizeof(Digest)) {}
  uint64_t digests, id, end;
};

}  // namespace

void Package::parse(HashedMembers hashed) {
  const uint8_t* const data = bytes_.data();
  const size_t size = bytes_.size();
  hashed_ = hashed;
  const FileHeader header = read_header(label_.c_str(), data, size);
  const Directory directory(header);
  if (directory.end > size) {
    fail(Status::kPackage, "%s: the table of contents ends at byte %llu, the file at %zu; it is damaged, copy it again",
         label_.c_str(), ull{directory.end}, size);
  }
  std::memcpy(id_.data(), data + directory.id, id_.size());
  if (sha256(data, static_cast<size_t>(directory.id)) != id_) {
    fail(Status::kPackage,
         "%s: the header and table of contents (bytes 0 to %llu) do not match the package id; the file is damaged, "
         "copy it again",
         label_.c_str(), ull{directory.end - 1});
  }
  minor_ = header.minor;
  members_.reserve(header.member_count);
  uint64_t end = directory.end;
  for (uint32_t i = 0; i < header.member_count; ++i) {
    const uint8_t* at = data + header.table_offset + uint64_t{i} * header.entry_bytes;
    TableEntry entry;
    std::memcpy(&entry, at, sizeof entry);
    MemberView member = read_entry(label_, entry, reinterpret_cast<const char*>(at), i);
    const std::string name(member.name);
    if (find(member.name) != nullptr) {
      fail(Status::kPackage, "%s: two members are named '%s'; its writer is at fault, write it again", label_.c_str(),
           name.c_str());
    }
    if (entry.offset % kMemberAlignment != 0) {
      fail(Status::kPackage,
           "%s: member '%s' begins at byte %llu, expected a multiple of %zu; its writer is at fault, write "
           "it again",
           label_.c_str(), name.c_str(), ull{entry.offset}, kMemberAlignment);
    }
    if (entry.offset < end) {
      fail(Status::kPackage,
           "%s: member '%s' begins at byte %llu, before what precedes it ends at byte %llu; members must ascend and "
           "not overlap; its writer is at fault, write it again",
           label_.c_str(), name.c_str(), ull{entry.offset}, ull{end});
    }
    if (entry.offset > size || entry.size_bytes > size - entry.offset) {
      fail(Status::kPackage,
           "%s: member '%s' has %llu bytes from byte %llu on, the file ends at byte %zu; its writer is at "
           "fault, write it again",
           label_.c_str(), name.c_str(), ull{entry.size_bytes}, ull{entry.offset}, size);
    }
    member.data = data + entry.offset;
    std::memcpy(member.sha256.data(), data + directory.digests + i * sizeof(Digest), sizeof(Digest));
    end = entry.offset + entry.size_bytes;
    members_.push_back(member);
  }
  if (end != size) {
    fail(Status::kPackage,
         "%s: the last member ends at byte %llu, the file at %zu; its writer is at fault, write it again",
         label_.c_str(), ull{end}, size);
  }
  check_content(directory.end, hashed);
}

// Zero padding, and member hashes.
void Package::check_content(uint64_t directory_end, HashedMembers hashed) const {
  const uint8_t* const data = bytes_.data();
  uint64_t end = directory_end;
  for (const MemberView& member : members_) {
    const auto offset = static_cast<uint64_t>(member.data - data);
    check_zero(label_.c_str(), data, end, offset);
    end = offset + member.size_bytes;
    if (hashed == HashedMembers::kSmall && member.size_bytes > kSmallMemberBytes) continue;
    check_hash(member);
  }
}

void Package::check_members() const {
  for (const MemberView& member : members_) check_hash(member);
}

void Package::check_hash(const MemberView& member) const {
  if (sha256(member.data, static_cast<size_t>(member.size_bytes)) == member.sha256) return;
  const auto offset = static_cast<uint64_t>(member.data - bytes_.data());
  fail(Status::kPackage,
       "%s: member '%s' (bytes %llu to %llu) does not match its SHA-256; the file is damaged, copy it again",
       label_.c_str(), std::string(member.name).c_str(), ull{offset}, ull{offset + member.size_bytes - 1});
}

std::shared_ptr<const Package> Package::open(const std::string& path, const OpenOptions& options) {
  const OpenFile file(path);
  const std::shared_ptr<Package> package(new Package());
  package->label_ = path;
  package->bytes_ = options.copy ? file.copy() : file.map();
  package->parse(options.hashed);
  file.check_unchanged();
  return package;
}

std::shared_ptr<const Package> Package::view(const uint8_t* data, size_t size, const std::string& label) {
  const std::shared_ptr<Package> package(new Package());
  package->label_ = label;
  package->bytes_ = FileBytes::of_memory(data, size, label);
  package->parse(HashedMembers::kAll);
  return package;
}

const MemberView* Package::find(std::string_view name) const noexcept {
  for (const MemberView& member : members_) {
    if (member.name == name) return &member;
  }
  return nullptr;
}

const MemberView& Package::require(std::string_view name) const {
  const MemberView* member = find(name);
  if (member != nullptr) return *member;
  std::string names;
  for (const MemberView& each : members_) names += (names.empty() ? "" : ", ") + std::string(each.name);
  fail(Status::kPackage, "%s: member '%s' is missing; the package has: %s", label_.c_str(), std::string(name).c_str(),
       names.c_str());
}

namespace {

template <typename T>
constexpr DataType kDataTypeOf = DataType::kBytes;
template <>
constexpr DataType kDataTypeOf<float> = DataType::kFloat32;
template <>
constexpr DataType kDataTypeOf<uint32_t> = DataType::kUint32;
template <>
constexpr DataType kDataTypeOf<uint8_t> = DataType::kUint8;

}  // namespace

template <typename T>
const T* MemberView::as(size_t rank) const {
  if (type != kDataTypeOf<T> || dimension_count != rank) {
    fail(Status::kPackage, "%s: member '%s' is %s with %u dimensions, expected %s with %zu",
         std::string(package).c_str(), std::string(name).c_str(), data_type_name(type), dimension_count,
         data_type_name(kDataTypeOf<T>), rank);
  }
  return reinterpret_cast<const T*>(data);
}

template const float* MemberView::as<float>(size_t) const;
template const uint32_t* MemberView::as<uint32_t>(size_t) const;
template const uint8_t* MemberView::as<uint8_t>(size_t) const;

}  // namespace onceover
