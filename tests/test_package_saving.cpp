// Files: a save is complete or has not happened, and what cannot be opened is refused in words.
#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>

#include "base/interrupted.h"
#include "check.h"
#include "package_samples.h"

using namespace samples;

namespace {

// A folder of its own, removed with what is in it.
class Folder {
 public:
  Folder() {
    char name[] = "/tmp/onceover-test-XXXXXX";
    path_ = ::mkdtemp(name);
  }
  ~Folder() {
    ::chmod(path_.c_str(), 0700);
    for (const std::string& name : names()) ::remove((path_ + "/" + name).c_str());
    ::rmdir(path_.c_str());
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  std::string operator/(const char* name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }

  std::vector<std::string> names() const {
    std::vector<std::string> found;
    DIR* folder = ::opendir(path_.c_str());
    while (const dirent* entry = ::readdir(folder)) {
      const std::string name = entry->d_name;
      if (name != "." && name != "..") found.push_back(name);
    }
    ::closedir(folder);
    return found;
  }

 private:
  std::string path_;
};

Bytes read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return Bytes(std::istreambuf_iterator<char>(file), {});
}

void write_file(const std::string& path, const Bytes& bytes) {
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
}

const Bytes kOld = {'o', 'l', 'd'};

void a_saved_package_is_the_bytes_and_opens_mapped() {
  const Folder folder;
  const std::string path = folder / "part.onceover";
  write_file(path, kOld);
  sample().writer().save(path);
  CHECK(read_file(path) == sample_bytes());
  CHECK(folder.names().size() == 1);
  const PackagePointer package = Package::open(path);
  CHECK(package->label() == path && package->members().size() == 8);
  sample().writer().save(path);  // replacing a mapped file leaves the mapping as it was
  CHECK(std::memcmp(package->require("memory_bank").data, sample().bank.data(), 64 * 16 * sizeof(float)) == 0);
  const std::string graph = folder / "graph.onnx";
  save_atomically(graph, kOld.data(), kOld.size());
  CHECK(read_file(graph) == kOld);
}

void a_damaged_file_is_refused_when_opened() {
  const Folder folder;
  const std::string path = folder / "part.onceover";
  for (const size_t size : {sample_bytes().size() - 1, size_t{4096}, size_t{200}, size_t{64}, size_t{5}}) {
    write_file(path, Bytes(sample_bytes().begin(), sample_bytes().begin() + static_cast<ptrdiff_t>(size)));
    CHECK_THROWS(Package::open(path), Status::kPackage, path + ": the file ends at byte " + std::to_string(size));
  }
  write_file(path, {});
  CHECK_THROWS(Package::open(path), Status::kPackage, "the file is empty");
}

// Deterministic, unlike a race: the file changes between two steps of opening.
void a_file_that_changes_while_it_is_opened_is_told() {
  const Folder folder;
  const std::string path = folder / "part.onceover";
  sample().writer().save(path);
  const OpenFile grown(path), cut(path), rewritten(path);
  grown.check_unchanged();
  std::ofstream(path, std::ios::binary | std::ios::app) << "more";
  CHECK_THROWS(grown.check_unchanged(), Status::kInput, "changed while it was being opened; write a package under");
  CHECK(::truncate(path.c_str(), 100) == 0);
  CHECK_THROWS(cut.copy(), Status::kInput, "changed while it was being opened");
  CHECK(::truncate(path.c_str(), static_cast<off_t>(sample_bytes().size())) == 0);
  const timespec past[2] = {{1, 0}, {1, 0}};
  CHECK(::utimensat(AT_FDCWD, path.c_str(), past, 0) == 0);
  CHECK_THROWS(rewritten.check_unchanged(), Status::kInput, "changed while it was being opened");
}

void a_copied_package_does_not_see_its_file_cut() {
  const Folder folder;
  const std::string path = folder / "part.onceover";
  sample().writer().save(path);
  const PackagePointer package = Package::open(path, {HashedMembers::kAll, true});
  CHECK(::truncate(path.c_str(), 0) == 0);
  const float* bank = package->require("memory_bank").as<float>(2);
  CHECK(reinterpret_cast<uintptr_t>(bank) % kMemberAlignment == 0);
  CHECK(std::equal(sample().bank.begin(), sample().bank.end(), bank));
}

void only_damage_of_large_members_passes_when_small_ones_are_hashed() {
  const Folder folder;
  const std::string path = folder / "part.onceover";
  const Bytes large(kSmallMemberBytes + 1, 7), small(kSmallMemberBytes, 7);
  PackageWriter writer;
  writer.add("small", small.data(), small.size(), DataType::kBytes, {}, false);
  writer.add("large", large.data(), large.size(), DataType::kBytes, {}, false);
  Bytes bytes = writer.bytes();
  bytes.back() ^= 1;
  save_atomically(path, bytes.data(), bytes.size());
  CHECK_THROWS(Package::open(path), Status::kPackage, "'large'");
  CHECK(Package::open(path, {HashedMembers::kSmall, false})->hashed() == HashedMembers::kSmall);
  bytes[bytes.size() - large.size() - 1] ^= 1;  // the small member ends where the large one begins
  save_atomically(path, bytes.data(), bytes.size());
  CHECK_THROWS(Package::open(path, {HashedMembers::kSmall, false}), Status::kPackage, "'small'");
}

void what_is_no_readable_file_is_an_input_error() {
  const Folder folder;
  CHECK_THROWS(Package::open(folder / "absent.onceover"), Status::kInput, "No such file or directory; check the path");
  CHECK_THROWS(Package::open(folder.path()), Status::kInput, "is a folder, expected a package file");
  const std::string pipe = folder / "pipe";
  CHECK(::mkfifo(pipe.c_str(), 0600) == 0);
  CHECK_THROWS(Package::open(pipe), Status::kInput, "not a regular file");  // and does not wait for a writer
  if (::geteuid() == 0) return;                                             // root reads everything
  const std::string secret = folder / "secret.onceover";
  write_file(secret, kOld);
  ::chmod(secret.c_str(), 0);
  CHECK_THROWS(Package::open(secret), Status::kInput, "Permission denied; check the path and its permissions");
}

void a_target_that_cannot_be_written_is_named_with_the_reason() {
  const Folder folder;
  const PackageWriter writer = sample().writer();
  CHECK_THROWS(writer.save(folder / "absent/part.onceover"), Status::kOutput, "create the folder first");
  CHECK_THROWS(writer.save(folder.path()), Status::kOutput, "is a folder");
  CHECK_THROWS(writer.save(folder.path() + "/"), Status::kOutput, "give the name of a file");
  CHECK_THROWS(writer.save(""), Status::kOutput, "give the name of a file");
  CHECK_THROWS(writer.save("/dev/full"), Status::kOutput, "a device or pipe");  // and it is still there:
  CHECK(::access("/dev/full", F_OK) == 0);
  CHECK_THROWS(writer.save("/proc/part.onceover"), Status::kOutput, "/proc/part.onceover: cannot create");
  CHECK_THROWS(writer.save(folder / std::string(300, 'x').c_str()), Status::kOutput, "File name too long");
  CHECK(folder.names().empty());
  if (::geteuid() == 0) return;  // root writes everywhere
  ::chmod(folder.path().c_str(), 0500);
  CHECK_THROWS(writer.save(folder / "part.onceover"), Status::kOutput, "check the permissions of its folder");
  CHECK(folder.names().empty());
}

// A limit on file size fails a write in the middle, as a full disk does.
void a_write_that_fails_in_the_middle_leaves_the_old_file_and_nothing_else() {
  const Folder folder;
  const std::string path = folder / "part.onceover";
  write_file(path, kOld);
  rlimit before{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  const rlimit small{4096, before.rlim_max};
  std::signal(SIGXFSZ, SIG_IGN);
  CHECK(::setrlimit(RLIMIT_FSIZE, &small) == 0);
  CHECK_THROWS(sample().writer().save(path), Status::kOutput, "cannot write the file: File too large");
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, SIG_DFL);
  CHECK(read_file(path) == kOld);
  CHECK(folder.names() == std::vector<std::string>{"part.onceover"});
}

void what_a_killed_process_left_is_removed_by_the_next_save_and_nothing_else_is() {
  const Folder folder;
  const std::string live = folder / ".part.onceover.2.0.tmp";
  write_file(folder / ".part.onceover.1.0.tmp", kOld);    // left behind
  write_file(folder / ".part.onceover.12.34.tmp", kOld);  // left behind
  write_file(live, kOld);                                 // locked below: somebody is writing it
  write_file(folder / ".other.onceover.1.0.tmp", kOld);
  write_file(folder / ".part.onceover.mine.tmp", kOld);
  write_file(folder / ".part.onceover.1.0.tmp.bak", kOld);
  const int file = ::open(live.c_str(), O_WRONLY);
  CHECK(::flock(file, LOCK_EX | LOCK_NB) == 0);
  sample().writer().save(folder / "part.onceover");
  std::vector<std::string> names = folder.names();
  std::sort(names.begin(), names.end());
  CHECK((names == std::vector<std::string>{".other.onceover.1.0.tmp", ".part.onceover.1.0.tmp.bak",
                                           ".part.onceover.2.0.tmp", ".part.onceover.mine.tmp", "part.onceover"}));
  ::close(file);
}

void processes_that_save_to_one_target_do_not_fail_each_other() {
  const Folder folder;
  const std::string path = folder / "part.onceover";
  std::vector<pid_t> children;
  for (int i = 0; i < 6; ++i) {
    const pid_t child = ::fork();
    if (child == 0) {
      const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(2);
      int failed = 0;
      while (failed == 0 && std::chrono::steady_clock::now() < end) {
        try {
          save_atomically(path, kOld.data(), kOld.size());
        } catch (const Error& error) {
          std::fprintf(stderr, "%s\n", error.what());
          failed = 1;
        }
      }
      ::_exit(failed);
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = -1;
    CHECK(::waitpid(child, &status, 0) == child && status == 0);
  }
  CHECK(read_file(path) == kOld);
  CHECK(folder.names() == std::vector<std::string>{"part.onceover"});
}

void a_replaced_file_keeps_its_mode() {
  const Folder folder;
  const std::string path = folder / "part.onceover";
  const auto mode = [&path] {
    struct stat status{};
    return ::stat(path.c_str(), &status) == 0 ? status.st_mode & 07777 : 0;
  };
  const mode_t mask = ::umask(022);
  sample().writer().save(path);
  CHECK(mode() == 0644);
  for (const mode_t wanted : {0600, 0666, 0440}) {
    ::chmod(path.c_str(), wanted);
    sample().writer().save(path);
    CHECK(mode() == wanted);
  }
  ::umask(mask);
  CHECK(read_file(path) == sample_bytes());
}

void a_call_that_a_signal_interrupts_is_made_again() {
  int calls = 0;
  const auto twice_interrupted = [&calls] { return errno = EINTR, ++calls < 3 ? -1 : 7; };
  CHECK(retry_interrupted(twice_interrupted) == 7 && calls == 3);
  const auto failing = [&calls] { return errno = EIO, ++calls, -1; };
  CHECK(retry_interrupted(failing) == -1 && calls == 4 && errno == EIO);
}

void wrong_members_are_refused_before_anything_is_written() {
  PackageWriter writer;
  CHECK_THROWS(writer.bytes(), Status::kUsage, "at least one member");
  const auto add = [&writer](const char* name, size_t size, DataType type, const std::vector<uint64_t>& dimensions,
                             bool required) { writer.add(name, kOld.data(), size, type, dimensions, required); };
  add("first", 3, DataType::kBytes, {}, false);
  CHECK_THROWS(add("first", 3, DataType::kBytes, {}, false), Status::kUsage, "already added");
  CHECK_THROWS(add("../evil", 3, DataType::kBytes, {}, false), Status::kUsage, "member name '../evil'");
  CHECK_THROWS(add("spline", 3, DataType::kBytes, {}, true), Status::kUsage, "add it as optional");
  CHECK_THROWS(add("second", 0, DataType::kBytes, {}, false), Status::kUsage, "0 bytes");
  CHECK_THROWS(add("second", 3, DataType::kFloat32, {1}, false), Status::kUsage, "say 4");
  CHECK_THROWS(add("second", 3, DataType::kBytes, {1, 1, 1, 1, 3}, false), Status::kUsage, "5 dimensions");
  CHECK_THROWS(add("second", 3, DataType::kBytes, {uint64_t{1} << 63, 2}, false), Status::kUsage, "say 0");
  for (size_t i = 1; i < kMaxMembers; ++i) add(("m" + std::to_string(i)).c_str(), 3, DataType::kBytes, {}, false);
  CHECK_THROWS(add("last", 3, DataType::kBytes, {}, false), Status::kUsage, "at most 512");
  const Bytes bytes = writer.bytes();
  CHECK(Package::view(bytes.data(), bytes.size(), "test")->members().size() == kMaxMembers);
}

}  // namespace

int main() {
  a_saved_package_is_the_bytes_and_opens_mapped();
  a_damaged_file_is_refused_when_opened();
  a_file_that_changes_while_it_is_opened_is_told();
  a_copied_package_does_not_see_its_file_cut();
  only_damage_of_large_members_passes_when_small_ones_are_hashed();
  what_is_no_readable_file_is_an_input_error();
  a_target_that_cannot_be_written_is_named_with_the_reason();
  a_write_that_fails_in_the_middle_leaves_the_old_file_and_nothing_else();
  what_a_killed_process_left_is_removed_by_the_next_save_and_nothing_else_is();
  processes_that_save_to_one_target_do_not_fail_each_other();
  a_replaced_file_keeps_its_mode();
  a_call_that_a_signal_interrupts_is_made_again();
  wrong_members_are_refused_before_anything_is_written();
  return check::summary("package_saving");
}
