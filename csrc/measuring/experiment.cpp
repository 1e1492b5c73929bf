#include "measuring/experiment.h"

#include <sys/resource.h>
#include <time.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "measuring/machine.h"

namespace onceover {
namespace {

using Clock = std::chrono::steady_clock;

constexpr uint64_t kProbeEveryNs = 20'000'000;

uint64_t ns_between(Clock::time_point from, Clock::time_point to) {
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(to - from).count());
}

uint64_t process_cpu_ns() {
  timespec now = {};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(now.tv_nsec);
}

uint64_t involuntary_switches() {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<uint64_t>(usage.ru_nivcsw);
}

// Watches the machine from its construction to finish().
class Watch {
 public:
  explicit Watch(Disturbance& to) : to_(to) {}

  uint64_t now_ns() const { return ns_between(start_, Clock::now()); }

  void probe_if_due() {
    const uint64_t now = now_ns();
    if (!to_.probe_ns.empty() && now - to_.probe_at_ns.back() < kProbeEveryNs) return;
    to_.probe_at_ns.push_back(now);
    to_.probe_ns.push_back(probe_ns());
  }

  void finish() {
    to_.wall_ns = now_ns();
    to_.interruptions = involuntary_switches() - switches_;
    const CpuTimes now = cpu_times();
    const double total = now.total_s - times_.total_s;
    const double own = static_cast<double>(process_cpu_ns() - cpu_ns_) / 1e9;
    if (!(total > 0)) {  // no /proc/stat, or less than its tick
      to_.others_share = -1;
      return;
    }
    to_.stolen_share = (now.stolen_s - times_.stolen_s) / total;
    to_.others_share = std::max(0.0, (now.busy_s - times_.busy_s) - own) / total;
  }

 private:
  Disturbance& to_;
  Clock::time_point start_ = Clock::now();
  uint64_t switches_ = involuntary_switches(), cpu_ns_ = process_cpu_ns();
  CpuTimes times_ = cpu_times();
};

TimedRun timed(const Subject& subject, const Watch& watch) {
  TimedRun run = {};
  run.start_ns = watch.now_ns();
  const uint64_t cpu = process_cpu_ns();
  const auto start = Clock::now();
  run.stages = subject();
  run.wall_ns = ns_between(start, Clock::now());
  run.cpu_ns = process_cpu_ns() - cpu;
  return run;
}

}  // namespace

uint64_t probe_ns() {
  const auto start = Clock::now();
  uint64_t state = 1;
  for (int i = 0; i < 40'000; ++i) state = state * 6364136223846793005u + 1442695040888963407u;
  volatile uint64_t keep = state;  // or there is no work
  (void)keep;
  return ns_between(start, Clock::now());
}

Measurement measure_in_turn(const std::vector<Subject>& subjects, double seconds, size_t turn, size_t max_runs) {
  Measurement found;
  found.runs.resize(subjects.size());
  const size_t limit = std::min(max_runs, kMaxRuns);
  const auto end_ns = static_cast<uint64_t>(seconds * 1e9);
  Watch watch(found.disturbance);
  do {
    for (size_t s = 0; s < subjects.size(); ++s) {
      watch.probe_if_due();
      if (subjects.size() > 1) subjects[s]();
      for (size_t i = 0; i < turn && found.runs[s].size() < limit; ++i) {
        found.runs[s].push_back(timed(subjects[s], watch));
        watch.probe_if_due();
      }
    }
  } while (watch.now_ns() < end_ns && found.runs[0].size() < limit);
  watch.finish();
  return found;
}

Measurement measure_after_idle(const Subject& subject, double idle_seconds, size_t count) {
  Measurement found;
  found.runs.resize(1);
  Watch watch(found.disturbance);
  for (size_t i = 0; i < std::min(count, kMaxRuns); ++i) {
    std::this_thread::sleep_for(std::chrono::duration<double>(idle_seconds));
    found.runs[0].push_back(timed(subject, watch));  // no probe before it: that would wake the CPU up
    watch.probe_if_due();
  }
  watch.finish();
  return found;
}

OpenLoop measure_at_rate(const Subject& subject, double rate_hz, double seconds, size_t max_queue) {
  OpenLoop found;
  found.runs.resize(1);
  const double period_ns = 1e9 / rate_hz;
  const auto planned = static_cast<size_t>(std::min(rate_hz * seconds, static_cast<double>(kMaxRuns)));
  Watch watch(found.disturbance);
  for (size_t i = 0; i < planned; ++i) {
    const auto arrival = static_cast<uint64_t>(static_cast<double>(i) * period_ns);
    if (watch.now_ns() + kProbeEveryNs / 4 < arrival) watch.probe_if_due();  // only where there is time for it
    const uint64_t now = watch.now_ns();
    if (now < arrival) std::this_thread::sleep_for(std::chrono::nanoseconds(arrival - now));
    const uint64_t begin = watch.now_ns();
    found.arrivals = static_cast<size_t>(static_cast<double>(begin) / period_ns) + 1;
    const size_t queue = std::min(found.arrivals, planned) - i;  // this one among them
    found.longest_queue = std::max(found.longest_queue, queue);
    if (queue > max_queue) {
      found.overrun = true;
      break;
    }
    TimedRun run = timed(subject, watch);
    run.wait_ns = run.start_ns > arrival ? run.start_ns - arrival : 0;
    found.runs[0].push_back(run);
  }
  found.arrivals = std::min(found.arrivals, planned);
  watch.finish();
  return found;
}

}  // namespace onceover
