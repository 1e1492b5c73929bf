// The drift monitor: normal scores by hand, bets with mean 1, exact binomial limits, alarms, states that go on with the
// same bits. Average run lengths: tests/test_monitor_limits.py and benchmarks/monitor_study.py.
#include "monitor/monitor.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "base/random.h"
#include "base/sha256.h"
#include "check.h"
#include "image/statistics.h"
#include "monitor/limits.h"

using namespace onceover;

namespace {

bool near(double value, double expected, double tolerance) { return std::fabs(value - expected) <= tolerance; }

void quantiles_invert_the_distribution() {
  for (const double p : {1e-12, 1e-6, 0.001, 0.025, 0.3, 0.5, 0.77, 0.999, 1 - 1e-9}) {
    CHECK(near(normal_cdf(normal_quantile(p)), p, 1e-14 + 1e-13 * p));
  }
  CHECK(near(normal_quantile(0.5), 0, 1e-15));
  CHECK(near(normal_quantile(0.975), 1.959963984540054, 1e-12));  // tables
}

void scores_are_those_of_sequential_ranks() {
  SequentialRanks ranks;
  CHECK(near(ranks.score(3), 0, 1e-15));  // the only one: the middle of 1
  ranks.learn(3);
  CHECK(near(ranks.score(5), normal_quantile(1.5 / 2), 1e-15));
  CHECK(near(ranks.score(3), 0, 1e-15));  // a tie is in the middle of both
  ranks.learn(5);
  CHECK(near(ranks.score(4), 0, 1e-15));
  CHECK(near(ranks.score(-1), normal_quantile(0.5 / 3), 1e-15));
  CHECK(ranks.learned() == 2);
}

// Beyond the baseline a rank is known to a gap between kept values; its middle must be within that gap of the rank
// among all values.
void ranks_stay_exact_to_a_gap_when_memory_is_full() {
  Random random(7);
  SequentialRanks ranks;
  std::vector<float> all;
  size_t wrong = 0;
  for (size_t i = 0; i < 5000; ++i) {
    const auto value = static_cast<float>(random.normal());
    size_t below = 0, low = 0, high = 0;  // values below; and what lies up to either kept neighbor
    float left = -INFINITY, right = INFINITY;
    for (size_t j = 0; j < all.size() && j < SequentialRanks::kBaseline; ++j) {
      if (all[j] <= value) left = std::max(left, all[j]);
      if (all[j] > value) right = std::min(right, all[j]);
    }
    for (const float other : all) {
      below += other < value ? 1 : 0;
      low += other <= left ? 1 : 0;
      high += other < right ? 1 : 0;
    }
    const auto total = static_cast<double>(all.size() + 1);
    const double got = normal_cdf(ranks.score(value)) * total;
    wrong += got < static_cast<double>(low) || got > static_cast<double>(high) + 1 ? 1 : 0;
    if (i < SequentialRanks::kBaseline) wrong += near(got, static_cast<double>(below) + 0.5, 1e-9) ? 0 : 1;
    ranks.learn(value);
    all.push_back(value);
  }
  CHECK(wrong == 0 && ranks.learned() == 5000);
}

void a_constant_value_is_always_in_the_middle() {
  SequentialRanks ranks;
  size_t off = 0;
  for (size_t i = 0; i < 1000; ++i) {
    off += near(ranks.score(0.25f), 0, 1e-12) ? 0 : 1;
    ranks.learn(0.25f);
  }
  CHECK(off == 0);
}

// The theorem of the chart needs this and nothing else: under exchangeability the odds of each bet have mean 1.
void bets_are_fair_whatever_was_learned() {
  for (const uint32_t cells : {2u, 18u, 19u, 190u}) {
    ExchangeabilityChart chart(cells);
    Random random(cells);
    std::vector<double> weights(cells, 1);  // the urn, cell by cell
    const size_t bins = std::min<size_t>(cells, ExchangeabilityChart::kBins);
    for (size_t step = 0; step < 200; ++step) {
      double mean = 0, total = 0;
      std::vector<double> bin_weight(bins, 0);
      for (uint32_t cell = 0; cell < cells; ++cell) {
        bin_weight[cell * bins / cells] += weights[cell];
        total += weights[cell];
      }
      uint32_t seen_bin = static_cast<uint32_t>(bins);
      const double before = chart.value();
      for (uint32_t cell = 0; cell < cells; ++cell) {
        const auto bin = static_cast<uint32_t>(cell * bins / cells);
        if (bin == seen_bin) continue;
        seen_bin = bin;
        ExchangeabilityChart next = chart;
        next.update(cell, false);
        mean += bin_weight[bin] / total * next.value();
      }
      CHECK(near(mean, before + 1, 1e-9 * (before + 1)));  // Shiryaev-Roberts: R − t is a martingale
      const auto cell = static_cast<uint32_t>(random.uniform() * cells);
      chart.update(cell, true);
      weights[cell] += 1;
    }
  }
  CHECK(!ExchangeabilityChart(0).exists() && !ExchangeabilityChart(1).exists());
}

// By hand: of 10 with rate 1/2, P(X ≤ 1) = 11/1024 and P(X ≤ 2) = 56/1024. Beta-binomial of Beta(½, ½) and one draw is
// ½, ½; of 10 draws P(X = 0) = Π (½ + i)/(1 + i) = 0.17619705200195312.
void limits_of_rejected_parts_are_exact() {
  CHECK(binomial_limits(10, 0.5, 11.5 / 1024).lower == 1 && binomial_limits(10, 0.5, 11.5 / 1024).upper == 9);
  CHECK(binomial_limits(10, 0.5, 10.5 / 1024).lower == 0 && binomial_limits(10, 0.5, 10.5 / 1024).upper == 10);
  CHECK(binomial_limits(10, 0.5, 0.5 / 1024).lower == -1 && binomial_limits(10, 0.5, 0.5 / 1024).upper == 11);
  CHECK(predictive_limits(10, 0, 0, 0.1763).lower == 0 && predictive_limits(10, 0, 0, 0.1761).lower == -1);
  CHECK(predictive_limits(10, 0, 0, 0.1763).upper == 10 && predictive_limits(10, 0, 0, 0.1761).upper == 11);
  const CountLimits known = binomial_limits(100, 0.05, 1e-4), learned = predictive_limits(100, 50000, 1000000, 1e-4);
  CHECK(known.lower == learned.lower && known.upper == learned.upper);
  CHECK(predictive_limits(100, 5, 100, 1e-4).upper > known.upper);  // wider where less is known
  CHECK(binomial_limits(10000, 0.5, 1e-4).lower > 4700);            // (1/2)^10000 is no double
}

MonitoredPackage of_calibration(uint32_t n, uint32_t cells) {
  MonitoredPackage package;
  package.calibration_parts = n;
  package.accepted_cells = cells;
  return package;
}

InspectedPart normal_part(Random& random) {
  InspectedPart part;
  part.outcome = random.uniform() < 0.95 ? Outcome::kAccepted : Outcome::kRejected;
  part.score = static_cast<float>(random.normal());
  part.p_value = part.outcome == Outcome::kAccepted ? 1 - std::floor(random.uniform() * 19) / 20 : 0.05;
  part.brightness = static_cast<float>(random.normal());
  part.sharpness = static_cast<float>(random.normal());
  return part;
}

// Parts until the first alarm of `chart`, when `change` is applied from part 1001 on.
template <typename Change>
uint64_t alarm_of(Chart chart, const Change& change, double run_length = 10000) {
  MonitorOptions options;
  options.run_length = run_length;
  Monitor monitor(of_calibration(19, 19), options);
  Random random(11);
  for (size_t i = 0; i < 3000; ++i) {
    InspectedPart part = normal_part(random);
    if (i >= 1000) change(part, random);
    monitor.update(part);
  }
  return monitor.state(chart).alarm_part;
}

void each_chart_sees_its_own_change() {
  const auto found = [](uint64_t part) { return part > 1000 && part < 1400; };
  const auto higher = [](InspectedPart& part, Random&) { part.score += 1; };
  const auto lower = [](InspectedPart& part, Random&) { part.score -= 1; };
  CHECK(found(alarm_of(Chart::kScoreEwma, higher)) && found(alarm_of(Chart::kScoreEwma, lower)));
  CHECK(found(alarm_of(Chart::kScoreCusum, higher)) && found(alarm_of(Chart::kScoreCusum, lower)));
  CHECK(found(alarm_of(Chart::kPValues, [](InspectedPart& part, Random& random) {
    if (part.outcome == Outcome::kAccepted) part.p_value = 0.1 + std::floor(random.uniform() * 5) / 20;
  })));
  CHECK(found(alarm_of(Chart::kBrightness, [](InspectedPart& part, Random&) { part.brightness -= 1; })));
  CHECK(found(alarm_of(Chart::kSharpness, [](InspectedPart& part, Random&) { part.sharpness -= 1; })));
  CHECK(found(alarm_of(Chart::kRejected, [](InspectedPart& part, Random& random) {
    if (random.uniform() < 0.3) part.outcome = Outcome::kRejected;
  })));
  const auto nothing = [](InspectedPart&, Random&) {};
  for (uint32_t chart = 0; chart < kCharts; ++chart) CHECK(alarm_of(static_cast<Chart>(chart), nothing, 1e6) == 0);
}

void an_update_tells_of_an_alarm_once_and_restart_ends_it() {
  Monitor monitor(of_calibration(19, 19), {});
  Random random(3);
  uint32_t begun = 0;
  size_t times = 0;
  for (size_t i = 0; i < 800; ++i) {
    InspectedPart part = normal_part(random);
    if (i >= 500) part.brightness += 3;
    const uint32_t now = monitor.update(part);
    begun |= now;
    times += now != 0 ? 1 : 0;
  }
  const uint32_t bit = 1u << static_cast<uint32_t>(Chart::kBrightness);
  CHECK(begun == bit && times == 1 && monitor.alarms() == bit);
  CHECK(monitor.state(Chart::kBrightness).value > monitor.state(Chart::kBrightness).upper);
  monitor.restart(true);
  CHECK(monitor.alarms() == 0 && monitor.state(Chart::kBrightness).value == 0);
  for (size_t i = 0; i < 100; ++i) {  // still three deviations from the baseline that was kept
    InspectedPart part = normal_part(random);
    part.brightness += 3;
    monitor.update(part);
  }
  CHECK(monitor.alarms() == bit);
  monitor.restart(false);
  for (size_t i = 0; i < 500; ++i) {  // the new normal
    InspectedPart part = normal_part(random);
    part.brightness += 3;
    monitor.update(part);
  }
  CHECK(monitor.alarms() == 0 && monitor.parts() == 500);
}

void rejected_parts_and_missing_values_leave_their_charts_alone() {
  Monitor monitor(of_calibration(19, 19), {});
  InspectedPart part;
  part.outcome = Outcome::kRejected;
  part.score = 1e30f;
  part.p_value = 0.05;
  part.brightness = part.sharpness = std::nanf("");
  for (size_t i = 0; i < 50; ++i) monitor.update(part);
  CHECK(monitor.state(Chart::kScoreEwma).parts == 0 && std::isnan(monitor.state(Chart::kScoreEwma).value));
  CHECK(monitor.state(Chart::kBrightness).parts == 0 && monitor.state(Chart::kRejected).parts == 50);
  part.outcome = Outcome::kUndecided;  // an uncalibrated package
  part.score = 1;
  monitor.update(part);
  CHECK(monitor.state(Chart::kScoreEwma).parts == 1 && monitor.state(Chart::kRejected).parts == 50);
  CHECK(monitor.state(Chart::kPValues).parts == 0);
  Monitor without(of_calibration(0, 0), {});
  CHECK(std::isnan(without.state(Chart::kPValues).upper));
}

template <typename Change>
void check_refused(const char* text, const Change& change) {
  Monitor monitor(of_calibration(19, 19), {});
  Random random(5);
  for (size_t i = 0; i < 20; ++i) monitor.update(normal_part(random));
  std::vector<uint8_t> before(Monitor::state_bytes()), after(Monitor::state_bytes());
  monitor.write(before.data());
  InspectedPart part = normal_part(random);
  change(part);
  CHECK_THROWS(monitor.update(part), Status::kInput, text);
  monitor.write(after.data());
  CHECK(before == after);
}

void parts_that_cannot_be_are_refused_and_change_nothing() {
  const float infinity = std::numeric_limits<float>::infinity();
  check_refused("part 21: its score is nan", [](InspectedPart& part) { part.score = std::nanf(""); });
  check_refused("score is inf", [=](InspectedPart& part) { part.score = infinity; });
  check_refused("its p-value is nan", [](InspectedPart& part) { part.p_value = std::nan(""); });
  check_refused("its p-value is 0", [](InspectedPart& part) { part.p_value = 0; });
  check_refused("none of 19 calibration parts", [](InspectedPart& part) { part.p_value = 0.33; });
  check_refused("brightness inf", [=](InspectedPart& part) { part.brightness = infinity; });
  check_refused("its verdict is 7", [](InspectedPart& part) { part.outcome = static_cast<Outcome>(7); });
}

void options_out_of_range_are_refused() {
  MonitorOptions options;
  options.run_length = 99;
  CHECK_THROWS(Monitor({}, options), Status::kUsage, "average run length is 99");
  options = {};
  options.run_length = std::nan("");
  CHECK_THROWS(Monitor({}, options), Status::kUsage, "expected 100 to");
  options = {};
  options.batch = 9;
  CHECK_THROWS(Monitor({}, options), Status::kUsage, "batch is 9 parts");
  options = {};
  options.reject_rate = 1;
  CHECK_THROWS(Monitor({}, options), Status::kUsage, "reject rate is 1");
  options = {};
  options.run_length = 100;
  options.batch = 100;
  CHECK_THROWS(Monitor({}, options), Status::kUsage, "take smaller batches");
  CHECK_THROWS(Monitor(of_calibration(19, 20), {}), Status::kUsage, "accepted_cells is 20");
}

void a_state_goes_on_with_the_same_bits() {
  const size_t size = Monitor::state_bytes();
  CHECK(size < 8192);
  for (const size_t cut : {size_t{0}, size_t{100}, size_t{1234}}) {
    Monitor whole(of_calibration(19, 19), {}), first(of_calibration(19, 19), {});
    Random a(17), b(17);
    for (size_t i = 0; i < 2000; ++i) whole.update(normal_part(a));
    for (size_t i = 0; i < cut; ++i) first.update(normal_part(b));
    std::vector<uint8_t> kept(size), end(size), expected(size);
    first.write(kept.data());
    Monitor second = Monitor::read(kept.data(), kept.size());
    for (size_t i = cut; i < 2000; ++i) second.update(normal_part(b));
    second.write(end.data());
    whole.write(expected.data());
    CHECK(end == expected);
  }
}

void any_changed_byte_of_a_state_is_found() {
  Monitor monitor(of_calibration(19, 19), {});
  Random random(23);
  for (size_t i = 0; i < 300; ++i) monitor.update(normal_part(random));
  std::vector<uint8_t> bytes(Monitor::state_bytes());
  monitor.write(bytes.data());
  size_t taken = 0;
  for (size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] ^= 0x10;
    try {
      Monitor::read(bytes.data(), bytes.size());
      ++taken;
    } catch (const Error&) {
    }
    bytes[i] ^= 0x10;
  }
  CHECK(taken == 0);
  CHECK_THROWS(Monitor::read(bytes.data(), bytes.size() - 1), Status::kInput, "another size");
  CHECK_THROWS(Monitor::read(bytes.data(), 3), Status::kInput, "end too early");
  bytes[8] = 2;
  CHECK_THROWS(Monitor::read(bytes.data(), bytes.size()), Status::kUnsupported, "version 2");
}

// With a checksum that is right again: another number of cells would be an index beyond the counters.
void a_state_whose_charts_are_of_other_options_is_refused() {
  std::vector<uint8_t> own(Monitor::state_bytes()), other(own.size());
  Monitor(of_calibration(500, 400), {}).write(own.data());
  size_t refused = 0;
  MonitorOptions batch, rate;
  batch.batch = 200;
  rate.reject_rate = 0.1;
  const Monitor others[] = {Monitor(of_calibration(500, 12), {}), Monitor(of_calibration(500, 400), batch),
                            Monitor(of_calibration(500, 400), rate)};
  constexpr size_t kOptions = 12 + 32 + 4 + 4 + 8 + 4 + 8;  // magic, version, package, options; then counters
  for (const Monitor& each : others) {
    each.write(other.data());
    std::copy(own.begin(), own.begin() + kOptions, other.begin());
    const Digest digest = sha256(other.data(), other.size() - sizeof(Digest));
    std::copy(digest.begin(), digest.end(), other.end() - sizeof(Digest));
    try {
      Monitor::read(other.data(), other.size()).update({Outcome::kAccepted, 1, 102.0 / 501, 0.5f, 0.1f});
    } catch (const Error& error) {
      refused += error.status() == Status::kInput && std::strstr(error.what(), "impossible") != nullptr ? 1 : 0;
    }
  }
  CHECK(refused == 3);
}

void limits_grow_with_the_run_length() {
  for (double length = kMinRunLength; length < kMaxRunLength; length *= 1.5) {
    CHECK(ewma_limit(1.5 * length) > ewma_limit(length) && cusum_limit(1.5 * length) > cusum_limit(length));
  }
}

ImageView gray(const std::vector<uint8_t>& pixels, size_t height, size_t width) {
  ImageView view;
  view.data = pixels.data();
  view.height = height;
  view.width = width;
  view.stride_bytes = static_cast<ptrdiff_t>(width);
  view.format = PixelFormat::kGray8;
  return view;
}

void statistics_are_those_worked_out_by_hand() {
  std::vector<uint8_t> flat(40 * 30, 102);
  const ImageStatistics of_flat = measure_image(gray(flat, 40, 30));
  CHECK(near(of_flat.brightness, 0.4, 1e-6) && of_flat.sharpness == 0);
  // A chessboard of 50 and 150: mean 100, Laplacian ±400, so 4 of the mean.
  std::vector<uint8_t> board(10 * 10);
  for (size_t i = 0; i < 100; ++i) board[i] = (i / 10 + i) % 2 == 0 ? 50 : 150;
  const ImageStatistics of_board = measure_image(gray(board, 10, 10));
  CHECK(near(of_board.brightness, 100.0 / 255, 1e-6) && near(of_board.sharpness, 4, 1e-6));
  std::vector<uint8_t> half(board);
  for (uint8_t& value : half) value /= 2;
  CHECK(near(measure_image(gray(half, 10, 10)).sharpness, 4, 1e-6));  // a dimmer lamp blurs nothing
  CHECK(near(measure_image(gray(half, 10, 10)).brightness, 50.0 / 255, 1e-6));
  std::vector<uint8_t> black(10 * 10, 0);
  const ImageStatistics of_black = measure_image(gray(black, 10, 10));
  CHECK(of_black.brightness == 0 && of_black.sharpness == 0);
  CHECK_THROWS(measure_image(gray(black, 4, 25)), Status::kInput, "");
}

void statistics_do_not_depend_on_the_pixel_format() {
  Random random(2);
  const size_t height = 300, width = 200;
  std::vector<uint8_t> rgb(height * width * 3), bgra(height * width * 4), flipped(height * width * 3);
  for (size_t i = 0; i < height * width; ++i) {
    for (size_t c = 0; c < 3; ++c) {
      rgb[3 * i + c] = static_cast<uint8_t>(random.next());
      bgra[4 * i + 2 - c] = rgb[3 * i + c];
    }
  }
  for (size_t y = 0; y < height; ++y)
    std::memcpy(&flipped[3 * width * y], &rgb[3 * width * (height - 1 - y)], 3 * width);
  std::vector<uint16_t> wide(rgb.size());
  for (size_t i = 0; i < rgb.size(); ++i) wide[i] = static_cast<uint16_t>(257 * rgb[i]);
  ImageView view;
  view.height = height;
  view.width = width;
  view.data = rgb.data();
  view.stride_bytes = static_cast<ptrdiff_t>(3 * width);
  view.format = PixelFormat::kRgb8;
  const ImageStatistics expected = measure_image(view);
  CHECK(near(expected.brightness, 0.5, 0.01) && expected.sharpness > 1);
  ImageView other = view;
  other.data = flipped.data() + 3 * width * (height - 1);
  other.stride_bytes = -view.stride_bytes;
  CHECK(measure_image(other).brightness == expected.brightness && measure_image(other).sharpness == expected.sharpness);
  other = view;
  other.data = bgra.data();
  other.stride_bytes = static_cast<ptrdiff_t>(4 * width);
  other.format = PixelFormat::kBgra8;
  CHECK(measure_image(other).brightness == expected.brightness && measure_image(other).sharpness == expected.sharpness);
  other = view;
  other.data = reinterpret_cast<const uint8_t*>(wide.data());
  other.stride_bytes = static_cast<ptrdiff_t>(6 * width);
  other.format = PixelFormat::kRgb16;
  CHECK(near(measure_image(other).brightness, expected.brightness, 1e-6));
  CHECK(near(measure_image(other).sharpness, expected.sharpness, 1e-5));
}

void nv12_is_measured_by_its_luma() {
  std::vector<uint8_t> luma(20 * 20, 126), chroma(10 * 20, 128);  // 110 of 219 steps above black
  ImageView view = gray(luma, 20, 20);
  view.format = PixelFormat::kNv12;
  view.chroma = chroma.data();
  view.chroma_stride_bytes = 20;
  view.matrix = YuvMatrix::kBt601Limited;
  CHECK(near(measure_image(view).brightness, 110.0 / 219, 1e-6));
  view.matrix = YuvMatrix::kBt709Full;
  CHECK(near(measure_image(view).brightness, 126.0 / 255, 1e-6));
}

}  // namespace

int main() {
  quantiles_invert_the_distribution();
  scores_are_those_of_sequential_ranks();
  ranks_stay_exact_to_a_gap_when_memory_is_full();
  a_constant_value_is_always_in_the_middle();
  bets_are_fair_whatever_was_learned();
  limits_of_rejected_parts_are_exact();
  each_chart_sees_its_own_change();
  an_update_tells_of_an_alarm_once_and_restart_ends_it();
  rejected_parts_and_missing_values_leave_their_charts_alone();
  parts_that_cannot_be_are_refused_and_change_nothing();
  options_out_of_range_are_refused();
  a_state_goes_on_with_the_same_bits();
  any_changed_byte_of_a_state_is_found();
  a_state_whose_charts_are_of_other_options_is_refused();
  limits_grow_with_the_run_length();
  statistics_are_those_worked_out_by_hand();
  statistics_do_not_depend_on_the_pixel_format();
  nv12_is_measured_by_its_luma();
  return check::summary("monitor");
}
