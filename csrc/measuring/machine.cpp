#include "measuring/machine.h"

#include <dirent.h>
#include <sched.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <sstream>

namespace onceover {
namespace {

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  while (!line.empty() && (line.back() == '\0' || line.back() == '\n')) line.pop_back();
  return line;
}

double number_in(const std::string& path) {
  const std::string text = first_line(path);
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  return end == text.c_str() ? std::numeric_limits<double>::quiet_NaN() : value;
}

// "key: value" or "key   : value" of a file of such lines; the first one that has the key.
std::string field_in(const char* path, const std::string& key) {
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    const size_t colon = line.find(':');
    if (colon == std::string::npos || line.compare(0, key.size(), key) != 0) continue;
    if (line.find_first_not_of(" \t", key.size()) != colon) continue;
    const size_t from = line.find_first_not_of(" \t", colon + 1);
    return from == std::string::npos ? "" : line.substr(from);
  }
  return "";
}

uint64_t kilobytes_in(const char* path, const std::string& key) {
  return std::strtoull(field_in(path, key).c_str(), nullptr, 10) * 1024;
}

double hottest_celsius() {
  double hottest = std::numeric_limits<double>::quiet_NaN();
  DIR* folder = opendir("/sys/class/thermal");
  if (folder == nullptr) return hottest;
  while (const dirent* entry = readdir(folder)) {
    const std::string name = entry->d_name;
    if (name.compare(0, 12, "thermal_zone") != 0) continue;
    const double celsius = number_in("/sys/class/thermal/" + name + "/temp") / 1000;
    if (celsius > -40 && celsius < 150 && !(hottest >= celsius)) hottest = celsius;
  }
  closedir(folder);
  return hottest;
}

std::string cpu_name() {
  for (const char* key : {"model name", "cpu model", "Hardware"}) {
    const std::string name = field_in("/proc/cpuinfo", key);
    if (!name.empty()) return name;
  }
  return first_line("/proc/device-tree/model");
}

uint32_t usable_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0) return static_cast<uint32_t>(CPU_COUNT(&set));
  return static_cast<uint32_t>(std::max(1L, sysconf(_SC_NPROCESSORS_ONLN)));
}

double or_zero(double value) { return std::isfinite(value) ? value : 0; }

}  // namespace

CpuTimes cpu_times() {
  std::istringstream line(first_line("/proc/stat"));
  std::string name;
  line >> name;
  // user nice system idle iowait irq softirq steal; guest time is part of user
  double ticks[8] = {};
  for (double& each : ticks) line >> each;
  const auto per_second = static_cast<double>(sysconf(_SC_CLK_TCK));
  CpuTimes times;
  for (const double each : ticks) times.total_s += each / per_second;
  times.stolen_s = ticks[7] / per_second;
  times.busy_s = times.total_s - (ticks[3] + ticks[4]) / per_second - times.stolen_s;
  return times;
}

ProcessMemory process_memory() {
  constexpr const char* kStatus = "/proc/self/status";
  return {kilobytes_in(kStatus, "VmRSS"), kilobytes_in(kStatus, "VmHWM"), kilobytes_in(kStatus, "RssAnon")};
}

Machine describe_machine() {
  Machine machine;
  machine.cpu = cpu_name();
  utsname system = {};
  if (uname(&system) == 0) {
    machine.kernel = std::string(system.sysname) + " " + system.release + " " + system.machine;
  }
  const std::string clock = "/sys/devices/system/cpu/cpu0/cpufreq/";
  machine.governor = first_line(clock + "scaling_governor");
  machine.clock_mhz = or_zero(number_in(clock + "scaling_cur_freq") / 1000);
  if (!(machine.clock_mhz > 0)) machine.clock_mhz = std::strtod(field_in("/proc/cpuinfo", "cpu MHz").c_str(), nullptr);
  machine.max_clock_mhz = or_zero(number_in(clock + "cpuinfo_max_freq") / 1000);
  machine.celsius = hottest_celsius();
  machine.load = or_zero(number_in("/proc/loadavg"));
  machine.memory_bytes = kilobytes_in("/proc/meminfo", "MemTotal");
  machine.available_bytes = kilobytes_in("/proc/meminfo", "MemAvailable");
  machine.cpus = usable_cpus();
  machine.in_a_vm = (" " + field_in("/proc/cpuinfo", "flags") + " ").find(" hypervisor ") != std::string::npos;
  return machine;
}

}  // namespace onceover
