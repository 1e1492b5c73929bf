// Has the line drifted from what it was? One update per inspected part, in fixed memory; docs/monitoring.md says what
// each chart sees and how long it takes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "monitor/exchangeability.h"
#include "monitor/normal_scores.h"
#include "monitor/rejected_share.h"

namespace onceover {

enum class Chart : uint32_t { kScoreEwma, kScoreCusum, kPValues, kBrightness, kSharpness, kRejected };
inline constexpr size_t kCharts = 6;

// What charts need to know of a package.
struct MonitoredPackage {
  std::array<uint8_t, 32> id = {};
  uint32_t calibration_parts = 0;  // n of p-values; 0: none
  uint32_t accepted_cells = 0;     // ranks a score up to the threshold can have among the calibration scores, ≤ n
};

struct MonitorOptions {
  double run_length = 10000;  // parts between false alarms of the whole monitor, on average
  uint32_t batch = 100;       // parts per point of the chart of rejected parts
  double reject_rate = 0;     // of the line when all is well; 0: learned from its batches
};

inline constexpr double kMinMonitorRunLength = 100, kMaxMonitorRunLength = 1e6;
inline constexpr uint32_t kMinBatch = 10, kMaxBatch = 10000;

enum class Outcome : uint32_t { kUndecided, kAccepted, kRejected };  // as onceover_verdict

struct InspectedPart {
  Outcome outcome = Outcome::kUndecided;
  float score = 0;
  double p_value = 1;
  float brightness = 0, sharpness = 0;  // NaN: not measured
};

struct ChartState {
  uint64_t parts = 0;           // that this chart has taken
  uint64_t alarm_part = 0;      // the first part beyond a limit, counted from 1; 0: none
  double value = 0;             // NaN: none yet
  double lower = 0, upper = 0;  // of `value`; NaN: none on this side, or no chart
};

class Monitor {
 public:
  // Throws Error(kUsage) for options out of range.
  Monitor(const MonitoredPackage& package, const MonitorOptions& options);

  // The charts (1 << Chart) whose alarm begins with this part. Allocates nothing. Throws Error(kInput) for a score,
  // p-value or statistic that cannot be, and is then as before.
  uint32_t update(const InspectedPart& part);

  ChartState state(Chart chart) const noexcept;
  uint32_t alarms() const noexcept;  // of all charts that are in alarm
  uint64_t parts() const noexcept { return parts_; }
  const MonitoredPackage& package() const noexcept { return package_; }
  const MonitorOptions& options() const noexcept { return options_; }

  // Ends all alarms. keep_baseline: false after what changes the line for good (another lamp, another package).
  void restart(bool keep_baseline) noexcept;

  // Everything, as kStateBytes bytes with a checksum; what read_monitor gives goes on with the same bits.
  static size_t state_bytes() noexcept;
  void write(uint8_t* bytes) const noexcept;
  // Throws Error(kInput) for bytes that are damaged or something else, kUnsupported for another version.
  static Monitor read(const uint8_t* bytes, size_t size);

 private:
  Monitor() = default;
  bool in_alarm(Chart chart) const noexcept { return alarm_parts_[static_cast<size_t>(chart)] > 0; }
  void check(const InspectedPart& part) const;
  void watch_score(const InspectedPart& part) noexcept;
  void watch_p_value(const InspectedPart& part) noexcept;
  void watch_image(Chart chart, float value, SequentialRanks& ranks, double& ewma) noexcept;
  void watch_outcome(const InspectedPart& part) noexcept;
  void judge(Chart chart, bool is_beyond) noexcept;
  void set_limits() noexcept;
  uint32_t cell_of(double p_value) const noexcept;

  template <typename Archive>
  void transfer(Archive& archive);

  MonitoredPackage package_;
  MonitorOptions options_;
  double ewma_limit_ = 0, cusum_limit_ = 0, bets_limit_ = 0;  // follow from options_
  uint64_t parts_ = 0;
  uint64_t taken_[kCharts] = {}, alarm_parts_[kCharts] = {};
  SequentialRanks score_ranks_, brightness_ranks_, sharpness_ranks_;
  double score_ewma_ = 0, cusum_up_ = 0, cusum_down_ = 0, brightness_ewma_ = 0, sharpness_ewma_ = 0;
  ExchangeabilityChart p_values_;
  RejectedShareChart rejected_;
};

}  // namespace onceover
