// onceover_metrics.hpp beside the core's own answers on random images: the same values, bit for bit, over libonceover
// and in one program with the core, whose names it must not meet.
#include "onceover_metrics.hpp"

#include <cmath>
#include <cstring>
#include <random>
#include <type_traits>
#include <utility>

#include "check.h"
#include "kernels/dispatch.h"
#include "metrics/compute.h"
#include "metrics/state_file.h"

using namespace onceover;

namespace {

using Random32 = std::mt19937;
const std::vector<double> kLimits = {0.3, 0.05, 1};

static_assert(std::is_nothrow_move_constructible_v<SegmentationAccumulator> &&
              std::is_nothrow_move_assignable_v<SegmentationAccumulator> &&
              !std::is_copy_constructible_v<SegmentationAccumulator>);

// The statement throws MetricsError with this status, and its message contains `text`.
template <typename Statement>
bool refused(const Statement& statement, onceover_status status, const char* text) {
  try {
    statement();
  } catch (const MetricsError& error) {
    return error.status() == status && std::strstr(error.what(), text) != nullptr;
  }
  return false;
}

bool same(double a, double b) { return std::memcmp(&a, &b, sizeof a) == 0; }

bool same(const onceover_metric& metric, double value, double lower, double upper) {
  return same(metric.value, value) && same(metric.lower, lower) && same(metric.upper, upper);
}

template <typename T>
bool same(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

// Few distinct scores in some images, so that there are ties.
template <typename Score>
std::vector<Score> random_scores(size_t count, Random32& bits) {
  std::vector<Score> scores(count);
  const uint32_t distinct = bits() % 2 == 0 ? 7 : 251;
  for (Score& score : scores) {
    const uint32_t number = bits() % distinct;
    if constexpr (std::is_same_v<Score, HalfScore>) {
      score.bits = static_cast<uint16_t>(0x3c00 + number);
    } else {
      score = static_cast<Score>(number);
    }
  }
  return scores;
}

std::vector<uint8_t> random_mask(size_t count, Random32& bits) {
  std::vector<uint8_t> mask(count);
  const uint32_t percent = 1 + bits() % 40;
  for (uint8_t& pixel : mask) pixel = bits() % 100 < percent ? 255 : 0;
  mask[bits() % count] = 1;
  return mask;
}

void check_same_answers(SegmentationAccumulator& metrics, SegmentationState& core, int group) {
  const SegmentationSummary found = metrics.compute(kLimits, group);
  const SegmentationResult expected = compute_metrics(core, kLimits, group);
  const auto& lower = expected.certified ? expected.lower : expected.value;
  const auto& upper = expected.certified ? expected.upper : expected.value;
  for (size_t i = 0; i < kLimits.size(); ++i) {
    CHECK(same(found.aupro[i], expected.value.aupro[i], lower.aupro[i], upper.aupro[i]));
    CHECK(same(found.auspro[i], expected.value.auspro[i], lower.auspro[i], upper.auspro[i]));
  }
  CHECK(same(found.pixel_auroc, expected.value.pixel_auroc, lower.pixel_auroc, upper.pixel_auroc));
  CHECK(same(found.average_precision, expected.value.average_precision, lower.average_precision,
             upper.average_precision));
  CHECK(same(found.f1_max, expected.value.f1_max, lower.f1_max, upper.f1_max));
  CHECK(same(found.f1_max_threshold, expected.value.f1_max_threshold));
  CHECK(found.images == core.images() && found.groups == core.groups().size() && found.state_bytes > 0);
  CHECK(found.regions == expected.regions && found.channels == expected.channels);
  CHECK(found.anomalous_pixels == expected.anomalous_pixels && found.normal_pixels == expected.normal_pixels);
  CHECK(found.dropped_key_bits == static_cast<uint32_t>(core.dropped_bits()));

  const SegmentationVertices vertices = metrics.curve(group);
  const SegmentationCurve curve = compute_curve(core, group);
  CHECK(same(vertices.thresholds, curve.thresholds) && same(vertices.fpr, curve.fpr) && same(vertices.pro, curve.pro));
  CHECK(same(vertices.spro, curve.spro) && same(vertices.tpr, curve.tpr) && same(vertices.precision, curve.precision));
}

// The same image to both, as a whole, upside down with a stride, or with two channels.
template <typename Score>
void take_one(SegmentationAccumulator& metrics, SegmentationState& core, ScoreType type, Random32& bits) {
  const size_t height = 1 + bits() % 40, width = 1 + bits() % 90, count = height * width;
  const int group = static_cast<int>(bits() % 3);
  const std::vector<Score> scores = random_scores<Score>(count, bits);
  const std::vector<uint8_t> mask = random_mask(count, bits), other = random_mask(count, bits);
  const auto stride = static_cast<ptrdiff_t>(width * sizeof(Score));
  const ScoreView map = {scores.data(), type, height, width, stride};
  const MaskView truth = {mask.data(), height, width, static_cast<ptrdiff_t>(width)};
  const uint32_t kind = bits() % 4;
  if (kind == 0) {
    metrics.update(PixelView(scores, height, width), {}, group);
    core.update(map, {}, static_cast<size_t>(group));
  } else if (kind == 1) {
    metrics.update(PixelView(scores, height, width), PixelView(mask, height, width), group);
    core.update(map, truth, static_cast<size_t>(group));
  } else if (kind == 2) {
    const size_t last = (height - 1) * width;
    metrics.update(PixelView(scores.data() + last, height, width, -stride),
                   PixelView(mask.data() + last, height, width, -static_cast<ptrdiff_t>(width)), group);
    core.update(map, truth, static_cast<size_t>(group));
  } else {
    const MaskView second = {other.data(), height, width, static_cast<ptrdiff_t>(width)};
    metrics.update_channels(PixelView(scores, height, width),
                            {PixelView(mask, height, width), PixelView(other, height, width)}, {1, 1}, group);
    core.update_channels(map, {truth, second}, {1, 1}, static_cast<size_t>(group));
  }
}

void take_some(SegmentationAccumulator& metrics, SegmentationState& core, Random32& bits) {
  for (int image = 0; image < 12; ++image) {
    take_one<float>(metrics, core, ScoreType::kFloat32, bits);
    take_one<HalfScore>(metrics, core, ScoreType::kFloat16, bits);
    take_one<uint8_t>(metrics, core, ScoreType::kUint8, bits);
    take_one<uint16_t>(metrics, core, ScoreType::kUint16, bits);
  }
}

void test_answers_are_the_core_s_own_also_after_merging_and_saving() {
  Random32 bits(5);
  for (const int connectivity : {8, 4}) {
    SegmentationAccumulator metrics(connectivity), part(connectivity);
    SegmentationState core(connectivity, 0, kernels());
    check_same_answers(metrics, core, kAllGroups);
    take_some(metrics, core, bits);
    take_some(part, core, bits);
    metrics += part;
    for (const int group : {kAllGroups, 0, 1, 2}) check_same_answers(metrics, core, group);
    const std::vector<uint8_t> bytes = metrics.save();
    CHECK(bytes == write_state(core));
    part = SegmentationAccumulator::load(bytes);
    check_same_answers(part, core, kAllGroups);
  }
}

void test_bounds_are_the_core_s_own() {
  Random32 bits(6);
  constexpr size_t kHeight = 2000, kWidth = 1500, kBudget = size_t{4} << 20;
  std::vector<float> scores(kHeight * kWidth);
  for (float& score : scores) score = static_cast<float>(bits() >> 8) * 0x1p-24f;
  const std::vector<uint8_t> mask = random_mask(scores.size(), bits);
  SegmentationAccumulator metrics(8, kBudget);
  SegmentationState core(8, kBudget, kernels());
  metrics.update(PixelView(scores, kHeight, kWidth), PixelView(mask, kHeight, kWidth));
  core.update({scores.data(), ScoreType::kFloat32, kHeight, kWidth, kWidth * sizeof(float)},
              {mask.data(), kHeight, kWidth, kWidth}, 0);
  CHECK(core.dropped_bits() > 0);
  check_same_answers(metrics, core, kAllGroups);
}

void test_components_are_the_core_s_own() {
  Random32 bits(7);
  for (const int connectivity : {4, 8}) {
    for (size_t width = 1; width < 150; width += 1 + width / 8) {
      const size_t height = 1 + bits() % 30;
      const std::vector<uint8_t> mask = random_mask(height * width, bits);
      RegionFinder finder(connectivity, kernels());
      finder.find({mask.data(), height, width, static_cast<ptrdiff_t>(width)});
      const MaskComponents found = connected_components(PixelView(mask, height, width), connectivity);
      const std::vector<RegionBox> boxes = finder.boxes();
      CHECK(found.areas == finder.areas());
      CHECK(found.runs.size() == finder.runs().size() && found.boxes.size() == boxes.size());
      CHECK(std::memcmp(found.runs.data(), finder.runs().data(), found.runs.size() * sizeof(Run)) == 0);
      CHECK(std::memcmp(found.boxes.data(), boxes.data(), boxes.size() * sizeof(RegionBox)) == 0);
    }
  }
  CHECK(connected_components(PixelView(std::vector<uint8_t>(12), 3, 4)).runs.empty());
  CHECK(connected_components({}).areas.empty());
}

// The lines at the top of the header; the values are worked out in test_c_api_metrics.c.
void test_the_example_of_the_header_runs() {
  const size_t height = 2, width = 4;
  const std::vector<float> scores = {9, 1, 2, 3, 8, 1, 7, 0}, scores_of_a_good_image = {7.5f, 4, 4, 0, 0, 0, 0, 0};
  const std::vector<uint8_t> mask = {1, 0, 0, 0, 1, 0, 1, 0};
  onceover::SegmentationAccumulator metrics;
  metrics.update(onceover::PixelView(scores, height, width), onceover::PixelView(mask, height, width));
  metrics.update(onceover::PixelView(scores_of_a_good_image, height, width));
  const double aupro = metrics.compute({0.3}).aupro[0].value;
  CHECK(std::fabs(aupro - (0.5 / 13 + (0.3 - 1.0 / 13)) / 0.3) <= 1e-12);  // 13 normal scores, one above 7
}

void test_failures_are_thrown_with_their_status() {
  const std::vector<float> scores = {1, 2, NAN, 4, 5, 6};
  const std::vector<uint8_t> mask(6);
  const PixelView map(scores, 2, 3), small(scores.data(), 1, 2);
  const PixelView truth(mask, 2, 3), flat(mask, 3, 2), strided(mask.data(), 1, 2, 3), tight(mask.data(), 1, 2);
  SegmentationAccumulator metrics;
  CHECK(refused([&] { metrics.update(map, truth); }, ONCEOVER_INPUT, "image 0: 1 of 6 scores are NaN"));
  CHECK(refused([&] { metrics.update(map, flat); }, ONCEOVER_INPUT, "a mask is 3 x 2, its map 2 x 3"));
  CHECK(refused([&] { metrics.update_channels(map, {flat}, {1}); }, ONCEOVER_INPUT, "a mask is 3 x 2"));
  CHECK(refused([&] { metrics.update_channels(small, {tight, strided}, {1, 1}); }, ONCEOVER_USAGE, "two strides"));
  CHECK(refused([&] { metrics.update_channels(small, {tight}, {}); }, ONCEOVER_USAGE, "1 channels and 0 saturation"));
  CHECK(refused([&] { PixelView(scores, 2, 2); }, ONCEOVER_USAGE, "6 pixels are not 2 x 2"));
  CHECK(refused([&] { PixelView(scores, 2, 4); }, ONCEOVER_USAGE, "6 pixels are not 2 x 4"));
  CHECK(refused([&] { PixelView(scores, 6, 0); }, ONCEOVER_USAGE, "6 pixels are not 6 x 0"));
  CHECK(refused([&] { metrics.compute({2}); }, ONCEOVER_USAGE, "fpr_limit is 2"));
  CHECK(refused([&] { metrics.curve(0); }, ONCEOVER_USAGE, "group 0 of 0"));
  CHECK(refused([&] { SegmentationAccumulator(5); }, ONCEOVER_USAGE, "connectivity is 5"));
  CHECK(refused([&] { SegmentationAccumulator::load({1, 2, 3}); }, ONCEOVER_INPUT, "no intact segmentation metrics"));
  CHECK(refused([&] { connected_components(truth, 7); }, ONCEOVER_USAGE, "connectivity is 7"));
  CHECK(metrics.compute().images == 0);
  SegmentationAccumulator moved = std::move(metrics);
  CHECK(moved.compute().images == 0);
  CHECK(refused([&] { moved += metrics; }, ONCEOVER_USAGE, "from is NULL"));
}

}  // namespace

int main() {
  test_answers_are_the_core_s_own_also_after_merging_and_saving();
  test_bounds_are_the_core_s_own();
  test_components_are_the_core_s_own();
  test_the_example_of_the_header_runs();
  test_failures_are_thrown_with_their_status();
  return check::summary("test_cpp_api_metrics");
}
