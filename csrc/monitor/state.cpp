// A monitor as bytes, so that a power cut does not make it forget: little-endian fields in a fixed order, a checksum.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/sha256.h"
#include "monitor/monitor.h"

namespace onceover {
namespace {

constexpr uint8_t kMagic[8] = {0x89, 'O', 'O', 'D', '\r', '\n', 0x1a, '\n'};  // text-mode transfer breaks it
constexpr uint32_t kVersion = 1;

template <typename T>
uint64_t bits_of(T value) noexcept {
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);  // every machine that this runs on is little-endian (package/layout.h)
  return bits;
}

struct Counting {
  size_t size = 0;
  template <typename T>
  void value(T&) noexcept {
    size += sizeof(T);
  }
};

struct Writing {
  uint8_t* at;
  template <typename T>
  void value(T& value) noexcept {
    const uint64_t bits = bits_of(value);
    for (size_t i = 0; i < sizeof(T); ++i) *at++ = static_cast<uint8_t>(bits >> (8 * i));
  }
};

struct Reading {
  const uint8_t* at;
  template <typename T>
  void value(T& value) noexcept {
    uint64_t bits = 0;
    for (size_t i = 0; i < sizeof(T); ++i) bits |= uint64_t{*at++} << (8 * i);
    std::memcpy(&value, &bits, sizeof(T));
  }
};

[[noreturn]] void refuse(const char* why) {
  fail(Status::kInput, "these bytes are no intact monitor: %s; begin with a new one", why);
}

bool is_ewma(double value) noexcept { return std::fabs(value) < 100; }  // also refuses NaN

}  // namespace

template <typename Archive>
void Monitor::transfer(Archive& archive) {
  for (uint8_t& byte : package_.id) archive.value(byte);
  archive.value(package_.calibration_parts);
  archive.value(package_.accepted_cells);
  archive.value(options_.run_length);
  archive.value(options_.batch);
  archive.value(options_.reject_rate);
  archive.value(parts_);
  for (uint64_t& count : taken_) archive.value(count);
  for (uint64_t& part : alarm_parts_) archive.value(part);
  for (SequentialRanks* ranks : {&score_ranks_, &brightness_ranks_, &sharpness_ranks_}) ranks->transfer(archive);
  for (double* value : {&score_ewma_, &cusum_up_, &cusum_down_, &brightness_ewma_, &sharpness_ewma_}) {
    archive.value(*value);
  }
  p_values_.transfer(archive);
  rejected_.transfer(archive);
}

size_t Monitor::state_bytes() noexcept {
  Counting counting;
  Monitor().transfer(counting);
  return sizeof kMagic + sizeof kVersion + counting.size + sizeof(Digest);
}

void Monitor::write(uint8_t* bytes) const noexcept {
  Monitor copy = *this;  // transfer is one function for both ways
  std::memcpy(bytes, kMagic, sizeof kMagic);
  Writing writing{bytes + sizeof kMagic};
  uint32_t version = kVersion;
  writing.value(version);
  copy.transfer(writing);
  const Digest digest = sha256(bytes, static_cast<size_t>(writing.at - bytes));
  std::memcpy(writing.at, digest.data(), digest.size());
}

Monitor Monitor::read(const uint8_t* bytes, size_t size) {
  if (size < sizeof kMagic + sizeof kVersion) refuse("they end too early");
  if (std::memcmp(bytes, kMagic, sizeof kMagic) != 0) refuse("they begin otherwise");
  Reading reading{bytes + sizeof kMagic};
  uint32_t version = 0;
  reading.value(version);
  if (version != kVersion) {
    fail(Status::kUnsupported, "a monitor of version %u; this onceover reads version %u", version, kVersion);
  }
  if (size != state_bytes()) refuse("they have another size");
  const size_t hashed = size - sizeof(Digest);
  const Digest digest = sha256(bytes, hashed);
  if (std::memcmp(digest.data(), bytes + hashed, sizeof digest) != 0) refuse("the checksum differs");
  Monitor monitor;
  monitor.transfer(reading);
  const Monitor same_options(monitor.package_, monitor.options_);  // throws for options that cannot be
  const bool possible = monitor.p_values_.is_like(same_options.p_values_) &&
                        monitor.rejected_.is_like(same_options.rejected_) && monitor.score_ranks_.is_possible() &&
                        monitor.brightness_ranks_.is_possible() && monitor.sharpness_ranks_.is_possible() &&
                        monitor.p_values_.is_possible() && monitor.rejected_.is_possible() &&
                        is_ewma(monitor.score_ewma_) && is_ewma(monitor.brightness_ewma_) &&
                        is_ewma(monitor.sharpness_ewma_) && monitor.cusum_up_ >= 0 && monitor.cusum_down_ >= 0 &&
                        std::all_of(monitor.alarm_parts_, monitor.alarm_parts_ + kCharts,
                                    [&](uint64_t part) { return part <= monitor.parts_; });
  if (!possible) refuse("they describe an impossible one");
  monitor.set_limits();
  return monitor;
}

}  // namespace onceover
