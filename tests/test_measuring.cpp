// Percentiles against definitions and the binomial, experiments against subjects whose times are known, noise by hand.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <thread>
#include <vector>

#include "check.h"
#include "measuring/experiment.h"
#include "measuring/json.h"
#include "measuring/machine.h"
#include "measuring/statistics.h"
#include "measuring/summary.h"

using namespace onceover;

namespace {

// P(X ≤ k) by adding up the terms one after the other: another way than lgamma.
double cdf_by_products(size_t k, size_t n, double p) {
  long double term = 1, sum = 0;  // 0.01^399 is no double
  for (size_t i = 0; i < n; ++i) term *= static_cast<long double>(1 - p);
  for (size_t i = 0; i <= k; ++i) {
    sum += term;
    term *= static_cast<long double>(n - i) / static_cast<long double>(i + 1) * static_cast<long double>(p / (1 - p));
  }
  return static_cast<double>(sum);
}

void test_the_binomial_is_summed_exactly_and_approximated_well_beyond() {
  for (const size_t n : {1u, 7u, 60u, 400u}) {
    for (const double p : {0.1, 0.5, 0.9}) {
      for (size_t k = 0; k < n; k += 1 + n / 9)
        CHECK(std::abs(binomial_cdf(k, n, p) - cdf_by_products(k, n, p)) < 1e-9);
    }
  }
  CHECK(binomial_cdf(5, 5, 0.3) == 1);
  CHECK(std::abs(binomial_cdf(1010, 1010, 0.99) - 1) < 1e-12);
  // 0.9^1200 underflows nothing: the terms around the mean, from the mode outwards, in logarithms of Stirling's series
  CHECK(std::abs(binomial_cdf(600, 1200, 0.5) - (0.5 + 0.5 * std::sqrt(2 / (M_PI * 1200)))) < 1e-4);
}

void test_a_percentile_is_the_smallest_time_that_so_many_runs_did_not_exceed() {
  std::vector<uint64_t> ns(1000);
  for (size_t i = 0; i < ns.size(); ++i) ns[i] = i + 1;
  CHECK(percentile(ns, 0.5).ns == 500 && percentile(ns, 0.9).ns == 900 && percentile(ns, 0.99).ns == 990);
  CHECK(percentile(ns, 0.999).ns == 999 && percentile(ns, 1).ns == 1000 && percentile(ns, 0).ns == 1);
  CHECK(percentile({7}, 0.5).ns == 7);
  CHECK(runs_for(0.5) == 2 && runs_for(0.9) == 10 && runs_for(0.99) == 100 && runs_for(0.999) == 1000);
}

// The interval's own promise, by the definition of order statistics: the true percentile lies below the r-th smallest
// with P(X < r), above it with P(X ≥ r).
void test_an_interval_holds_the_percentile_with_95_percent() {
  for (const size_t n : {20u, 100u, 399u}) {
    std::vector<uint64_t> ns(n);
    for (size_t i = 0; i < n; ++i) ns[i] = i + 1;  // the value is its own rank
    for (const double part : {0.5, 0.9, 0.99}) {
      const Percentile found = percentile(ns, part);
      CHECK(found.lower_ns <= found.ns);
      if (found.lower_ns > 1) {
        CHECK(cdf_by_products(found.lower_ns - 1, n, part) <= 0.025 + 1e-9);
        CHECK(cdf_by_products(found.lower_ns, n, part) > 0.025 - 1e-9);
      }
      if (found.upper_ns == 0) {
        CHECK(cdf_by_products(n - 1, n, part) < 0.975 + 1e-9);
      } else {
        CHECK(found.upper_ns >= found.ns && cdf_by_products(found.upper_ns - 1, n, part) >= 0.975 - 1e-9);
      }
    }
  }
  CHECK(percentile({1, 2, 3, 4, 5}, 0.99).upper_ns == 0);  // five runs know nothing of the slowest percent
}

Subject sleeping(double milliseconds, size_t* calls = nullptr) {
  return [=] {
    if (calls != nullptr) ++*calls;
    std::this_thread::sleep_for(std::chrono::duration<double, std::milli>(milliseconds));
    return Stages{1, 2, 3, 4};
  };
}

void test_subjects_take_turns() {
  size_t first = 0, second = 0;
  const Measurement found = measure_in_turn({sleeping(0.2, &first), sleeping(0.4, &second)}, 0.05, 3, 1000);
  CHECK(found.runs.size() == 2 && found.runs[0].size() == found.runs[1].size() && found.runs[0].size() % 3 == 0);
  CHECK(first == found.runs[0].size() / 3 * 4 && second == first);  // one untimed run before each turn
  for (size_t i = 0; i < found.runs[0].size(); i += 3) {
    CHECK(found.runs[0][i].start_ns < found.runs[1][i].start_ns);
    if (i > 0) CHECK(found.runs[1][i - 1].start_ns < found.runs[0][i].start_ns);
  }
  for (const TimedRun& run : found.runs[1]) CHECK(run.wall_ns >= 400'000 && run.stages.map_ns == 4);
  CHECK(found.disturbance.wall_ns >= 50'000'000 && !found.disturbance.probe_ns.empty());
  CHECK(measure_in_turn({sleeping(0.01)}, 10, 1, 7).runs[0].size() == 7);
}

void test_a_pause_comes_before_each_run() {
  const Measurement found = measure_after_idle(sleeping(0.1), 0.02, 3);
  CHECK(found.runs[0].size() == 3);
  for (size_t i = 0; i < 3; ++i) CHECK(found.runs[0][i].start_ns >= (i + 1) * 20'000'000);
}

void test_an_open_loop_sees_the_queue() {
  const OpenLoop light = measure_at_rate(sleeping(1), 100, 0.2, 50);
  CHECK(light.arrivals == 20 && light.runs[0].size() == 20 && !light.overrun);
  // 4 ms of work every 2 ms: the i-th part waits at least 2 i ms, which a closed loop would never tell
  const OpenLoop heavy = measure_at_rate(sleeping(4), 500, 0.1, 1000);
  CHECK(heavy.runs[0].size() == 50 && heavy.longest_queue >= 25);
  for (size_t i = 0; i < 50; ++i) CHECK(heavy.runs[0][i].wait_ns >= i * 2'000'000);
  const OpenLoop stopped = measure_at_rate(sleeping(4), 500, 10, 5);
  CHECK(stopped.overrun && stopped.longest_queue > 5 && stopped.runs[0].size() < 100);
}

void test_what_disturbs_is_said() {
  Disturbance quiet;
  quiet.probe_ns.assign(100, 50'000);
  quiet.wall_ns = 1'000'000'000;
  CHECK(noise_of(quiet).empty());
  const auto says = [&](auto change, const char* text) {
    Disturbance changed = quiet;
    change(changed);
    const std::vector<std::string> reasons = noise_of(changed);
    CHECK(reasons.size() == 1 && reasons[0].find(text) != std::string::npos);
  };
  says([](Disturbance& d) { d.others_share = 0.3; }, "other programs used 30 %");
  says([](Disturbance& d) { d.stolen_share = 0.02; }, "the host took 2.0 %");
  says(
      [](Disturbance& d) {
        for (size_t i = 0; i < 100; i += 10) d.probe_ns[i] = 75'000;
      },
      "1.50 times its median");
  says([](Disturbance& d) { std::fill(d.probe_ns.begin() + 50, d.probe_ns.end(), 55'000); }, "0.91 times the speed");
  quiet.probe_ns = {1, 100, 1, 100};  // too few to judge
  CHECK(noise_of(quiet).empty());
}

void test_summaries_tell_only_what_the_runs_support() {
  std::vector<TimedRun> runs(12);
  for (size_t i = 0; i < runs.size(); ++i) runs[i].wall_ns = (i + 1) * 1'000'000, runs[i].wait_ns = 500'000;
  Disturbance disturbance;
  disturbance.wall_ns = 1'000'000'000;
  const std::string text = summary_json(runs, disturbance);
  CHECK(text.find("\"runs\": 12, \"seconds\": 1, \"total\": {\"p50_ms\": [6, 3, 10], \"p90_ms\": [11, 8, null]") !=
        std::string::npos);
  CHECK(text.find("\"p99_ms\": null, \"p99.9_ms\": null, \"mean_ms\": 6.5, \"min_ms\": 1, \"max_ms\": 12}") !=
        std::string::npos);
  CHECK(summary_json(runs, disturbance, true).find("\"max_ms\": 12.5") != std::string::npos);
  CHECK(json_text("a\"b\\\n") == "\"a\\\"b\\\\\\u000a\"" && json_number(NAN) == "null");
}

void test_the_machine_is_described() {
  const Machine machine = describe_machine();
  CHECK(machine.cpus >= 1 && machine.memory_bytes > (uint64_t{1} << 24) && machine.load >= 0);
  const ProcessMemory memory = process_memory();
  CHECK(memory.rss > 0 && memory.peak_rss >= memory.rss);
  const CpuTimes times = cpu_times();
  CHECK(times.total_s >= times.busy_s && times.busy_s >= 0);
  CHECK(probe_ns() > 0);
}

}  // namespace

int main() {
  test_the_binomial_is_summed_exactly_and_approximated_well_beyond();
  test_a_percentile_is_the_smallest_time_that_so_many_runs_did_not_exceed();
  test_an_interval_holds_the_percentile_with_95_percent();
  test_subjects_take_turns();
  test_a_pause_comes_before_each_run();
  test_an_open_loop_sees_the_queue();
  test_what_disturbs_is_said();
  test_summaries_tell_only_what_the_runs_support();
  test_the_machine_is_described();
  return check::summary("measuring");
}
