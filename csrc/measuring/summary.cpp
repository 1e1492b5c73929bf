#include "measuring/summary.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "measuring/json.h"
#include "measuring/statistics.h"

namespace onceover {
namespace {

// What still counts as a quiet machine. A shared core, a clock that changes and a host that takes its time back differ
// from these by far.
constexpr double kMaxOthers = 0.05, kMaxStolen = 0.01, kMaxSpread = 1.15, kMaxDrift = 1.03;
constexpr size_t kFewProbes = 20;

struct NamedPart {
  const char* name;
  double part;
};
constexpr NamedPart kParts[] = {{"p50_ms", 0.5}, {"p90_ms", 0.9}, {"p99_ms", 0.99}, {"p99.9_ms", 0.999}};

std::string milliseconds(uint64_t ns) { return json_number(static_cast<double>(ns) / 1e6); }

std::string percentiles_json(std::vector<uint64_t> ns) {
  if (ns.empty()) return "null";
  std::sort(ns.begin(), ns.end());
  std::string text = "{";
  for (const NamedPart& each : kParts) {
    std::string value = "null";
    if (ns.size() >= runs_for(each.part)) {
      const Percentile found = percentile(ns, each.part);
      value = "[" + milliseconds(found.ns) + ", " + milliseconds(found.lower_ns) + ", " +
              (found.upper_ns == 0 ? "null" : milliseconds(found.upper_ns)) + "]";
    }
    text += json_member(each.name, value) + ", ";
  }
  double sum = 0;
  for (const uint64_t each : ns) sum += static_cast<double>(each);
  text += json_member("mean_ms", json_number(sum / static_cast<double>(ns.size()) / 1e6)) + ", ";
  return text + json_member("min_ms", milliseconds(ns.front())) + ", " +
         json_member("max_ms", milliseconds(ns.back())) + "}";
}

template <typename Value>
std::string percentiles_of(const std::vector<TimedRun>& runs, const Value& value) {
  std::vector<uint64_t> ns;
  ns.reserve(runs.size());
  for (const TimedRun& run : runs) ns.push_back(value(run));
  return percentiles_json(std::move(ns));
}

uint64_t median(std::vector<uint64_t> values) {
  const auto middle = values.begin() + static_cast<ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

struct Probes {
  double spread = 1;  // the 95th percentile over the median
  double drift = 1;   // the median of the last third over that of the first
};

Probes judge(const std::vector<uint64_t>& probes) {
  Probes found;
  if (probes.size() < kFewProbes) return found;
  std::vector<uint64_t> sorted = probes;
  std::sort(sorted.begin(), sorted.end());
  const auto middle = static_cast<double>(sorted[sorted.size() / 2]);
  found.spread = static_cast<double>(sorted[sorted.size() * 95 / 100]) / middle;
  const auto third = static_cast<ptrdiff_t>(probes.size() / 3);
  const auto first = static_cast<double>(median({probes.begin(), probes.begin() + third}));
  found.drift = static_cast<double>(median({probes.end() - third, probes.end()})) / first;
  return found;
}

std::string sentence(const char* format, double value) {
  char text[160];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

std::string noise_json(const Disturbance& disturbance) {
  std::string list;
  for (const std::string& each : noise_of(disturbance)) list += (list.empty() ? "" : ", ") + json_text(each);
  return "[" + list + "]";
}

std::string probe_json(const Disturbance& disturbance) {
  const Probes probes = judge(disturbance.probe_ns);
  const double seconds = static_cast<double>(disturbance.wall_ns) / 1e9;
  return "{" + json_member("count", std::to_string(disturbance.probe_ns.size())) + ", " +
         json_member("spread", json_number(probes.spread)) + ", " + json_member("drift", json_number(probes.drift)) +
         ", " + json_member("others_share", json_number(disturbance.others_share)) + ", " +
         json_member("stolen_share", json_number(disturbance.stolen_share)) + ", " +
         json_member("interruptions_hz", json_number(static_cast<double>(disturbance.interruptions) / seconds)) + "}";
}

// Standard deviation of the difference between neighbors, over √2: what varies from part to part, not what drifts.
double jitter_ns(const std::vector<TimedRun>& runs) {
  if (runs.size() < 2) return 0;
  double sum = 0;
  for (size_t i = 1; i < runs.size(); ++i) {
    const double step = static_cast<double>(runs[i].wall_ns) - static_cast<double>(runs[i - 1].wall_ns);
    sum += step * step;
  }
  return std::sqrt(sum / static_cast<double>(runs.size() - 1) / 2);
}

}  // namespace

std::vector<std::string> noise_of(const Disturbance& disturbance) {
  std::vector<std::string> reasons;
  const Probes probes = judge(disturbance.probe_ns);
  if (disturbance.others_share > kMaxOthers) {
    reasons.push_back(
        sentence("other programs used %.0f %% of the machine's CPU time", 100 * disturbance.others_share));
  }
  if (disturbance.stolen_share > kMaxStolen) {
    reasons.push_back(sentence("the host took %.1f %% of the CPU time for others", 100 * disturbance.stolen_share));
  }
  if (probes.spread > kMaxSpread) {
    reasons.push_back(sentence("the same small work took %.2f times its median at the 95th percentile", probes.spread));
  }
  if (probes.drift > kMaxDrift || probes.drift < 1 / kMaxDrift) {
    reasons.push_back(sentence("the machine ended at %.2f times the speed it began with", 1 / probes.drift));
  }
  return reasons;
}

std::string summary_json(const std::vector<TimedRun>& runs, const Disturbance& disturbance, bool waited) {
  const double seconds = static_cast<double>(disturbance.wall_ns) / 1e9;
  double busy = 0;
  for (const TimedRun& run : runs) busy += static_cast<double>(run.wall_ns) / 1e9;
  const auto total = [waited](const TimedRun& run) { return run.wall_ns + (waited ? run.wait_ns : 0); };
  std::string text = "{" + json_member("runs", std::to_string(runs.size())) + ", " +
                     json_member("seconds", json_number(seconds)) + ", " +
                     json_member("total", percentiles_of(runs, total)) + ", ";
  const auto stage = [&](const char* name, uint64_t Stages::* member) {
    text +=
        json_member(name, percentiles_of(runs, [member](const TimedRun& run) { return run.stages.*member; })) + ", ";
  };
  stage("prepare", &Stages::prepare_ns);
  stage("engine", &Stages::engine_ns);
  stage("score", &Stages::score_ns);
  stage("map", &Stages::map_ns);
  text += json_member("cpu", percentiles_of(runs, [](const TimedRun& run) { return run.cpu_ns; })) + ", ";
  text += json_member("jitter_ms", json_number(jitter_ns(runs) / 1e6)) + ", ";
  text += json_member("throughput_hz", json_number(busy > 0 ? static_cast<double>(runs.size()) / busy : 0)) + ", ";
  return text + json_member("noise", noise_json(disturbance)) + ", " + json_member("probe", probe_json(disturbance)) +
         "}";
}

std::string open_loop_json(const OpenLoop& found, double rate_hz) {
  const std::vector<TimedRun>& runs = found.runs[0];
  double busy = 0;
  for (const TimedRun& run : runs) busy += static_cast<double>(run.wall_ns);
  const double load = busy / static_cast<double>(found.disturbance.wall_ns);
  return "{" + json_member("rate_hz", json_number(rate_hz)) + ", " +
         json_member("arrivals", std::to_string(found.arrivals)) + ", " +
         json_member("longest_queue", std::to_string(found.longest_queue)) + ", " +
         json_member("overrun", found.overrun ? "true" : "false") + ", " +
         json_member("utilization", json_number(load)) + ", " +
         json_member("wait", percentiles_of(runs, [](const TimedRun& run) { return run.wait_ns; })) + ", " +
         json_member("latency", summary_json(runs, found.disturbance, true)) + "}";
}

std::string machine_json(const Machine& m) {
  return "{" + json_member("cpu", json_text(m.cpu)) + ", " + json_member("cpus", std::to_string(m.cpus)) + ", " +
         json_member("kernel", json_text(m.kernel)) + ", " +
         json_member("governor", m.governor.empty() ? "null" : json_text(m.governor)) + ", " +
         json_member("clock_mhz", json_number(m.clock_mhz > 0 ? m.clock_mhz : NAN)) + ", " +
         json_member("max_clock_mhz", json_number(m.max_clock_mhz > 0 ? m.max_clock_mhz : NAN)) + ", " +
         json_member("celsius", json_number(m.celsius)) + ", " + json_member("load", json_number(m.load)) + ", " +
         json_member("memory_bytes", std::to_string(m.memory_bytes)) + ", " +
         json_member("available_bytes", std::to_string(m.available_bytes)) + ", " +
         json_member("in_a_vm", m.in_a_vm ? "true" : "false") + "}";
}

std::string memory_json(const ProcessMemory& memory) {
  return "{" + json_member("rss_bytes", std::to_string(memory.rss)) + ", " +
         json_member("peak_rss_bytes", std::to_string(memory.peak_rss)) + ", " +
         json_member("anonymous_bytes", std::to_string(memory.anonymous)) + "}";
}

}  // namespace onceover
