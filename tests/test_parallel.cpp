// The pool of threads: every part once, and workers that do not share the caller's CPU.
#include "base/parallel.h"

#include <atomic>
#include <chrono>
#include <string>

#include "check.h"

#if defined(__linux__)
#include <pthread.h>
#endif

using onceover::ThreadPool;

namespace {

void test_every_part_is_worked_on_once_in_every_round() {
  for (const size_t threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    CHECK(pool.threads() == threads);
    std::vector<size_t> times(threads);
    for (size_t round = 1; round <= 200; ++round) {
      pool.run([](void* context, size_t part) noexcept { ++static_cast<size_t*>(context)[part]; }, times.data());
      for (const size_t count : times) CHECK(count == round);
    }
  }
}

#if defined(__linux__)
// Two CPUs that this process may use; fewer where there are none.
std::vector<int> two_cpus() {
  cpu_set_t allowed;
  std::vector<int> found;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return found;
  for (int cpu = 0; cpu < 64 && found.size() < 2; ++cpu) {
    if (CPU_ISSET(cpu, &allowed)) found.push_back(cpu);
  }
  return found;
}

bool bind_this_thread(int cpu) {
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  CPU_SET(cpu, &cpus);
  return sched_setaffinity(0, sizeof cpus, &cpus) == 0;
}

struct Seen {
  int worker_cpu, worker_cpus;  // where it began, and how many CPUs it may use
  std::atomic<bool> begun;
};

void look(void* context, size_t part) noexcept {
  auto* seen = static_cast<Seen*>(context);
  if (part == 1) {
    cpu_set_t cpus;
    seen->worker_cpu = sched_getcpu();
    seen->worker_cpus = sched_getaffinity(0, sizeof cpus, &cpus) == 0 ? CPU_COUNT(&cpus) : 0;
    seen->begun = true;
  } else {
    while (!seen->begun) std::this_thread::yield();  // the caller is at work as long as the worker has not begun
  }
}

// In a thread of its own, as it is bound to a CPU. The other CPU looks busy, as after an engine's run: a thread there
// asks for work again and again.
void test_a_worker_begins_beside_the_caller_and_keeps_its_cpus() {
  const std::vector<int> cpus = two_cpus();
  if (cpus.size() < 2) {
    std::printf("parallel: SKIPPED where a worker begins: this process may use one CPU\n");
    return;
  }
  std::thread([&] {
    CHECK(bind_this_thread(cpus[0]));
    std::atomic<bool> stop{false};
    std::thread busy([&] {
      bind_this_thread(cpus[1]);
      while (!stop) std::this_thread::yield();
    });
    ThreadPool pool(2, uint64_t{1} << cpus[0] | uint64_t{1} << cpus[1], true);
    constexpr int kRounds = 100;
    int beside = 0;
    for (int round = 0; round < kRounds; ++round) {
      Seen seen = {-1, 0, {false}};
      pool.run(look, &seen);
      beside += seen.worker_cpu == cpus[1];
      CHECK(seen.worker_cpus == 2);
    }
    stop = true;
    busy.join();
    if (beside < kRounds - 5) std::printf("parallel: beside the caller %d times of %d\n", beside, kRounds);
    CHECK(beside >= kRounds - 5);  // the system may move it at any time, but has little time to
  }).join();
}

// A thread of higher priority has the other CPU until the pool's run is over, or for 0.4 s if it does not end before:
// less than the system gives such threads at a stretch.
void test_a_worker_that_cannot_begin_elsewhere_takes_the_callers_cpu() {
  const std::vector<int> cpus = two_cpus();
  if (cpus.size() < 2) return;
  std::thread([&] {
    CHECK(bind_this_thread(cpus[0]));
    ThreadPool pool(2, uint64_t{1} << cpus[0] | uint64_t{1} << cpus[1], true);
    std::atomic<int> spinning{0};  // 1: it is, 2: it may not
    std::atomic<bool> over{false};
    bool gave_up = false;
    std::thread urgent([&] {
      bind_this_thread(cpus[1]);
      const sched_param priority = {1};
      if (pthread_setschedparam(pthread_self(), SCHED_FIFO, &priority) != 0) {
        spinning = 2;
        return;
      }
      spinning = 1;
      const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(400);
      while (!over && !gave_up) gave_up = std::chrono::steady_clock::now() >= end;
    });
    while (spinning == 0) std::this_thread::yield();
    if (spinning == 1) {
      pool.run([](void*, size_t) noexcept {}, nullptr);
    } else {
      std::printf("parallel: SKIPPED a thread of higher priority: this process may not start one\n");
    }
    over = true;
    urgent.join();
    CHECK(!gave_up);
  }).join();
}

// Bound to the caller's CPU alone, it has nowhere else to go.
void test_a_worker_of_one_cpu_stays_there() {
  const std::vector<int> cpus = two_cpus();
  if (cpus.empty()) return;
  std::thread([&] {
    CHECK(bind_this_thread(cpus[0]));
    ThreadPool pool(2, uint64_t{1} << cpus[0], true);
    for (int round = 0; round < 20; ++round) {
      Seen seen = {-1, 0, {false}};
      pool.run(look, &seen);
      CHECK(seen.worker_cpu == cpus[0] && seen.worker_cpus == 1);
    }
  }).join();
}
#endif

}  // namespace

int main() {
  test_every_part_is_worked_on_once_in_every_round();
#if defined(__linux__)
  test_a_worker_begins_beside_the_caller_and_keeps_its_cpus();
  test_a_worker_that_cannot_begin_elsewhere_takes_the_callers_cpu();
  test_a_worker_of_one_cpu_stays_there();
#endif
  return check::summary("parallel");
}
