#include "base/parallel.h"

#include <system_error>

#include "base/error.h"

namespace onceover {

ThreadPool::ThreadPool(size_t threads) {
  workers_.reserve(threads > 0 ? threads - 1 : 0);
  try {
    for (size_t part = 1; part < threads; ++part) {
      workers_.emplace_back([this, part] { wait_for_work(part); });
    }
  } catch (const std::system_error& error) {
    const size_t started = workers_.size() + 1;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      stopping_ = true;
    }
    start_.notify_all();
    for (std::thread& worker : workers_) worker.join();
    fail(Status::kMemory, "the system gave %zu of %zu threads (%s); ask for fewer", started, threads, error.what());
  }
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  start_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::run(void (*work)(void* context, size_t part) noexcept, void* context) {
  if (workers_.empty()) return work(context, 0);
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    work_ = work;
    context_ = context;
    running_ = workers_.size();
    ++round_;
  }
  start_.notify_all();
  work(context, 0);
  std::unique_lock<std::mutex> lock(mutex_);
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
    lock.unlock();
    work(context, part);
    lock.lock();
    if (--running_ == 0) done_.notify_one();
  }
}

}  // namespace onceover
