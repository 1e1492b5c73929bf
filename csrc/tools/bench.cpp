#include "tools/bench.h"

#include <chrono>
#include <memory>

#include "measuring/json.h"
#include "measuring/summary.h"
#include "tools/report.h"

using namespace onceover;

namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kWarmUp = 10;  // engines allocate, and choose kernels, in the first runs
constexpr double kIdle[] = {0.5, 5.0};
constexpr size_t kIdleRuns[] = {10, 3};
constexpr size_t kMaxQueue = 1000;

std::string since(Clock::time_point start) {
  return json_number(std::chrono::duration<double, std::milli>(Clock::now() - start).count());
}

}  // namespace

std::string bench_json(const Arguments& arguments, const InspectionOptions& options,
                       const std::vector<Picture>& pictures) {
  std::string text = "{" + json_member("package", json_text(arguments.package)) + ", " +
                     json_member("onceover", json_text(onceover_version())) + ", " +
                     json_member("machine", machine_json(describe_machine()));
  auto start = Clock::now();
  const PackageFile package = PackageFile::open(arguments.package, arguments.copy);
  text += ", " + json_member("cold", "{" + json_member("open_ms", since(start)));
  start = Clock::now();
  InspectionSession session(package, options);
  text += ", " + json_member("create_ms", since(start));
  start = Clock::now();
  session.run(pictures[0].image);
  text += ", " + json_member("first_run_ms", since(start)) + "}, " + session_json(session.info());

  size_t next = 0;
  const Subject subject = [&] {
    const onceover_result r = session.run(pictures[next++ % pictures.size()].image);
    return Stages{r.prepare_ns, r.engine_ns, r.score_ns, r.map_ns};
  };
  for (size_t i = 0; i < kWarmUp; ++i) subject();
  const Measurement warm = measure_in_turn({subject}, arguments.bench_seconds, 1, kMaxRuns);
  text += ", " + json_member("warm", summary_json(warm.runs[0], warm.disturbance));
  std::string idle;
  for (size_t i = 0; i < std::size(kIdle) && !arguments.no_idle; ++i) {
    const Measurement found = measure_after_idle(subject, kIdle[i], kIdleRuns[i]);
    idle += (idle.empty() ? "{" : ", {") + json_member("idle_s", json_number(kIdle[i])) + ", " +
            json_member("latency", summary_json(found.runs[0], found.disturbance)) + "}";
  }
  text += ", " + json_member("after_idle", "[" + idle + "]");
  if (arguments.rate_hz > 0) {
    const OpenLoop found = measure_at_rate(subject, arguments.rate_hz, arguments.bench_seconds, kMaxQueue);
    text += ", " + json_member("at_rate", open_loop_json(found, arguments.rate_hz));
  }
  return text + ", " + json_member("memory", memory_json(process_memory())) + "}";
}
