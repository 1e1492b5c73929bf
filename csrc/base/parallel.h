// A small pool of threads that sleep between calls; the only place that starts threads.
#pragma once

#if defined(__linux__)
#include <sched.h>
#endif

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace onceover {

class ThreadPool {
 public:
  // threads ≥ 1 counts the caller: a pool of 1 starts none. Those that it starts may run on the CPUs whose bits are set
  // in cpu_mask; 0: on all. wake_apart: they do not begin on the caller's CPU while there is another one. Throws
  // Error(kMemory) when the system gives no more threads, kUsage when it refuses the mask, kUnsupported where it knows
  // none.
  explicit ThreadPool(size_t threads, uint64_t cpu_mask = 0, bool wake_apart = false);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  size_t threads() const noexcept { return workers_.size() + 1; }
  // Calls work(context, part) for every part in [0, threads()), part 0 on the calling thread, and returns when all are
  // done. `work` must not throw. One call at a time.
  void run(void (*work)(void* context, size_t part) noexcept, void* context);

 private:
  void wait_for_work(size_t part);
  void pin(uint64_t cpu_mask);
  void keep_off_this_cpu() noexcept;
  void bring_here() noexcept;
  void stop() noexcept;

  std::mutex mutex_;
  std::condition_variable start_, done_;
  void (*work_)(void*, size_t) noexcept = nullptr;
  void* context_ = nullptr;
  size_t round_ = 0, running_ = 0;
  bool stopping_ = false;
  std::vector<std::thread> workers_;
  bool wake_apart_;
#if defined(__linux__)
  struct OwnCpus {
    cpu_set_t cpus;
    bool taken = false;  // the worker may not run on all of them until it has begun
  };
  std::vector<OwnCpus> own_cpus_;  // of each worker; under mutex_
#endif
};

}  // namespace onceover
