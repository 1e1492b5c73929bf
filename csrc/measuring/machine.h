// What a latency needs beside it: the CPU and its clock, what else the machine does, the memory of this process.
// Everything is read where Linux tells it; what is not told is empty, NaN or 0.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace onceover {

struct CpuTimes {  // seconds since boot, over all CPUs; from /proc/stat
  double total_s = 0, busy_s = 0, stolen_s = 0;
};
CpuTimes cpu_times();

struct ProcessMemory {  // bytes; from /proc/self/status
  uint64_t rss = 0, peak_rss = 0, anonymous = 0;
};
ProcessMemory process_memory();

struct Machine {
  std::string cpu;                          // model name
  std::string kernel;                       // of the operating system
  std::string governor;                     // of CPU 0; empty where there is none, as in virtual machines
  double clock_mhz = 0, max_clock_mhz = 0;  // of CPU 0, now
  double celsius = 0;                       // the hottest sensor of the CPU, or of the machine; NaN: none
  double load = 0;                          // of the last minute
  uint64_t memory_bytes = 0, available_bytes = 0;
  uint32_t cpus = 0;     // that this process may use
  bool in_a_vm = false;  // a hypervisor shares the machine
};
Machine describe_machine();

}  // namespace onceover
