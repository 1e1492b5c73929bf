// The package container: what is written is read back, and every damage is a typed error, never a crash. Run it under
// -fsanitize=address,undefined as well: packages here live in exactly sized, aligned memory, so that a read beyond a
// truncated file is seen. Damage that hashes would hide is forged with hashes made right again.
#include <cstdio>
#include <functional>
#include <random>

#include "check.h"
#include "package_samples.h"

using namespace samples;

namespace {

std::string hex(const Digest& digest) {
  std::string text;
  for (const uint8_t byte : digest) {
    char two[3];
    std::snprintf(two, sizeof two, "%02x", byte);
    text += two;
  }
  return text;
}

void sha256_gives_the_published_digests() {
  // FIPS 180-4 examples (NIST "SHA256.pdf" and the million-a test).
  CHECK(hex(sha256("abc", 3)) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(hex(sha256(nullptr, 0)) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  const char* two_blocks = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
  CHECK(hex(sha256(two_blocks, 56)) == "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  const std::string million(1000000, 'a');
  const std::string expected = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";
  CHECK(hex(sha256(million.data(), million.size())) == expected);
  Sha256 in_parts;  // 1, 2, 3 … bytes at a time cross every block boundary
  size_t at = 0;
  for (size_t step = 1; at < million.size(); ++step) {
    const size_t taken = std::min(step, million.size() - at);
    in_parts.update(million.data() + at, taken);
    at += taken;
  }
  CHECK(hex(in_parts.finish()) == expected);
}

void what_is_written_is_read_back() {
  const ExactCopy copy(sample_bytes().data(), sample_bytes().size());
  const PackagePointer package = copy.view();
  CHECK(package->members().size() == 8);
  CHECK(package->require("graph.onnx").size_bytes == sample().graph.size());
  CHECK(std::memcmp(package->require("graph.onnx").data, sample().graph.data(), sample().graph.size()) == 0);
  const MemberView& bank = package->require("memory_bank");
  CHECK(bank.required && bank.dimension_count == 2 && bank.dimensions[0] == 64 && bank.dimensions[1] == 16);
  CHECK(std::memcmp(bank.as<float>(2), sample().bank.data(), bank.size_bytes) == 0);
  CHECK(bank.data >= copy.data() && bank.data < copy.data() + sample_bytes().size());  // in place
  CHECK(package->require("bank_source").as<uint32_t>(2)[127] == 3);
  CHECK_THROWS(bank.as<float>(1), Status::kPackage, "test: member 'memory_bank' is float32 with 2 dimensions");
  CHECK_THROWS(bank.as<uint32_t>(2), Status::kPackage, "expected uint32 with 2");
  CHECK(!package->require("note").required);
  CHECK(package->find("nothing") == nullptr);
  CHECK_THROWS(package->require("nothing"), Status::kPackage, "member 'nothing' is missing");
  for (const MemberView& member : package->members()) {
    CHECK(reinterpret_cast<uintptr_t>(member.data) % 64 == 0);
    CHECK(member.sha256 == sha256(member.data, member.size_bytes));
  }
}

void a_view_that_is_not_aligned_still_hands_out_aligned_members() {
  Bytes shifted(sample_bytes().size() + 64);
  uint8_t* unaligned = shifted.data() + (reinterpret_cast<uintptr_t>(shifted.data()) % 64 == 3 ? 4 : 3);
  std::memcpy(unaligned, sample_bytes().data(), sample_bytes().size());
  const PackagePointer package = Package::view(unaligned, sample_bytes().size(), "test");
  CHECK(reinterpret_cast<uintptr_t>(package->require("memory_bank").data) % 64 == 0);
  CHECK(package->require("memory_bank").as<float>(2)[5] == sample().bank[5]);
}

void the_same_members_give_the_same_bytes_and_another_byte_another_id() {
  CHECK(sample().writer().bytes() == sample_bytes());
  Forgery other;
  other.bytes.back() ^= 1;
  const PackagePointer a = Package::view(sample_bytes().data(), sample_bytes().size(), "a");
  const Bytes& sealed = other.sealed();
  const PackagePointer b = Package::view(sealed.data(), sealed.size(), "b");
  CHECK(a->id() != b->id());
}

void a_package_cut_at_any_byte_is_refused() {
  CHECK(sample_bytes().size() < 65536);
  for (size_t size = 0; size < sample_bytes().size(); ++size) {
    CHECK(is_refused(Bytes(sample_bytes().begin(), sample_bytes().begin() + static_cast<ptrdiff_t>(size))));
    Forgery forgery;  // and again with a header and hashes that agree with the cut
    forgery.bytes.resize(size);
    if (size < 64) continue;
    forgery.header()->file_bytes = size;
    CHECK(is_refused(forgery.sealed()));
  }
  Bytes cut(sample_bytes().begin(), sample_bytes().end() - 5);
  CHECK_THROWS(open_bytes(cut), Status::kPackage, "5 bytes are missing; it is truncated, copy it again");
  cut.resize(30);
  CHECK_THROWS(open_bytes(cut), Status::kPackage, "ends at byte 30, inside its 64-byte header; it is truncated");
  Bytes longer = sample_bytes();
  longer.push_back(0);
  CHECK_THROWS(open_bytes(longer), Status::kPackage, "1 bytes too many");
}

void every_flipped_bit_is_noticed() {
  std::mt19937 random(2);
  Bytes bytes = sample_bytes();
  for (size_t byte = 0; byte < bytes.size(); byte += byte < 2048 ? 1 : 37) {  // header, table and id completely
    bytes[byte] ^= static_cast<uint8_t>(1u << (byte % 8));
    CHECK(is_refused(bytes));
    bytes[byte] = sample_bytes()[byte];
  }
  for (int i = 0; i < 2000; ++i) {
    const size_t byte = random() % bytes.size();
    bytes[byte] ^= static_cast<uint8_t>(1u << (random() % 8));
    CHECK(is_refused(bytes));
    bytes[byte] = sample_bytes()[byte];
  }
  CHECK(bytes == sample_bytes() && !is_refused(bytes));
}

void every_overwritten_range_is_noticed() {
  std::mt19937 random(3);
  for (int i = 0; i < 200; ++i) {
    Bytes bytes = sample_bytes();
    const size_t begin = random() % bytes.size();
    const size_t size = 1 + random() % std::min<size_t>(bytes.size() - begin, 600);
    for (size_t j = begin; j < begin + size; ++j) bytes[j] = static_cast<uint8_t>(random());
    if (bytes != sample_bytes()) CHECK(is_refused(bytes));
  }
}

// Wrong tables with right hashes: what only a wrong or hostile writer makes.
void each_wrong_table_is_refused_by_its_own_words() {
  struct Damage {
    std::function<void(Forgery&)> make;
    Status status;
    const char* words;
  };
  constexpr uint64_t k2To40 = uint64_t{1} << 40;
  const Damage damages[] = {
      {[](Forgery& f) { f.rename(7, "graph.onnx"); }, Status::kPackage, "two members are named 'graph.onnx'"},
      {[](Forgery& f) { f.rename(7, "../../evil"); }, Status::kPackage, "is named '../../evil'"},
      {[](Forgery& f) { f.rename(7, "a/b"); }, Status::kPackage, "is named 'a/b'"},
      {[](Forgery& f) { f.rename(7, "Note"); }, Status::kPackage, "is named 'Note'"},
      {[](Forgery& f) { f.rename(7, ".hidden"); }, Status::kPackage, "the first a letter or digit"},
      {[](Forgery& f) { f.rename(7, "a\x1b[31m"); }, Status::kPackage, "is named 'a\\x1b[31m'"},
      {[](Forgery& f) { f.rename(7, ""); }, Status::kPackage, "is named ''"},
      {[](Forgery& f) { f.rename(7, std::string(48, 'a')); }, Status::kPackage, "expected 1 to 47 characters"},
      {[](Forgery& f) { f.entry(7)->name[20] = 'x'; }, Status::kPackage, "padded with zeros"},
      {[](Forgery& f) { f.rename(7, "spline"), f.entry(7)->flags = 1; }, Status::kUnsupported, "'spline' is required"},
      {[](Forgery& f) { f.entry(7)->flags = 2; }, Status::kUnsupported, "flags 0x2"},
      {[](Forgery& f) { f.entry(7)->type = 6; }, Status::kUnsupported, "type 6"},
      {[](Forgery& f) { f.entry(7)->zero = 1; }, Status::kUnsupported, "reserved"},
      {[](Forgery& f) { f.entry(7)->zeros[15] = 1; }, Status::kUnsupported, "reserved"},
      {[](Forgery& f) { f.entry(3)->dimension_count = 0; }, Status::kPackage, "has 0 dimensions"},
      {[](Forgery& f) { f.entry(3)->dimension_count = 5; }, Status::kPackage, "has 5 dimensions"},
      {[](Forgery& f) { f.entry(3)->dimension_count = UINT32_MAX; }, Status::kPackage, "dimensions"},
      {[](Forgery& f) { f.entry(3)->dimensions[2] = 1; }, Status::kPackage, "unused ones 0"},
      {[](Forgery& f) { f.entry(3)->dimensions[0] = f.entry(3)->dimensions[1] = k2To40; }, Status::kPackage, "2^64"},
      {[](Forgery& f) { f.entry(3)->dimensions[0] = 63; }, Status::kPackage, "dimensions say 4032"},
      {[](Forgery& f) { f.entry(3)->size_bytes -= 4; }, Status::kPackage, "has 4092 bytes"},
      {[](Forgery& f) { f.entry(3)->dimensions[0] = f.entry(3)->size_bytes = 0; }, Status::kPackage, "none of them 0"},
      {[](Forgery& f) { f.entry(3)->offset += 4; }, Status::kPackage, "expected a multiple of 64"},
      {[](Forgery& f) { f.entry(3)->offset -= 64; }, Status::kPackage, "must ascend and not overlap"},
      {[](Forgery& f) { std::swap(*f.entry(2), *f.entry(3)); }, Status::kPackage, "must ascend and not overlap"},
      {[](Forgery& f) { f.entry(0)->offset = 0; }, Status::kPackage, "must ascend and not overlap"},
      {[](Forgery& f) { f.entry(7)->offset = UINT64_MAX - 63; }, Status::kPackage, "the file ends at byte"},
      {[](Forgery& f) { f.entry(7)->offset += 64; }, Status::kPackage, "the file ends at byte"},
      {[](Forgery& f) { f.entry(7)->size_bytes = f.entry(7)->dimensions[0] = k2To40; }, Status::kPackage, "file ends"},
      {[](Forgery& f) { f.entry(7)->size_bytes = --f.entry(7)->dimensions[0]; }, Status::kPackage, "last member ends"},
      {[](Forgery& f) { f.bytes[f.id_offset() + 32] = 7; }, Status::kPackage, "is 7, expected 0"},
      {[](Forgery& f) { f.bytes[f.entry(3)->offset - 1] = 9; }, Status::kPackage, "is 9, expected 0"},
      {[](Forgery& f) { f.header()->zero[23] = 1; }, Status::kUnsupported, "reserved header bytes"},
      {[](Forgery& f) { f.header()->table_offset = 128; }, Status::kPackage, "table at byte 128"},
      {[](Forgery& f) { f.header()->header_bytes = 128; }, Status::kPackage, "header of 128 bytes"},
  };
  for (const Damage& damage : damages) {
    Forgery forgery;
    damage.make(forgery);
    CHECK_THROWS(open_bytes(forgery.sealed()), damage.status, damage.words);
  }
}

void wrong_counts_are_refused_before_anything_is_read() {
  for (const uint32_t count : {0u, 513u, 0x7fffffffu, UINT32_MAX}) {
    Forgery forgery;
    forgery.header()->member_count = count;
    CHECK_THROWS(open_bytes(forgery.bytes), Status::kPackage, "expected 1 to 512");
  }
  for (const uint32_t size : {0u, 64u, 127u, 129u, 136u, 192u, 4104u, UINT32_MAX}) {
    Forgery forgery;
    forgery.header()->entry_bytes = size;
    CHECK_THROWS(open_bytes(forgery.bytes), Status::kPackage, "table entries of");
  }
  Forgery forgery;
  forgery.header()->member_count = 512;
  forgery.bytes.resize(forgery.header()->file_bytes = 2000);
  CHECK_THROWS(open_bytes(forgery.bytes), Status::kPackage, "table of contents ends at byte");
}

void other_files_are_told_apart_from_damaged_packages() {
  Forgery major;
  major.header()->major = 0;
  CHECK_THROWS(open_bytes(major.sealed()), Status::kUnsupported, "package format 0.0, this version reads 1.x");
  const std::string rest = std::string(80, 'x');
  for (const std::string start : {"\x89OOV\n\x1a\n", "\x89OOV\r\r\n\x1a\r\n", "\xef\xbf\xbdOOV\r\n\x1a\n"}) {
    const std::string text = start + rest;
    CHECK_THROWS(open_bytes(Bytes(text.begin(), text.end())), Status::kPackage, "text-mode transfer");
  }
  const std::string pointer = "version https://git-lfs.github.com/spec/v1\n";
  CHECK_THROWS(open_bytes(Bytes(pointer.begin(), pointer.end())), Status::kPackage, "git lfs pull");
  CHECK_THROWS(open_bytes(Bytes(100, 'x')), Status::kPackage, "not an onceover package");
  CHECK_THROWS(Package::view(nullptr, 0, "test"), Status::kPackage, "empty");
}

void a_newer_minor_version_may_append_and_add_optional_members() {
  Forgery minor;
  minor.header()->minor = 9;
  const Bytes& sealed = minor.sealed();
  const PackagePointer package = Package::view(sealed.data(), sealed.size(), "test");
  CHECK(package->minor_version() == 9);
  CHECK(package->find("note") != nullptr);  // unknown and optional: skipped, but listed
  CHECK(read_config(*package).grid_width == 6);

  // Entries of 192 bytes: the known fields stay where they were, the rest is skipped.
  Bytes bytes(64 + 192 + 64 + 64 + 3);
  FileHeader header = *Forgery().header();
  header.minor = kFormatMinor + 1;
  header.member_count = 1;
  header.entry_bytes = 192;
  header.file_bytes = bytes.size();
  TableEntry entry{};
  std::memcpy(entry.name, "parity", 6);
  entry.dimension_count = 1;
  entry.dimensions[0] = entry.size_bytes = 3;
  entry.offset = bytes.size() - 3;
  CHECK(entry.offset % 64 == 0);
  std::memcpy(bytes.data(), &header, sizeof header);
  std::memcpy(bytes.data() + 64, &entry, sizeof entry);
  bytes[64 + 150] = 0xaa;  // appended by the newer version
  const Digest digest = sha256(bytes.data() + entry.offset, 3);
  std::memcpy(bytes.data() + 64 + 192, digest.data(), 32);
  const Digest id = sha256(bytes.data(), 64 + 192 + 32);
  std::memcpy(bytes.data() + 64 + 192 + 32, id.data(), 32);
  CHECK(Package::view(bytes.data(), bytes.size(), "test")->members().size() == 1);
}

// Random bits in header and table, hashes right: anything but an Error or a consistent package is a defect.
void forged_tables_never_crash() {
  std::mt19937 random(4);
  size_t accepted = 0;
  for (int i = 0; i < 3000; ++i) {
    Forgery forgery;
    const size_t end = 64 + 8 * sizeof(TableEntry);
    for (unsigned flips = 1 + random() % 3; flips > 0; --flips) {
      forgery.bytes[16 + random() % (end - 16)] ^= static_cast<uint8_t>(1u << (random() % 8));
    }
    forgery.header()->member_count = 8;
    const ExactCopy copy(forgery.signed_only().data(), forgery.bytes.size());
    try {
      const PackagePointer package = copy.view();
      ++accepted;
      for (const MemberView& member : package->members()) {
        CHECK(member.data >= copy.data() && member.size_bytes <= forgery.bytes.size());
        CHECK(sha256(member.data, member.size_bytes) == member.sha256);
      }
    } catch (const Error&) {
    }
  }
  CHECK(accepted > 0 && accepted < 1500);  // a changed letter of the name "note" is no damage
}

}  // namespace

int main() {
  sha256_gives_the_published_digests();
  what_is_written_is_read_back();
  a_view_that_is_not_aligned_still_hands_out_aligned_members();
  the_same_members_give_the_same_bytes_and_another_byte_another_id();
  a_package_cut_at_any_byte_is_refused();
  every_flipped_bit_is_noticed();
  every_overwritten_range_is_noticed();
  each_wrong_table_is_refused_by_its_own_words();
  wrong_counts_are_refused_before_anything_is_read();
  other_files_are_told_apart_from_damaged_packages();
  a_newer_minor_version_may_append_and_add_optional_members();
  forged_tables_never_crash();
  return check::summary("package");
}
