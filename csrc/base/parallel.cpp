#include "base/parallel.h"

#if defined(__linux__)
#include <pthread.h>
#include <sched.h>
#include <unistd.h>
#endif

#include <cstring>
#include <system_error>
#include <utility>

#include "base/error.h"

namespace onceover {

ThreadPool::ThreadPool(size_t threads, uint64_t cpu_mask, bool wake_apart) : wake_apart_(wake_apart) {
  workers_.reserve(threads > 0 ? threads - 1 : 0);
#if defined(__linux__)
  own_cpus_.resize(threads > 0 ? threads - 1 : 0);
#endif
  try {
    for (size_t part = 1; part < threads; ++part) {
      workers_.emplace_back([this, part] { wait_for_work(part); });
    }
    if (cpu_mask != 0) pin(cpu_mask);
  } catch (const std::system_error& error) {
    const size_t started = workers_.size() + 1;
    stop();
    fail(Status::kMemory, "the system gave %zu of %zu threads (%s); ask for fewer", started, threads, error.what());
  } catch (...) {
    stop();
    throw;
  }
}

ThreadPool::~ThreadPool() { stop(); }

void ThreadPool::stop() noexcept {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  start_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::pin(uint64_t cpu_mask) {
#if defined(__linux__)
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  for (int cpu = 0; cpu < 64; ++cpu) {
    if ((cpu_mask >> cpu & 1) != 0) CPU_SET(cpu, &cpus);
  }
  for (std::thread& worker : workers_) {
    const int error = pthread_setaffinity_np(worker.native_handle(), sizeof cpus, &cpus);
    if (error != 0) {
      fail(Status::kUsage, "threads cannot run on the CPUs of mask %#llx (error %d); name CPUs that this machine has",
           static_cast<unsigned long long>(cpu_mask), error);
    }
  }
#else
  fail(Status::kUnsupported, "threads cannot be bound to CPUs on this system (mask %#llx); leave the mask 0",
       static_cast<unsigned long long>(cpu_mask));
#endif
}

// Workers that wake must not share the caller's CPU, where the scheduler puts them when every other one looks busy: so
// it does right after OpenVINO, whose threads stay runnable for a while, looking for more work. Then two threads take
// as long as one. Which CPUs a worker has is asked anew each time, and given back by it as soon as it runs.
void ThreadPool::keep_off_this_cpu() noexcept {
#if defined(__linux__)
  const int here = sched_getcpu();
  for (size_t i = 0; here >= 0 && here < CPU_SETSIZE && i < workers_.size(); ++i) {
    OwnCpus& own = own_cpus_[i];
    const pthread_t worker = workers_[i].native_handle();
    own.taken = false;
    if (pthread_getaffinity_np(worker, sizeof own.cpus, &own.cpus) != 0 || !CPU_ISSET(here, &own.cpus)) continue;
    cpu_set_t others = own.cpus;
    CPU_CLR(here, &others);
    if (CPU_COUNT(&others) == 0) continue;
    // What is told are CPUs that are on: who has all of them must get those that come later, too.
    if (CPU_COUNT(&own.cpus) == sysconf(_SC_NPROCESSORS_ONLN)) std::memset(&own.cpus, 0xff, sizeof own.cpus);
    own.taken = pthread_setaffinity_np(worker, sizeof others, &others) == 0;
  }
#endif
}

// The caller is done and about to sleep: workers that could not begin elsewhere, where threads of higher priority may
// be at work, take its CPU. It takes being told so: a worker that waits for a CPU is not moved by being allowed others.
void ThreadPool::bring_here() noexcept {
#if defined(__linux__)
  const int here = sched_getcpu();
  for (size_t i = 0; here >= 0 && here < CPU_SETSIZE && running_ > 0 && i < workers_.size(); ++i) {
    OwnCpus& own = own_cpus_[i];
    if (!own.taken || !CPU_ISSET(here, &own.cpus)) continue;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(here, &one);
    const pthread_t worker = workers_[i].native_handle();
    pthread_setaffinity_np(worker, sizeof one, &one);
    pthread_setaffinity_np(worker, sizeof own.cpus, &own.cpus);
    own.taken = false;
  }
#endif
}

void ThreadPool::run(void (*work)(void* context, size_t part) noexcept, void* context) {
  if (workers_.empty()) return work(context, 0);
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    work_ = work;
    context_ = context;
    running_ = workers_.size();
    ++round_;
    if (wake_apart_) keep_off_this_cpu();
  }
  start_.notify_all();
  work(context, 0);
  std::unique_lock<std::mutex> lock(mutex_);
  bring_here();
  done_.wait(lock, [this] { return running_ == 0; });
}

void ThreadPool::wait_for_work(size_t part) {
  std::unique_lock<std::mutex> lock(mutex_);
  for (size_t seen = 0;;) {
    start_.wait(lock, [&] { return stopping_ || round_ != seen; });
    if (stopping_) return;
    seen = round_;
    const auto work = work_;
    void* context = context_;
#if defined(__linux__)
    const bool taken = std::exchange(own_cpus_[part - 1].taken, false);
    const cpu_set_t cpus = own_cpus_[part - 1].cpus;
#endif
    lock.unlock();
#if defined(__linux__)
    if (taken) sched_setaffinity(0, sizeof cpus, &cpus);
#endif
    work(context, part);
    lock.lock();
    if (--running_ == 0) done_.notify_one();
  }
}

}  // namespace onceover
