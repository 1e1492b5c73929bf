// What the tests of compaction share: packages, journals of them, sessions, and a folder for this run.
#pragma once

#include <dirent.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "compaction/compact.h"
#include "correctable_package.h"

namespace compaction_check {

using namespace onceover;

inline std::string folder;  // of this run

inline const bool kEmulated = std::getenv("ONCEOVER_QEMU") != nullptr;  // which takes fifty times as long

inline const std::vector<uint8_t>& package_bytes() {
  static const std::vector<uint8_t> bytes = host_package::correctable_bytes();
  return bytes;
}

// With a region of interest, the middle half of the rows, an adaptation and position weights.
inline std::vector<uint8_t> regional_bytes(Tiling tiling, uint32_t images = 40) {
  std::vector<uint8_t> roi(64, 0);
  std::fill(roi.begin() + 16, roi.begin() + 48, uint8_t{1});
  std::vector<float> adaptation(HOST_DIM * HOST_DIM);
  for (size_t i = 0; i < adaptation.size(); ++i) {
    adaptation[i] = (i % (HOST_DIM + 1) == 0 ? 1.5f : 0.0f) + 0.01f * static_cast<float>(i % 7);
  }
  return host_package::correctable_bytes(
      {true, true, tiling, roi, adaptation, host_package::some_weights(tiling), images});
}

// One of tiles, of which neighbors overlap.
inline constexpr Tiling kTiling = {2, 2, 1, 1};
inline const std::vector<uint8_t>& tiled_bytes() {
  static const std::vector<uint8_t> bytes = regional_bytes(kTiling, kEmulated ? 12 : 40);
  return bytes;
}

inline std::string path_of(const std::string& name) { return folder + "/" + name; }

inline std::vector<uint8_t> read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline std::vector<std::string> files() {
  std::vector<std::string> names;
  DIR* open = ::opendir(folder.c_str());
  while (const dirent* entry = ::readdir(open)) {
    if (entry->d_name[0] != '.' || std::string(entry->d_name).size() > 2) names.emplace_back(entry->d_name);
  }
  ::closedir(open);
  std::sort(names.begin(), names.end());
  return names;
}

inline std::unique_ptr<Session> opened(std::shared_ptr<const Package> package) {
  return std::make_unique<Session>(std::move(package), host_package::session_options());
}

inline CompactOptions options() {
  CompactOptions made;
  made.open_session = opened;
  return made;
}

// A new journal of the package at a path of this name.
inline Corrections journal_of(std::shared_ptr<const Package> package, const char* name) {
  const std::string path = path_of(name);
  ::unlink(path.c_str());
  return {std::move(package), path};
}

inline std::shared_ptr<const Package> fitted(const std::vector<uint8_t>& bytes = package_bytes()) {
  return Package::view(bytes.data(), bytes.size(), "fitted");
}

// A good part with a square in the middle that no other one has.
inline host_package::Image false_alarm(uint32_t seed) {
  host_package::Image image = host_package::image(seed);
  std::mt19937 random(seed);
  for (size_t y = 14; y < 26; ++y) {
    for (size_t x = 22; x < 34; ++x) {
      for (size_t c = 0; c < 3; ++c) image.pixels[(y * 56 + x) * 3 + c] = static_cast<uint8_t>(random() % 256);
    }
  }
  return image;
}

// Confirms it as a false alarm.
inline uint64_t confirm_alarm(Corrections& corrections, uint32_t seed, const std::string& name, uint32_t product = 0) {
  const auto session = opened(corrections.shared_package());
  session->select(product);
  session->apply(corrections.changes(), corrections.max_added_rows());
  session->run(false_alarm(seed).view);
  std::vector<float> rows;
  Candidate candidate = session->candidate(rows);
  candidate.name = name;
  const uint64_t id = corrections.propose(product, candidate, {rows.data(), candidate.patches.size(), HOST_DIM}, 0);
  corrections.confirm({id}, "", 0);
  return id;
}

// Two products, as their packages: the second one with a region of interest and an adaptation.
struct TwoProducts {
  explicit TwoProducts(Tiling tiling)
      : alone{host_package::correctable_bytes({true, true, tiling}), regional_bytes(tiling)},
        together(host_package::combined(alone[0], alone[1])) {}

  std::vector<uint8_t> alone[2], together;
};

inline const TwoProducts& two_products() {
  static const TwoProducts made({});
  return made;
}

inline const TwoProducts& tiled_products() {
  static const TwoProducts made(kTiling);
  return made;
}

// Corrects one product: rows added and rows removed, fitted and added ones.
inline void correct(Corrections& corrections, uint32_t product, uint32_t seed) {
  confirm_alarm(corrections, seed, "alarm_" + std::to_string(seed) + ".png", product);
  corrections.remove(product, {seed - 295, seed - 100, corrections.changes(product).numbers.back()}, "", 0);
}

// Rows added, rows removed, a candidate whose name is hard to write, one that waits and one that was taken back.
inline Corrections corrected(std::shared_ptr<const Package> package, const char* name) {
  Corrections corrections = journal_of(std::move(package), name);
  confirm_alarm(corrections, 300, "shots/line \"3\"\\\n\xff.png");
  confirm_alarm(corrections, 301, "");
  corrections.reject({confirm_alarm(corrections, 307, "rejected.png")}, "", 0);
  corrections.remove(0, {5, 17, corrections.changes(0).numbers[1]}, "", 0);
  return corrections;
}

// Each compaction over the file at `path` dies at another of its progress reports, and the file stays as it is.
inline void killed_at_every_report(const Corrections& corrections, const std::string& path, size_t reports) {
  const std::vector<uint8_t> old = read_file(path);
  for (size_t at = 1; at <= reports; ++at) {
    const pid_t child = ::fork();
    if (child == 0) {
      CompactOptions dying = options();
      size_t seen = 0;
      dying.progress = [&](const char*, size_t, size_t) {
        if (++seen == at) ::raise(SIGKILL);
      };
      compact(corrections, path, dying);
      ::_exit(0);
    }
    int status = 0;
    CHECK(::waitpid(child, &status, 0) == child && WIFSIGNALED(status));
    CHECK(read_file(path) == old);
  }
}

// Runs the tests in a new folder, and removes it.
template <typename Tests>
int run(const char* name, const Tests& tests) {
  char pattern[] = "/tmp/onceover_compaction_XXXXXX";
  const char* made = ::mkdtemp(pattern);
  if (made == nullptr) return EXIT_FAILURE;
  folder = made;
  tests();
  const std::string clean = "rm -rf '" + folder + "'";
  if (std::system(clean.c_str()) != 0) return EXIT_FAILURE;
  return check::summary(name);
}

}  // namespace compaction_check
