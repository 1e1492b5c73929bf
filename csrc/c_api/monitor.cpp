// The drift monitor in C: monitor/monitor.h and image/statistics.h behind onceover_monitor.h.
#include "monitor/monitor.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "c_api/guard.h"
#include "c_api/image.h"
#include "c_api/package.h"
#include "image/statistics.h"
#include "monitor/monitored_package.h"
#include "onceover_monitor.h"

struct onceover_monitor final {
  onceover::Monitor monitor;
};

namespace onceover {

template <>
inline constexpr size_t kFirstSize<onceover_monitor_options> =
    offsetof(onceover_monitor_options, reject_rate) + sizeof(double);
template <>
inline constexpr size_t kFirstSize<onceover_image_statistics> =
    offsetof(onceover_image_statistics, sharpness) + sizeof(float);
template <>
inline constexpr size_t kFirstSize<onceover_monitor_info> =
    offsetof(onceover_monitor_info, package_id) + sizeof(onceover_monitor_info::package_id);
template <>
inline constexpr size_t kFirstSize<onceover_result> = offsetof(onceover_result, map_ns) + sizeof(uint64_t);

namespace {

static_assert(ONCEOVER_CHARTS == kCharts && ONCEOVER_CHART_SCORE_EWMA == static_cast<int>(Chart::kScoreEwma) &&
              ONCEOVER_CHART_SCORE_CUSUM == static_cast<int>(Chart::kScoreCusum) &&
              ONCEOVER_CHART_P_VALUES == static_cast<int>(Chart::kPValues) &&
              ONCEOVER_CHART_BRIGHTNESS == static_cast<int>(Chart::kBrightness) &&
              ONCEOVER_CHART_SHARPNESS == static_cast<int>(Chart::kSharpness) &&
              ONCEOVER_CHART_REJECTED == static_cast<int>(Chart::kRejected));
static_assert(ONCEOVER_NO_VERDICT == static_cast<int>(Outcome::kUndecided) &&
              ONCEOVER_NORMAL == static_cast<int>(Outcome::kAccepted) &&
              ONCEOVER_ANOMALOUS == static_cast<int>(Outcome::kRejected));

MonitoredPackage package_of(const onceover_package* package) {
  return package == nullptr ? MonitoredPackage() : monitored(*package->package);
}

MonitorOptions options_of(const onceover_monitor_options* options) {
  const onceover_monitor_options given = read_struct(options, "options");
  MonitorOptions wanted;
  if (given.batch != 0) wanted.batch = given.batch;
  if (given.average_run_length != 0) wanted.run_length = given.average_run_length;
  wanted.reject_rate = given.reject_rate;
  return wanted;
}

InspectedPart part_of(const onceover_result* result, const onceover_image_statistics* statistics) {
  const onceover_result given = read_struct(required(result, "result"), "result");
  InspectedPart part;
  // A wrong part is rejected, as an anomalous one is.
  part.outcome = given.verdict == ONCEOVER_WRONG_PART ? Outcome::kRejected : static_cast<Outcome>(given.verdict);
  part.score = given.score;
  part.p_value = given.p_value;
  part.brightness = part.sharpness = std::nanf("");
  if (statistics != nullptr) {
    const onceover_image_statistics measured = read_struct(statistics, "statistics");
    part.brightness = measured.brightness;
    part.sharpness = measured.sharpness;
  }
  return part;
}

}  // namespace
}  // namespace onceover

using namespace onceover;

onceover_status onceover_monitor_create(const onceover_package* package, const onceover_monitor_options* options,
                                        onceover_monitor** monitor) {
  return guarded(__func__, [&] {
    *required(monitor, "monitor") = nullptr;
    *monitor = new onceover_monitor{Monitor(package_of(package), options_of(options))};
  });
}

onceover_status onceover_measure_image(const onceover_image* image, onceover_image_statistics* statistics) {
  return guarded(__func__, [&] {
    check_struct_size(*required(statistics, "statistics"), "statistics");
    const ImageStatistics measured = measure_image(view_image(*required(image, "image")));
    onceover_image_statistics told = {};
    told.brightness = measured.brightness;
    told.sharpness = measured.sharpness;
    write_struct(told, *statistics);
  });
}

onceover_status onceover_monitor_update(onceover_monitor* monitor, const onceover_result* result,
                                        const onceover_image_statistics* statistics, uint32_t* alarms) {
  return guarded(__func__, [&] {
    required(alarms, "alarms");
    *alarms = required(monitor, "monitor")->monitor.update(part_of(result, statistics));
  });
}

onceover_status onceover_monitor_describe(const onceover_monitor* monitor, onceover_monitor_info* info,
                                          onceover_chart_state* charts) {
  return guarded(__func__, [&] {
    const Monitor& described = required(monitor, "monitor")->monitor;
    if (info != nullptr) {
      check_struct_size(*info, "info");
      onceover_monitor_info told = {};
      told.alarms = described.alarms();
      told.parts = described.parts();
      told.state_bytes = Monitor::state_bytes();
      std::copy(described.package().id.begin(), described.package().id.end(), told.package_id);
      write_struct(told, *info);
    }
    for (uint32_t i = 0; charts != nullptr && i < kCharts; ++i) {
      const ChartState state = described.state(static_cast<Chart>(i));
      charts[i] = {state.parts, state.alarm_part, state.value, state.lower, state.upper};
    }
  });
}

onceover_status onceover_monitor_restart(onceover_monitor* monitor, int32_t keep_baseline) {
  return guarded(__func__, [&] { required(monitor, "monitor")->monitor.restart(keep_baseline != 0); });
}

onceover_status onceover_monitor_save(const onceover_monitor* monitor, void* buffer, size_t capacity, size_t* size) {
  return guarded(__func__, [&] {
    required(monitor, "monitor");
    *required(size, "size") = Monitor::state_bytes();
    if (buffer == nullptr) return;
    if (capacity < *size) fail(Status::kUsage, "capacity is %zu, a monitor takes %zu bytes", capacity, *size);
    monitor->monitor.write(static_cast<uint8_t*>(buffer));
  });
}

onceover_status onceover_monitor_load(const onceover_package* package, const void* bytes, size_t size,
                                      onceover_monitor** monitor) {
  return guarded(__func__, [&] {
    *required(monitor, "monitor") = nullptr;
    const Monitor loaded = Monitor::read(static_cast<const uint8_t*>(required(bytes, "bytes")), size);
    if (package != nullptr && loaded.package().id != package_of(package).id) {
      fail(Status::kInput, "this monitor watched another package; begin with a new one");
    }
    *monitor = new onceover_monitor{loaded};
  });
}

void onceover_monitor_free(onceover_monitor* monitor) { delete monitor; }
