// The sidecar journal of a package as a file: append-only, hash-chained, safe against power loss. What its records mean
// is for ledger.h; export/FORMAT.md is the same layout in words, change both together.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/sha256.h"

namespace onceover {

inline constexpr uint8_t kJournalMagic[8] = {0x89, 'O', 'O', 'V', 'J', '\r', '\n', 0x1a};
inline constexpr uint8_t kCommitMagic[8] = {0x89, 'O', 'O', 'V', 'C', '\r', '\n', 0x1a};
inline constexpr uint32_t kJournalVersion = 1;
inline constexpr uint64_t kMaxPayloadBytes = uint64_t{1} << 26;
inline constexpr uint64_t kMaxJournalRecords = uint64_t{1} << 16;
inline constexpr uint64_t kMaxJournalBytes = uint64_t{1} << 30;

enum class RecordType : uint32_t { kPropose = 1, kConfirm = 2, kReject = 3, kRemove = 4, kUndo = 5 };

struct JournalHeader {  // at byte 0
  uint8_t magic[8];
  uint32_t version;
  uint32_t header_bytes;  // 128
  Digest package_id;
  uint32_t max_added_rows;  // confirmed rows of a product; beyond it its oldest confirmed correction is evicted
  uint8_t zeros[44];
  Digest digest;  // SHA-256 of the 96 bytes before; where the chain begins
};
static_assert(sizeof(JournalHeader) == 128);

// At each record: this, the payload, its digest (SHA-256 of the digest before it, this header and the payload), and the
// commit mark, which is written when everything before it is on the disk.
struct RecordHeader {
  uint32_t type;
  uint32_t product;  // of propose and remove; 0 for the others
  uint64_t payload_bytes;
  uint64_t sequence;  // 1, 2, 3, …
  int64_t time;       // seconds since 1970, as the caller said; 0: unknown
};
static_assert(sizeof(RecordHeader) == 32);

struct CommitMark {
  uint8_t magic[8];
  uint8_t digest[8];  // the first bytes of the record's
};
static_assert(sizeof(CommitMark) == 16);

// A record as it is read: `payload` is valid during the call, `payload_offset` in the file for as long as it is open.
struct RecordView {
  RecordHeader header;
  const std::vector<uint8_t>& payload;
  uint64_t payload_offset;
};

// What a whole reading found. A torn tail is what a kill or a power loss left of a record that nobody was told of.
struct JournalState {
  bool exists = false;  // with a whole header
  Digest package_id{};
  uint32_t max_added_rows = 0;
  Digest head{};  // of the last record; names the whole history
  uint64_t records = 0;
  uint64_t end = 0;  // of the last whole record, with its mark where it has one
  bool marked = true;
  uint64_t torn_bytes = 0;
};

class JournalFile {
 public:
  enum class Mode {
    kRead,   // a file that is not there has no records; waits for a writer
    kWrite,  // makes the file; waits for all others, who wait as long as this lives
  };
  // Throws Error(kInput) for a path that cannot be read, kOutput for one that cannot be written.
  JournalFile(const std::string& path, Mode mode);
  ~JournalFile();
  JournalFile(const JournalFile&) = delete;
  JournalFile& operator=(const JournalFile&) = delete;

  // Reads and checks everything, record by record. Throws Error(kPackage) for damage before the tail, naming the
  // byte: what was acknowledged is never dropped silently.
  // `start` is called once the header is known, before any record.
  JournalState read(const std::function<void(const JournalState&)>& start,
                    const std::function<void(const RecordView&)>& visit) const;
  // The header of a new journal; on the disk, with its folder, when this returns.
  JournalState begin(const Digest& package_id, uint32_t max_added_rows);
  // Where the payload of the next record will be.
  static uint64_t payload_offset(const JournalState& state) {
    return state.end + (state.marked ? 0 : sizeof(CommitMark)) + sizeof(RecordHeader);
  }
  // Cuts a torn tail, writes one record, and returns when it is on the disk; `state` then includes it. When that fails
  // (Error(kOutput)), the file ends where it did.
  void append(JournalState& state, RecordType type, uint32_t product, int64_t time,
              const std::vector<uint8_t>& payload);
  // `size` bytes at `offset`; Error(kInput) when they are not there.
  void read_at(uint64_t offset, void* to, size_t size) const;

 private:
  [[noreturn]] void fail_damaged(uint64_t offset, const char* what) const;
  uint64_t size() const;
  void write_at(uint64_t offset, const void* from, size_t size);
  void cut_to(uint64_t size);
  void sync();
  bool has_mark_after(uint64_t offset, uint64_t size) const;

  std::string path_;
  int file_ = -1;
};

}  // namespace onceover
