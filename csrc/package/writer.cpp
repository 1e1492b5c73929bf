// Lays out members as export/FORMAT.md says, and writes files that are complete or not there at all.
#include "package/writer.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <optional>

#include "base/error.h"
#include "base/interrupted.h"
#include "base/sha256.h"

namespace onceover {
namespace {

using ull = unsigned long long;  // printf's %llu

struct Piece {
  const uint8_t* data;
  size_t size;
};

size_t align_up(size_t value) { return (value + kMemberAlignment - 1) / kMemberAlignment * kMemberAlignment; }

const char* advice(int reason) {
  switch (reason) {
    case ENOSPC:
    case EDQUOT:
      return "free some space or choose another folder";
    case EACCES:
    case EPERM:
      return "check the permissions of its folder or choose another one";
    case EROFS:
      return "choose a folder that is not mounted read-only";
    case ENOENT:
      return "create the folder first";
    default:
      return "choose another place";
  }
}

[[noreturn]] void fail_output(const std::string& path, const char* deed, int reason) {
  fail(Status::kOutput, "%s: cannot %s: %s; nothing was changed, %s", path.c_str(), deed, std::strerror(reason),
       advice(reason));
}

// The folder and the file name of a path.
struct Target {
  explicit Target(const std::string& path) {
    const size_t slash = path.rfind('/');
    folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
    name = slash == std::string::npos ? path : path.substr(slash + 1);
    // Room for the rest of a temporary name within the 255 bytes file systems allow.
    prefix = "." + name.substr(0, 200) + ".";
  }
  std::string folder, name, prefix;
};

// The mode of the file that will be replaced; none when there is none.
std::optional<mode_t> check_target(const std::string& path) {
  struct stat status{};
  if (::stat(path.c_str(), &status) != 0) return std::nullopt;
  if (S_ISREG(status.st_mode)) return status.st_mode & 0777;
  fail(Status::kOutput, "%s: is %s, it cannot be replaced by a file; give the name of a file", path.c_str(),
       S_ISDIR(status.st_mode) ? "a folder" : "a device or pipe");
}

// A new file ".<name>.<pid>.<n>.tmp" beside the target, removed unless committed. Its lock, which dies with the
// process, tells a file being written from one that a killed process left; a process id could not, because ids are
// reused and mean nothing to another container or machine that shares the folder.
class TemporaryFile {
 public:
  TemporaryFile(const std::string& path, const Target& target) : target_path_(path) {
    for (int n = 0; file_ < 0; ++n) {
      if (n == 1000) fail_output(target_path_, "create a temporary file beside it", EEXIST);
      path_ = target.folder + (target.folder == "." ? "/" : "") + target.prefix + std::to_string(::getpid()) + "." +
              std::to_string(n) + ".tmp";
      create();
    }
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  ~TemporaryFile() {
    if (!committed_) ::unlink(path_.c_str());
    ::close(file_);
  }

  // Before the content is there: what only its owner may read is never readable by others.
  void set_mode(mode_t mode) {
    struct stat status{};
    if (::fstat(file_, &status) == 0 && (status.st_mode & 0777) == mode) return;  // file systems without modes
    if (::fchmod(file_, mode) != 0) fail_output(target_path_, "keep the mode of the file to be replaced", errno);
  }

  void write(Piece piece) {
    while (piece.size > 0) {
      const size_t part = std::min<size_t>(piece.size, size_t{1} << 30);
      const ssize_t written = retry_interrupted([&] { return ::write(file_, piece.data, part); });
      if (written <= 0) fail_output(target_path_, "write the file", written < 0 ? errno : ENOSPC);
      piece.data += written;
      piece.size -= static_cast<size_t>(written);
    }
  }

  void sync() {
    if (retry_interrupted([&] { return ::fsync(file_); }) != 0) {
      fail_output(target_path_, "bring the file to the disk", errno);
    }
  }

  void commit() {
    if (retry_interrupted([&] { return ::rename(path_.c_str(), target_path_.c_str()); }) != 0) {
      fail_output(target_path_, "put the file in place", errno);
    }
    committed_ = true;
  }

  const std::string& path() const { return path_; }

 private:
  // Leaves file_ negative when the name is taken, or was taken away: try the next one.
  void create() {
    file_ = retry_interrupted([&] { return ::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666); });
    if (file_ < 0) {
      if (errno != EEXIST) fail_output(target_path_, "create a temporary file beside it", errno);
      return;
    }
    // Waits for a cleaner that was faster: it either gives the file up or has removed it, and then there is no link. No
    // cleaner gets the lock after us. On a file system without locks none removes anything, so we go on without, too.
    retry_interrupted([&] { return ::flock(file_, LOCK_EX); });
    struct stat status{};
    if (::fstat(file_, &status) != 0 || status.st_nlink == 0) {
      ::close(file_);
      file_ = -1;
    }
  }

  std::string target_path_, path_;
  int file_ = -1;
  bool committed_ = false;
};

bool is_digits(const std::string& text) {
  return !text.empty() && text.find_first_not_of("0123456789") == std::string::npos;
}

// "<pid>.<n>.tmp" after the target's prefix.
bool is_temporary(const std::string& name, const std::string& prefix) {
  if (name.compare(0, prefix.size(), prefix) != 0) return false;
  const std::string rest = name.substr(prefix.size());
  const size_t dot = rest.find('.');
  const size_t end = rest.rfind(".tmp");
  return dot != std::string::npos && end != std::string::npos && end > dot && end + 4 == rest.size() &&
         is_digits(rest.substr(0, dot)) && is_digits(rest.substr(dot + 1, end - dot - 1));
}

// Removes what killed processes left beside the target. Never an error: it is a courtesy.
void remove_stale(const Target& target) {
  DIR* folder = ::opendir(target.folder.c_str());
  if (folder == nullptr) return;
  const int at = ::dirfd(folder);
  while (const dirent* entry = ::readdir(folder)) {
    if (!is_temporary(entry->d_name, target.prefix)) continue;
    constexpr int kFlags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW;
    const int file = retry_interrupted([&] { return ::openat(at, entry->d_name, kFlags); });
    if (file < 0) continue;
    struct stat opened{}, named{};
    // The lock is ours only when no live process writes the file; the name may have moved on since it was opened.
    if (::flock(file, LOCK_EX | LOCK_NB) == 0 && ::fstat(file, &opened) == 0 && S_ISREG(opened.st_mode) &&
        ::fstatat(at, entry->d_name, &named, AT_SYMLINK_NOFOLLOW) == 0 && named.st_ino == opened.st_ino &&
        named.st_dev == opened.st_dev) {
      ::unlinkat(at, entry->d_name, 0);
    }
    ::close(file);
  }
  ::closedir(folder);
}

// Makes the rename itself survive a power loss. The new file is complete and in place already, so a folder that cannot
// be opened or synced (some file systems) is no error.
void sync_folder(const std::string& folder) {
  const int file = retry_interrupted([&] { return ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); });
  if (file < 0) return;
  retry_interrupted([&] { return ::fsync(file); });
  ::close(file);
}

void save_pieces(const std::string& path, const std::vector<Piece>& pieces,
                 const std::function<void(const std::string&)>& check = {}) {
  const Target target(path);
  if (target.name.empty()) {
    fail(Status::kOutput, "'%s': names a folder or nothing; give the name of a file", path.c_str());
  }
  const std::optional<mode_t> old_mode = check_target(path);
  remove_stale(target);
  TemporaryFile file(path, target);
  if (old_mode) file.set_mode(*old_mode);
  for (const Piece& piece : pieces) file.write(piece);
  file.sync();
  if (check) check(file.path());
  file.commit();
  sync_folder(target.folder);
}

}  // namespace

void PackageWriter::add(const std::string& name, const void* data, size_t size_bytes, DataType type,
                        const std::vector<uint64_t>& dimensions, bool required) {
  if (!is_member_name(name)) {
    fail(Status::kUsage, "member name '%s': expected 1 to %zu characters of [a-z0-9_.-], the first a letter or digit",
         name.c_str(), kMaxNameBytes);
  }
  if (required && !is_known_member(name)) {
    fail(Status::kUsage, "member '%s': no reader knows it, so it cannot be required; add it as optional", name.c_str());
  }
  for (const Member& member : members_) {
    if (member.name == name) fail(Status::kUsage, "member '%s' was already added", name.c_str());
  }
  if (members_.size() == kMaxMembers) {
    fail(Status::kUsage, "member '%s' is one too many, a package has at most %zu", name.c_str(), kMaxMembers);
  }
  const std::vector<uint64_t> shape = dimensions.empty() ? std::vector<uint64_t>{size_bytes} : dimensions;
  const uint64_t expected = member_bytes(type, shape.data(), shape.size());
  if (data == nullptr || size_bytes == 0 || expected != size_bytes) {
    fail(Status::kUsage,
         "member '%s': %zu bytes, its type and %zu dimensions say %llu; expected the same, 1 to %zu dimensions, and at "
         "least one element",
         name.c_str(), size_bytes, shape.size(), ull{expected}, kMaxDimensions);
  }
  members_.push_back({name, static_cast<const uint8_t*>(data), size_bytes, type, shape, required});
}

// Whether these bytes are a config whose images are cut into tiles.
static bool is_tiled(const uint8_t* config, size_t size_bytes) {
  ConfigRecord record{};
  if (size_bytes < sizeof record) return false;
  std::memcpy(&record, config, sizeof record);
  return record.tile_rows != 0;
}

// Header, table, hashes, id and the zeros up to the first member.
std::vector<uint8_t> PackageWriter::directory() const {
  if (members_.empty()) fail(Status::kUsage, "a package needs at least one member; add one before writing");
  const size_t count = members_.size();
  const size_t digests = sizeof(FileHeader) + count * sizeof(TableEntry);
  const size_t id = digests + count * sizeof(Digest);
  std::vector<uint8_t> out(align_up(id + sizeof(Digest)));

  size_t end = out.size();
  for (size_t i = 0; i < count; ++i) {
    const Member& member = members_[i];
    TableEntry entry{};
    std::memcpy(entry.name, member.name.data(), member.name.size());
    entry.flags = member.required ? kRequiredFlag : 0;
    entry.type = static_cast<uint32_t>(member.type);
    entry.dimension_count = static_cast<uint32_t>(member.dimensions.size());
    std::copy(member.dimensions.begin(), member.dimensions.end(), entry.dimensions);
    entry.offset = align_up(end);
    entry.size_bytes = member.size_bytes;
    end = static_cast<size_t>(entry.offset) + member.size_bytes;
    std::memcpy(out.data() + sizeof(FileHeader) + i * sizeof(TableEntry), &entry, sizeof entry);
    const Digest digest = sha256(member.data, member.size_bytes);
    std::memcpy(out.data() + digests + i * sizeof(Digest), digest.data(), digest.size());
  }

  FileHeader header{};
  std::memcpy(header.magic, kMagic, sizeof kMagic);
  header.major = kFormatMajor;
  header.minor = 0;
  for (const MemberSince& since : kSince) {
    const bool used =
        std::any_of(members_.begin(), members_.end(), [&](const Member& m) { return m.name == since.name; });
    if (used) header.minor = std::max(header.minor, since.minor);
  }
  for (const Member& member : members_) {
    if (member.name == "config" && is_tiled(member.data, member.size_bytes)) {
      header.minor = std::max(header.minor, kTiledSince);
    }
    CalibrationRecord calibration;
    if (member.name != "calibration" || member.size_bytes < sizeof calibration) continue;
    std::memcpy(&calibration, member.data, sizeof calibration);
    header.minor = std::max(header.minor, version_of(calibration));
  }
  header.header_bytes = sizeof(FileHeader);
  header.file_bytes = end;
  header.table_offset = sizeof(FileHeader);
  header.member_count = static_cast<uint32_t>(count);
  header.entry_bytes = sizeof(TableEntry);
  std::memcpy(out.data(), &header, sizeof header);
  const Digest package_id = sha256(out.data(), id);
  std::memcpy(out.data() + id, package_id.data(), package_id.size());
  return out;
}

std::vector<uint8_t> PackageWriter::bytes() const {
  std::vector<uint8_t> out = directory();
  for (const Member& member : members_) {
    out.resize(align_up(out.size()));
    out.insert(out.end(), member.data, member.data + member.size_bytes);
  }
  return out;
}

void PackageWriter::save(const std::string& path, const std::function<void(const std::string&)>& check) const {
  static constexpr uint8_t kZeros[kMemberAlignment] = {};
  const std::vector<uint8_t> front = directory();
  std::vector<Piece> pieces = {{front.data(), front.size()}};
  size_t end = front.size();
  for (const Member& member : members_) {
    pieces.push_back({kZeros, align_up(end) - end});
    pieces.push_back({member.data, member.size_bytes});
    end = align_up(end) + member.size_bytes;
  }
  save_pieces(path, pieces, check);
}

void save_atomically(const std::string& path, const uint8_t* data, size_t size) { save_pieces(path, {{data, size}}); }

}  // namespace onceover
