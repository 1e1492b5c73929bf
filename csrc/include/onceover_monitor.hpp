// onceover_monitor.h for C++11 and later: a monitor that frees itself, and StatusError where a call fails; what is said
// there and in onceover.hpp holds here. Header only, over the C ABI.
//
//   onceover::LineMonitor monitor(package);
//   const onceover_result result = session.run(frame);
//   const uint32_t alarms = monitor.update(result, frame);  // measures the frame, too
//   if ((alarms >> ONCEOVER_CHART_BRIGHTNESS) & 1) { … look at the light … }
#pragma once

#include <array>

#include "onceover.hpp"
#include "onceover_monitor.h"

namespace onceover {

// Brightness and sharpness of an image.
inline onceover_image_statistics image_statistics(const onceover_image& image) {
  onceover_image_statistics measured = sized<onceover_image_statistics>();
  StatusError::check(onceover_measure_image(&image, &measured));
  return measured;
}

class LineMonitor {
 public:
  using Charts = std::array<onceover_chart_state, ONCEOVER_CHARTS>;

  // options: sized<onceover_monitor_options>(), with what shall differ from the default.
  explicit LineMonitor(const PackageFile& package,
                       const onceover_monitor_options& options = sized<onceover_monitor_options>())
      : LineMonitor(package.get(), options) {}
  // Without a package there is no chart of p-values.
  explicit LineMonitor(const onceover_monitor_options& options = sized<onceover_monitor_options>())
      : LineMonitor(static_cast<const onceover_package*>(nullptr), options) {}

  // What `save` gave: of this package, or of any.
  static LineMonitor load(const PackageFile& package, const std::vector<uint8_t>& bytes) {
    return loaded(package.get(), bytes);
  }
  static LineMonitor load(const std::vector<uint8_t>& bytes) { return loaded(nullptr, bytes); }
  std::vector<uint8_t> save() const {
    std::vector<uint8_t> bytes(info().state_bytes);
    size_t size = 0;
    StatusError::check(onceover_monitor_save(get(), bytes.data(), bytes.size(), &size));
    bytes.resize(size);
    return bytes;
  }

  // Takes one part; → 1 << chart of the alarms that begin with it.
  uint32_t update(const onceover_result& result, const onceover_image_statistics& statistics) {
    return take(result, &statistics);
  }
  uint32_t update(const onceover_result& result, const onceover_image& image) {
    return update(result, image_statistics(image));
  }
  uint32_t update(const onceover_result& result) { return take(result, nullptr); }  // an image that was not measured

  onceover_monitor_info info() const {
    onceover_monitor_info told = sized<onceover_monitor_info>();
    StatusError::check(onceover_monitor_describe(get(), &told, nullptr));
    return told;
  }
  Charts charts() const {  // by onceover_chart
    Charts told;
    StatusError::check(onceover_monitor_describe(get(), nullptr, told.data()));
    return told;
  }
  bool in_alarm(onceover_chart chart) const { return ((info().alarms >> chart) & 1) != 0; }
  void restart(bool keep_baseline) { StatusError::check(onceover_monitor_restart(get(), keep_baseline ? 1 : 0)); }
  onceover_monitor* get() noexcept { return handle_.get(); }
  const onceover_monitor* get() const noexcept { return handle_.get(); }

 private:
  struct Free {
    void operator()(onceover_monitor* monitor) const { onceover_monitor_free(monitor); }
  };

  LineMonitor(const onceover_package* package, const onceover_monitor_options& options) {
    onceover_monitor* created = nullptr;
    StatusError::check(onceover_monitor_create(package, &options, &created));
    handle_.reset(created);
  }
  explicit LineMonitor(onceover_monitor* owned) : handle_(owned) {}

  static LineMonitor loaded(const onceover_package* package, const std::vector<uint8_t>& bytes) {
    onceover_monitor* made = nullptr;
    StatusError::check(onceover_monitor_load(package, bytes.data(), bytes.size(), &made));
    return LineMonitor(made);
  }
  uint32_t take(const onceover_result& result, const onceover_image_statistics* statistics) {
    uint32_t alarms = 0;
    StatusError::check(onceover_monitor_update(get(), &result, statistics, &alarms));
    return alarms;
  }

  std::unique_ptr<onceover_monitor, Free> handle_;
};

}  // namespace onceover
