#include "monitor/monitor.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "monitor/limits.h"

namespace onceover {
namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

// Every chart is as rare as this many times the wish, so that all together are at least as rare as it.
double chart_run_length(const MonitorOptions& options) noexcept { return options.run_length * double{kCharts}; }

double tail_of(const MonitorOptions& options) noexcept { return options.batch / (2 * chart_run_length(options)); }

void check_options(const MonitoredPackage& package, const MonitorOptions& options) {
  if (!(options.run_length >= kMinMonitorRunLength && options.run_length <= kMaxMonitorRunLength)) {
    fail(Status::kUsage, "average run length is %g parts between false alarms, expected %g to %g", options.run_length,
         kMinMonitorRunLength, kMaxMonitorRunLength);
  }
  if (options.batch < kMinBatch || options.batch > kMaxBatch) {
    fail(Status::kUsage, "batch is %u parts, expected %u to %u", options.batch, kMinBatch, kMaxBatch);
  }
  if (!(options.reject_rate >= 0 && options.reject_rate < 1)) {
    fail(Status::kUsage, "reject rate is %g, expected a share below 1, or 0 to learn it", options.reject_rate);
  }
  if (options.batch > chart_run_length(options) / 10) {
    fail(Status::kUsage, "batch is %u parts, expected at most %g for an average run length of %g; take smaller batches",
         options.batch, chart_run_length(options) / 10, options.run_length);
  }
  if (package.accepted_cells > package.calibration_parts) {
    fail(Status::kUsage, "accepted_cells is %u, expected at most the %u calibration parts", package.accepted_cells,
         package.calibration_parts);
  }
}

}  // namespace

Monitor::Monitor(const MonitoredPackage& package, const MonitorOptions& options)
    : package_(package), options_(options) {
  check_options(package, options);
  p_values_ = ExchangeabilityChart(package.accepted_cells);
  rejected_ = RejectedShareChart(options.batch, options.reject_rate, tail_of(options));
  set_limits();
}

void Monitor::set_limits() noexcept {
  bets_limit_ = chart_run_length(options_);
  ewma_limit_ = ewma_limit(bets_limit_);
  cusum_limit_ = cusum_limit(bets_limit_);
}

// How many calibration scores lie below: p = (1 + #{calibration ≥ score}) / (n + 1).
uint32_t Monitor::cell_of(double p_value) const noexcept {
  const double n = package_.calibration_parts;
  return static_cast<uint32_t>(std::lround(n + 1 - p_value * (n + 1)));
}

void Monitor::check(const InspectedPart& part) const {
  const unsigned long long number = parts_ + 1;
  if (!std::isfinite(part.score)) {
    fail(Status::kInput, "part %llu: its score is %g, expected a finite number", number, double{part.score});
  }
  if (std::isinf(part.brightness) || std::isinf(part.sharpness)) {
    fail(Status::kInput, "part %llu: brightness %g, sharpness %g; expected finite numbers, or NaN if not measured",
         number, double{part.brightness}, double{part.sharpness});
  }
  if (!(part.p_value > 0 && part.p_value <= 1)) {
    fail(Status::kInput, "part %llu: its p-value is %g, expected above 0 and up to 1", number, part.p_value);
  }
  if (part.outcome > Outcome::kRejected) {
    fail(Status::kInput, "part %llu: its verdict is %u, expected 0 to 2", number, static_cast<unsigned>(part.outcome));
  }
  const double steps = part.p_value * (static_cast<double>(package_.calibration_parts) + 1);
  if (p_values_.exists() && std::fabs(steps - std::round(steps)) > 1e-6 * (1 + steps)) {
    fail(Status::kInput, "part %llu: its p-value %g is none of %u calibration parts; was it another package's?", number,
         part.p_value, package_.calibration_parts);
  }
}

uint32_t Monitor::update(const InspectedPart& part) {
  check(part);
  const uint32_t before = alarms();
  ++parts_;
  if (part.outcome != Outcome::kRejected) {  // a defect says nothing about the line
    watch_score(part);
    watch_p_value(part);
  }
  watch_image(Chart::kBrightness, part.brightness, brightness_ranks_, brightness_ewma_);
  watch_image(Chart::kSharpness, part.sharpness, sharpness_ranks_, sharpness_ewma_);
  watch_outcome(part);
  return alarms() & ~before;
}

void Monitor::watch_score(const InspectedPart& part) noexcept {
  const bool learn = !in_alarm(Chart::kScoreEwma) && !in_alarm(Chart::kScoreCusum);
  const double z = score_ranks_.score(part.score);
  score_ewma_ += kEwmaWeight * (z - score_ewma_);
  cusum_up_ = std::max(0.0, cusum_up_ + z - kCusumAllowance);
  cusum_down_ = std::max(0.0, cusum_down_ - z - kCusumAllowance);
  if (learn) score_ranks_.learn(part.score);
  judge(Chart::kScoreEwma, std::fabs(score_ewma_) > ewma_limit_);
  judge(Chart::kScoreCusum, std::max(cusum_up_, cusum_down_) > cusum_limit_);
}

void Monitor::watch_p_value(const InspectedPart& part) noexcept {
  if (!p_values_.exists() || part.outcome != Outcome::kAccepted) return;
  const uint32_t cell = cell_of(part.p_value);
  if (cell >= package_.accepted_cells) return;  // accepted by a higher threshold than the package's
  p_values_.update(cell, !in_alarm(Chart::kPValues));
  judge(Chart::kPValues, p_values_.value() >= bets_limit_);
}

// Of every part, also rejected ones: where the light fails, all may be.
void Monitor::watch_image(Chart chart, float value, SequentialRanks& ranks, double& ewma) noexcept {
  if (std::isnan(value)) return;
  ewma += kEwmaWeight * (ranks.score(value) - ewma);
  if (!in_alarm(chart)) ranks.learn(value);
  judge(chart, std::fabs(ewma) > ewma_limit_);
}

void Monitor::watch_outcome(const InspectedPart& part) noexcept {
  if (part.outcome == Outcome::kUndecided) return;
  judge(Chart::kRejected, rejected_.update(part.outcome == Outcome::kRejected, !in_alarm(Chart::kRejected)));
}

void Monitor::judge(Chart chart, bool is_beyond) noexcept {
  const auto i = static_cast<size_t>(chart);
  ++taken_[i];
  if (is_beyond && alarm_parts_[i] == 0) alarm_parts_[i] = parts_;
}

uint32_t Monitor::alarms() const noexcept {
  uint32_t all = 0;
  for (uint32_t i = 0; i < kCharts; ++i) all |= alarm_parts_[i] > 0 ? 1u << i : 0;
  return all;
}

ChartState Monitor::state(Chart chart) const noexcept {
  const auto i = static_cast<size_t>(chart);
  ChartState told = {taken_[i], alarm_parts_[i], kNone, kNone, kNone};
  const auto between = [&](double value, double limit) {
    if (told.parts > 0) told.value = value;
    told.lower = -limit;
    told.upper = limit;
  };
  switch (chart) {
    case Chart::kScoreEwma:
      between(score_ewma_, ewma_limit_);
      break;
    case Chart::kScoreCusum:  // of both sides the one that is nearer to its limit
      between(cusum_up_ >= cusum_down_ ? cusum_up_ : -cusum_down_, cusum_limit_);
      break;
    case Chart::kPValues:
      if (!p_values_.exists()) break;
      if (told.parts > 0) told.value = p_values_.value();
      told.upper = bets_limit_;
      break;
    case Chart::kBrightness:
      between(brightness_ewma_, ewma_limit_);
      break;
    case Chart::kSharpness:
      between(sharpness_ewma_, ewma_limit_);
      break;
    case Chart::kRejected: {
      if (!rejected_.has_batch()) break;
      const CountLimits limits = rejected_.last_limits();
      told.value = rejected_.last_rejected();
      if (limits.lower >= 0) told.lower = static_cast<double>(limits.lower);
      if (limits.upper <= int64_t{options_.batch}) told.upper = static_cast<double>(limits.upper);
      break;
    }
  }
  return told;
}

void Monitor::restart(bool keep_baseline) noexcept {
  if (!keep_baseline) {
    Monitor fresh;
    fresh.package_ = package_;
    fresh.options_ = options_;
    fresh.p_values_ = ExchangeabilityChart(package_.accepted_cells);
    fresh.rejected_ = RejectedShareChart(options_.batch, options_.reject_rate, tail_of(options_));
    fresh.set_limits();
    *this = fresh;
    return;
  }
  score_ewma_ = cusum_up_ = cusum_down_ = brightness_ewma_ = sharpness_ewma_ = 0;
  p_values_.restart();
  rejected_.restart();
  std::fill(alarm_parts_, alarm_parts_ + kCharts, uint64_t{0});
}

}  // namespace onceover
