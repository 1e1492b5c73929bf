// Measurements as the JSON that both `onceover bench` and `onceover-run --bench` print.
#pragma once

#include <string>
#include <vector>

#include "measuring/experiment.h"
#include "measuring/machine.h"

namespace onceover {

// Why these times are not those of the machine alone, one sentence each; empty: nothing speaks against them.
std::vector<std::string> noise_of(const Disturbance& disturbance);

// {"runs", "seconds", "total": percentiles, "prepare", "engine", "score", "map", "cpu", "jitter_ms", "throughput_hz",
// "noise": [...], "probe": {...}}. Percentiles are {"p50_ms": [value, lower, upper], …, "max_ms": value}; those for
// which there are too few runs are null, an unknown upper bound too. `waited`: total holds the time in the queue.
std::string summary_json(const std::vector<TimedRun>& runs, const Disturbance& disturbance, bool waited = false);
std::string open_loop_json(const OpenLoop& found, double rate_hz);
std::string machine_json(const Machine& machine);
std::string memory_json(const ProcessMemory& memory);

}  // namespace onceover
