#include "metrics/compute.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "base/error.h"
#include "metrics/ranks.h"
#include "metrics/score_key.h"

namespace onceover {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
__extension__ typedef unsigned __int128 Wide;

// Neumaier 1974, "Rundungsfehleranalyse einiger Verfahren zur Summation endlicher Summen": what rounding loses is kept.
class Sum {
 public:
  void add(double value) {
    const double next = sum_ + value;
    lost_ += std::fabs(sum_) >= std::fabs(value) ? (sum_ - next) + value : (value - next) + sum_;
    sum_ = next;
  }
  double value() const { return sum_ + lost_; }

 private:
  double sum_ = 0, lost_ = 0;
};

// A sum of rounded shares of 1 may end a little above.
double at_most_1(double value) { return value < 1 ? value : 1; }

struct Totals {
  uint64_t normal = 0, anomalous = 0, regions = 0, channels = 0;
  bool defined() const { return normal > 0 && anomalous > 0; }
};

// The part of [0, limit] behind the step of a score with FPR a before and b after it: full height from b on, and a ramp
// between a and b, where it ties with normal scores. Integrating the curve is adding weight · this over all scores.
double area_behind(double a, double b, double limit) {
  if (b <= limit) return limit - 0.5 * (a + b);
  if (a < limit) return (limit - a) * (limit - a) / (2 * (b - a));
  return 0;
}

// The metrics under one reading of the ranks.
class Integral {
 public:
  Integral(const Totals& totals, const std::vector<double>& limits)
      : totals_(totals),
        per_normal_(1 / static_cast<double>(totals.normal)),
        per_anomalous_(1 / static_cast<double>(totals.anomalous)),
        limits_(limits),
        areas_(limits.size()),
        channel_areas_(limits.size()) {}

  void add(const RankedScore& score, uint64_t above, uint64_t at_or_above) {
    const double a = static_cast<double>(above) * per_normal_, b = static_cast<double>(at_or_above) * per_normal_;
    for (size_t i = 0; i < limits_.size() && a < limits_[i]; ++i) {  // limits_ descend
      const double area = area_behind(a, b, limits_[i]);
      areas_[i].add(score.weight * area);
      if (score.channel_weight > 0) channel_areas_[i].add(score.channel_weight * area);
    }
    below_twice_ += Wide{score.count} * (2 * totals_.normal - above - at_or_above);
    found_ += score.count;
    const auto found = static_cast<double>(found_), flagged = static_cast<double>(found_ + at_or_above);
    precision_.add(static_cast<double>(score.count) * per_anomalous_ * (found / flagged));
    const double f1 = 2 * found / (flagged + static_cast<double>(totals_.anomalous));
    if (f1 >= best_f1_) {  // scores descend: of equal ones the lowest threshold stays
      best_f1_ = f1;
      best_key_ = score.key;
    }
  }

  // `order[i]` is where the i-th limit of the caller stands in limits_.
  SegmentationMetrics metrics(const std::vector<size_t>& order) const {
    SegmentationMetrics metrics;
    const bool defined = totals_.defined(), saturated = defined && totals_.channels > 0;
    for (const size_t at : order) {
      const double limit = limits_[at];
      metrics.aupro.push_back(defined ? areas_[at].value() / (static_cast<double>(totals_.regions) * limit) : kNaN);
      metrics.auspro.push_back(saturated ? channel_areas_[at].value() / (static_cast<double>(totals_.channels) * limit)
                                         : kNaN);
    }
    const double pairs = static_cast<double>(totals_.normal) * static_cast<double>(totals_.anomalous);
    metrics.pixel_auroc = defined ? static_cast<double>(below_twice_) / (2 * pairs) : kNaN;
    metrics.average_precision = defined ? at_most_1(precision_.value()) : kNaN;
    metrics.f1_max = defined ? best_f1_ : kNaN;
    metrics.f1_max_threshold = defined ? score_of_key(best_key_) : std::numeric_limits<float>::quiet_NaN();
    return metrics;
  }

 private:
  Totals totals_;
  double per_normal_, per_anomalous_;  // products: a division takes as long as all the rest
  std::vector<double> limits_;         // descending
  std::vector<Sum> areas_, channel_areas_;
  Sum precision_;
  Wide below_twice_ = 0;  // Σ count · (normal scores below it + half of those tied) · 2
  uint64_t found_ = 0;    // anomalous scores so far
  double best_f1_ = -1;
  uint32_t best_key_ = 0;
};

struct Gathered {
  std::vector<WeightedKey> pixels, channel_pixels;
  Totals totals;
};

Gathered gather(const SegmentationState& state, int group) {
  const std::vector<DefectGroup>& groups = state.groups();
  if (group != kAllGroups && (group < 0 || static_cast<size_t>(group) >= groups.size())) {
    fail(Status::kUsage, "group %d of %zu; expected %d for all, or one of them", group, groups.size(), kAllGroups);
  }
  Gathered all;
  size_t pixels = 0;
  for (const DefectGroup& each : groups) pixels += each.pixels.size();
  if (group == kAllGroups) all.pixels.reserve(pixels);
  for (size_t i = 0; i < groups.size(); ++i) {
    if (group != kAllGroups && static_cast<size_t>(group) != i) continue;
    groups[i].pixels.append_to(all.pixels);
    groups[i].channel_pixels.append_to(all.channel_pixels);
    all.totals.regions += groups[i].regions;
    all.totals.channels += groups[i].channels;
  }
  all.totals.normal = state.normal_pixels();
  all.totals.anomalous = all.pixels.size();
  sort_by_key(all.pixels);
  sort_by_key(all.channel_pixels);
  return all;
}

// Normal scores of +infinity; with dropped bits also those that cannot be told from it.
uint64_t count_at_infinity(SegmentationState& state) {
  RankReader ranks(state.settled_normals(), state.table());
  ranks.move_to(kKeyOfInfinity >> state.dropped_bits());
  uint64_t count = ranks.equal();
  for (const auto& coded : state.coded_normals()) count += coded.first == kKeyOfInfinity ? coded.second : 0;
  return count;
}

}  // namespace

SegmentationResult compute_metrics(SegmentationState& state, const std::vector<double>& fpr_limits, int group) {
  for (const double limit : fpr_limits) {
    if (!(limit > 0 && limit <= 1)) {
      fail(Status::kUsage, "fpr_limit is %g; it must lie in (0, 1], usually 0.3 or 0.05", limit);
    }
  }
  const Gathered all = gather(state, group);
  std::vector<double> limits = fpr_limits;
  std::sort(limits.begin(), limits.end(), std::greater<>());
  std::vector<size_t> order;
  for (const double limit : fpr_limits) {
    order.push_back(static_cast<size_t>(std::find(limits.begin(), limits.end(), limit) - limits.begin()));
  }
  Integral value(all.totals, limits), lower(all.totals, limits), upper(all.totals, limits);
  const bool certified = state.dropped_bits() > 0;
  if (all.totals.defined()) {
    visit_ranked(state, all.pixels, all.channel_pixels, [&](const RankedScore& score) {
      const uint64_t at_or_above = score.above + score.tied;
      value.add(score, score.above, at_or_above + score.uncertain);
      if (!certified) return;
      lower.add(score, score.above + score.uncertain, at_or_above + score.uncertain);
      upper.add(score, score.above, at_or_above);
    });
  }
  SegmentationResult result;
  result.value = value.metrics(order);
  result.certified = certified;
  if (certified) {
    result.lower = lower.metrics(order);
    result.upper = upper.metrics(order);
  }
  result.regions = all.totals.regions;
  result.channels = all.totals.channels;
  result.anomalous_pixels = all.totals.anomalous;
  result.normal_pixels = all.totals.normal;
  return result;
}

SegmentationCurve compute_curve(SegmentationState& state, int group) {
  const Gathered all = gather(state, group);
  SegmentationCurve curve;
  if (!all.totals.defined()) return curve;
  const auto normal = static_cast<double>(all.totals.normal), anomalous = static_cast<double>(all.totals.anomalous);
  const auto regions = static_cast<double>(all.totals.regions);
  const double channels = all.totals.channels > 0 ? static_cast<double>(all.totals.channels) : 1;
  uint64_t false_alarms = 0, found = 0;
  Sum overlap, channel_overlap;
  const auto add = [&](float threshold) {
    curve.thresholds.push_back(threshold);
    curve.fpr.push_back(static_cast<double>(false_alarms) / normal);
    curve.pro.push_back(std::min(overlap.value() / regions, 1.0));
    curve.spro.push_back(std::min(channel_overlap.value() / channels, 1.0));
    curve.tpr.push_back(static_cast<double>(found) / anomalous);
    const uint64_t flagged = found + false_alarms;
    curve.precision.push_back(flagged == 0 ? 1.0 : static_cast<double>(found) / static_cast<double>(flagged));
  };
  add(std::numeric_limits<float>::infinity());  // more than it: nothing is predicted
  if (all.pixels.back() >> 32 != kKeyOfInfinity) {
    false_alarms = count_at_infinity(state);
    if (false_alarms > 0) add(std::numeric_limits<float>::infinity());
  }
  visit_ranked(state, all.pixels, all.channel_pixels, [&](const RankedScore& score) {
    if (score.above > false_alarms) {  // normal scores between this and the one before: up to just above it
      false_alarms = score.above;
      add(score_of_key(score.key + 1));
    }
    false_alarms = std::max(false_alarms, score.above + score.tied + score.uncertain);
    found += score.count;
    overlap.add(score.weight);
    channel_overlap.add(score.channel_weight);
    add(score_of_key(score.key));
  });
  if (false_alarms < all.totals.normal) {
    false_alarms = all.totals.normal;
    add(-std::numeric_limits<float>::infinity());
  }
  return curve;
}

}  // namespace onceover
