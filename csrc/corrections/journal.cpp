#include "corrections/journal.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "base/interrupted.h"

namespace onceover {
namespace {

using ull = unsigned long long;  // printf's %llu

Digest digest_of(const Digest& before, const RecordHeader& header, const std::vector<uint8_t>& payload) {
  Sha256 hash;
  hash.update(before.data(), before.size());
  hash.update(&header, sizeof header);
  if (!payload.empty()) hash.update(payload.data(), payload.size());
  return hash.finish();
}

JournalHeader header_of(const Digest& package_id, uint32_t max_added_rows) {
  JournalHeader header{};
  std::memcpy(header.magic, kJournalMagic, sizeof kJournalMagic);
  header.version = kJournalVersion;
  header.header_bytes = sizeof header;
  header.package_id = package_id;
  header.max_added_rows = max_added_rows;
  header.digest = sha256(&header, sizeof header - sizeof(Digest));
  return header;
}

CommitMark mark_of(const Digest& digest) {
  CommitMark mark{};
  std::memcpy(mark.magic, kCommitMagic, sizeof kCommitMagic);
  std::copy_n(digest.begin(), sizeof mark.digest, mark.digest);
  return mark;
}

// Makes a new name survive a power loss. Some file systems cannot sync a folder; the file itself is whole either way.
void sync_folder_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const int file = retry_interrupted([&] { return ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); });
  if (file < 0) return;
  retry_interrupted([&] { return ::fsync(file); });
  ::close(file);
}

}  // namespace

JournalFile::JournalFile(const std::string& path, Mode mode) : path_(path) {
  const bool writes = mode == Mode::kWrite;
  const int flags = (writes ? O_RDWR | O_CREAT : O_RDONLY) | O_CLOEXEC | O_NONBLOCK;
  for (;;) {
    file_ = retry_interrupted([&] { return ::open(path.c_str(), flags, 0666); });
    if (file_ < 0) {
      if (!writes && errno == ENOENT) return;
      fail(writes ? Status::kOutput : Status::kInput, "%s: cannot open the journal: %s; check the path and its rights",
           path.c_str(), std::strerror(errno));
    }
    struct stat opened{}, named{};
    if (::fstat(file_, &opened) == 0 && !S_ISREG(opened.st_mode)) {
      ::close(file_);
      fail(Status::kInput, "%s: is no regular file, expected a journal", path.c_str());
    }
    // A reader waits, too: half of a record in the place of a torn tail would look like damage. On a file system
    // without locks there is one process, or there should be.
    retry_interrupted([&] { return ::flock(file_, writes ? LOCK_EX : LOCK_SH); });
    if (!writes) return;
    // While we waited, the file may have been removed or replaced; then the lock guards nothing.
    if (::fstat(file_, &opened) == 0 && ::stat(path.c_str(), &named) == 0 && opened.st_ino == named.st_ino &&
        opened.st_dev == named.st_dev) {
      return;
    }
    ::close(file_);
  }
}

JournalFile::~JournalFile() {
  if (file_ >= 0) ::close(file_);
}

void JournalFile::fail_damaged(uint64_t offset, const char* what) const {
  fail(Status::kPackage,
       "%s: the journal is damaged at byte %llu: %s; restore the file from a copy, or move it away to inspect without "
       "corrections",
       path_.c_str(), ull{offset}, what);
}

uint64_t JournalFile::size() const {
  struct stat status{};
  if (::fstat(file_, &status) != 0) {
    fail(Status::kInput, "%s: cannot read the journal: %s", path_.c_str(), std::strerror(errno));
  }
  return static_cast<uint64_t>(status.st_size);
}

void JournalFile::read_at(uint64_t offset, void* to, size_t size) const {
  auto* bytes = static_cast<uint8_t*>(to);
  for (size_t done = 0; done < size;) {
    const ssize_t got =
        retry_interrupted([&] { return ::pread(file_, bytes + done, size - done, static_cast<off_t>(offset + done)); });
    if (got < 0) fail(Status::kInput, "%s: cannot read the journal: %s", path_.c_str(), std::strerror(errno));
    if (got == 0) fail(Status::kInput, "%s: the journal was cut while it was read; open it again", path_.c_str());
    done += static_cast<size_t>(got);
  }
}

void JournalFile::write_at(uint64_t offset, const void* from, size_t size) {
  const auto* bytes = static_cast<const uint8_t*>(from);
  for (size_t done = 0; done < size;) {
    const ssize_t wrote = retry_interrupted(
        [&] { return ::pwrite(file_, bytes + done, size - done, static_cast<off_t>(offset + done)); });
    if (wrote <= 0) {
      fail(Status::kOutput, "%s: cannot write the journal: %s; nothing was changed, free some space", path_.c_str(),
           std::strerror(wrote < 0 ? errno : ENOSPC));
    }
    done += static_cast<size_t>(wrote);
  }
}

void JournalFile::cut_to(uint64_t size) {
  if (retry_interrupted([&] { return ::ftruncate(file_, static_cast<off_t>(size)); }) != 0) {
    fail(Status::kOutput, "%s: cannot cut a torn tail off the journal: %s", path_.c_str(), std::strerror(errno));
  }
}

void JournalFile::sync() {
  if (retry_interrupted([&] { return ::fsync(file_); }) != 0) {
    fail(Status::kOutput, "%s: the journal cannot be brought to the disk: %s; the disk may be failing", path_.c_str(),
         std::strerror(errno));
  }
}

bool JournalFile::has_mark_after(uint64_t offset, uint64_t size) const {
  constexpr size_t kOverlap = sizeof kCommitMagic - 1;
  std::vector<uint8_t> part(1 << 16);
  while (size - offset > kOverlap) {
    const size_t count = static_cast<size_t>(std::min<uint64_t>(size - offset, part.size()));
    read_at(offset, part.data(), count);
    const auto end = part.begin() + static_cast<ptrdiff_t>(count);
    if (std::search(part.begin(), end, std::begin(kCommitMagic), std::end(kCommitMagic)) != end) return true;
    offset += count - kOverlap;
  }
  return false;
}

JournalState JournalFile::read(const std::function<void(const JournalState&)>& start,
                               const std::function<void(const RecordView&)>& visit) const {
  JournalState state;
  if (file_ < 0) return state;
  const uint64_t bytes = size();
  if (bytes > kMaxJournalBytes) fail_damaged(kMaxJournalBytes, "it is longer than a journal can be");
  JournalHeader header{};
  read_at(0, &header, static_cast<size_t>(std::min<uint64_t>(bytes, sizeof header)));
  const JournalHeader nothing{};
  const bool blank = bytes <= sizeof header && std::memcmp(&header, &nothing, sizeof header) == 0;  // a power loss
  if (!blank && std::memcmp(header.magic, kJournalMagic, std::min<size_t>(bytes, sizeof kJournalMagic)) != 0) {
    fail(Status::kPackage, "%s: is no journal (its first bytes are others); give another path", path_.c_str());
  }
  if (blank || bytes < sizeof header) {  // ended before there was a first record
    state.torn_bytes = bytes;
    return state;
  }
  if (header.version != kJournalVersion || header.header_bytes != sizeof header) {
    fail(Status::kUnsupported, "%s: a journal of version %u, this onceover reads %u; update onceover", path_.c_str(),
         header.version, kJournalVersion);
  }
  if (header.digest != sha256(&header, sizeof header - sizeof(Digest))) fail_damaged(0, "its header has another hash");
  state.exists = true;
  state.package_id = header.package_id;
  state.max_added_rows = header.max_added_rows;
  state.head = header.digest;
  state.end = sizeof header;
  start(state);
  std::vector<uint8_t> payload;
  // Reads one record after the other as long as they are whole; why it stopped before the end, else null.
  const char* problem = nullptr;
  while (problem == nullptr && state.end < bytes) {
    const uint64_t left = bytes - state.end;
    RecordHeader record{};
    Digest digest{};
    if (left < sizeof record + sizeof digest) {
      problem = "a record is not whole";
      break;
    }
    read_at(state.end, &record, sizeof record);
    if (record.sequence != state.records + 1 || record.payload_bytes > kMaxPayloadBytes ||
        record.payload_bytes > left - sizeof record - sizeof digest) {
      problem = "a record's header makes no sense";
      break;
    }
    payload.resize(static_cast<size_t>(record.payload_bytes));
    const uint64_t payload_offset = state.end + sizeof record;
    read_at(payload_offset, payload.data(), payload.size());
    read_at(payload_offset + payload.size(), digest.data(), digest.size());
    if (digest != digest_of(state.head, record, payload)) {
      problem = "a record has another hash";
      break;
    }
    if (state.records == kMaxJournalRecords) fail_damaged(state.end, "more records than a journal can have");
    visit({record, payload, payload_offset});
    state.head = digest;
    ++state.records;
    state.end = payload_offset + payload.size() + sizeof digest;
    // A whole record counts, with or without its mark.
    const CommitMark expected = mark_of(digest);
    CommitMark mark{};
    state.marked = bytes - state.end >= sizeof mark;
    if (state.marked) {
      read_at(state.end, &mark, sizeof mark);
      state.marked = std::memcmp(&mark, &expected, sizeof mark) == 0;
    }
    if (state.marked) {
      state.end += sizeof mark;
    } else if (state.end < bytes) {
      problem = "a record has no commit mark";
    }
  }
  if (problem == nullptr) return state;
  // What is not whole was torn, unless something behind it was committed: then it once was whole. The mark of the last
  // record alone may be damaged, because the record is all there.
  const bool only_mark = !state.marked && bytes - state.end <= sizeof(CommitMark);
  if (!only_mark && has_mark_after(state.end, bytes)) fail_damaged(state.end, problem);
  state.torn_bytes = bytes - state.end;
  return state;
}

JournalState JournalFile::begin(const Digest& package_id, uint32_t max_added_rows) {
  const JournalHeader header = header_of(package_id, max_added_rows);
  cut_to(0);
  write_at(0, &header, sizeof header);
  sync();
  sync_folder_of(path_);
  JournalState state;
  state.exists = true;
  state.package_id = package_id;
  state.max_added_rows = max_added_rows;
  state.head = header.digest;
  state.end = sizeof header;
  return state;
}

void JournalFile::append(JournalState& state, RecordType type, uint32_t product, int64_t time,
                         const std::vector<uint8_t>& payload) {
  RecordHeader record{};
  record.type = static_cast<uint32_t>(type);
  record.product = product;
  record.payload_bytes = payload.size();
  record.sequence = state.records + 1;
  record.time = time;
  const uint64_t record_bytes = sizeof record + payload.size() + sizeof(Digest) + sizeof(CommitMark);
  if (state.records >= kMaxJournalRecords || payload.size() > kMaxPayloadBytes ||
      state.end + record_bytes + sizeof(CommitMark) > kMaxJournalBytes) {
    fail(Status::kOutput, "%s: the journal is full (%llu records, %llu bytes); compact it into a new package",
         path_.c_str(), ull{state.records}, ull{state.end});
  }
  if (state.torn_bytes > 0) {
    cut_to(state.end);
    state.torn_bytes = 0;
  }
  if (!state.marked) {
    const CommitMark mark = mark_of(state.head);
    write_at(state.end, &mark, sizeof mark);
    state.end += sizeof mark;
    state.marked = true;
  }
  const Digest digest = digest_of(state.head, record, payload);
  std::vector<uint8_t> bytes(sizeof record + payload.size() + sizeof digest);
  std::memcpy(bytes.data(), &record, sizeof record);
  std::copy(payload.begin(), payload.end(), bytes.begin() + sizeof record);
  std::memcpy(bytes.data() + bytes.size() - sizeof digest, digest.data(), sizeof digest);
  try {
    write_at(state.end, bytes.data(), bytes.size());
    sync();
    const CommitMark mark = mark_of(digest);
    write_at(state.end + bytes.size(), &mark, sizeof mark);
    sync();
  } catch (const Error&) {
    const int cut = retry_interrupted([&] { return ::ftruncate(file_, static_cast<off_t>(state.end)); });
    if (cut == 0) retry_interrupted([&] { return ::fsync(file_); });
    throw;
  }
  state.head = digest;
  ++state.records;
  state.end += bytes.size() + sizeof(CommitMark);
}

}  // namespace onceover
