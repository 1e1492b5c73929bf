// How long something takes: the experiments of `onceover bench` and `onceover-run --bench`, which are the same code.
// Knows nothing of sessions: a subject is a function that does the work once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

namespace onceover {

struct Stages {  // what the subject measured of its own run
  uint64_t prepare_ns = 0, engine_ns = 0, score_ns = 0, map_ns = 0;
};
using Subject = std::function<Stages()>;

struct TimedRun {
  uint64_t start_ns;  // since the experiment began
  uint64_t wall_ns;
  uint64_t cpu_ns;   // of the whole process: an engine computes on threads of its own
  uint64_t wait_ns;  // of an arrival: from its time to the start of its run
  Stages stages;
};

// What else happened while the runs were timed.
struct Disturbance {
  std::vector<uint64_t> probe_ns;     // the same fixed work again and again: it varies as the machine does
  std::vector<uint64_t> probe_at_ns;  // since the experiment began
  uint64_t wall_ns = 0;
  uint64_t interruptions = 0;  // involuntary context switches of this process
  double stolen_share = 0;     // of the machine's time, by its host
  double others_share = 0;     // of the machine's CPU time, by other processes; −1: not told here
};

struct Measurement {
  std::vector<std::vector<TimedRun>> runs;  // of each subject
  Disturbance disturbance;
};

inline constexpr size_t kMaxRuns = 1'000'000;  // of a subject: 72 MB

// Closed loop: the next run begins when the last one has ended. Subjects take turns of `turn` runs (A B A B …), each
// after one untimed run where there are several, which brings its data back into the caches. Ends with the turn in
// which `seconds` have passed, or after max_runs of each.
Measurement measure_in_turn(const std::vector<Subject>& subjects, double seconds, size_t turn, size_t max_runs);

// Each run after `idle_seconds` asleep, as a line that starts again, or a trigger now and then.
Measurement measure_after_idle(const Subject& subject, double idle_seconds, size_t count);

// Open loop: parts arrive every 1 / rate seconds whether the last one is done or not, and wait their turn; so queueing
// is seen, which a closed loop hides. Stops early when the queue is longer than `max_queue`. TimedRun::wait_ns is the
// time in the queue (and of waking up); wall_ns + wait_ns is what the line sees.
struct OpenLoop : Measurement {
  size_t arrivals = 0;  // by the end
  size_t longest_queue = 0;
  bool overrun = false;  // the queue grew beyond max_queue
};
OpenLoop measure_at_rate(const Subject& subject, double rate_hz, double seconds, size_t max_queue);

// Fixed work of about 50 µs that touches no memory.
uint64_t probe_ns();

}  // namespace onceover
