#include "comba/parallel.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "base/message.h"

namespace comba {
namespace {

int available_processors() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1u, std::thread::hardware_concurrency());
}

/// Threads that wait for a loop, run one contiguous range of it each, and wait again.
class ThreadPool {
 public:
  explicit ThreadPool(int num_threads) {
    threads_.reserve(num_threads - 1);
    try {
      for (int i = 1; i < num_threads; ++i) threads_.emplace_back([this, i] { serve(i); });
    } catch (const std::exception&) {
      // The system has no more threads to give: loops run on those that started.
    }
    num_threads_ = 1 + static_cast<int>(threads_.size());
  }

  ~ThreadPool() {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    start_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  void run(std::int64_t count, const RangeBody& body) {
    {
      std::lock_guard lock(mutex_);
      count_ = count;
      body_ = &body;
      running_ = num_threads_ - 1;
      failure_ = nullptr;
      ++loop_;
    }
    start_.notify_all();
    run_range(0);
    std::unique_lock lock(mutex_);
    done_.wait(lock, [this] { return running_ == 0; });
    if (failure_) std::rethrow_exception(failure_);
  }

 private:
  void serve(int index) {
    std::uint64_t seen = 0;
    while (true) {
      {
        std::unique_lock lock(mutex_);
        start_.wait(lock, [&] { return stopping_ || loop_ != seen; });
        if (stopping_) return;
        seen = loop_;
      }
      run_range(index);
      std::lock_guard lock(mutex_);
      if (--running_ == 0) done_.notify_one();
    }
  }

  void run_range(int index) {
    const std::int64_t begin = count_ * index / num_threads_;
    const std::int64_t end = count_ * (index + 1) / num_threads_;
    if (begin == end) return;
    try {
      (*body_)(begin, end);
    } catch (...) {
      std::lock_guard lock(mutex_);
      if (!failure_) failure_ = std::current_exception();
    }
  }

  std::vector<std::thread> threads_;
  int num_threads_ = 1;  // with the one that calls run()
  std::mutex mutex_;
  std::condition_variable start_, done_;
  // Written under the mutex before a loop starts; read by its threads until `running_` is 0.
  std::int64_t count_ = 0;
  const RangeBody* body_ = nullptr;
  std::exception_ptr failure_;
  std::uint64_t loop_ = 0;
  int running_ = 0;
  bool stopping_ = false;
};

/// The process-wide choice between hook and pool. The pool starts its threads when first needed.
struct Backend {
  std::mutex in_use;  // held by the one loop that runs on the pool
  std::unique_ptr<ThreadPool> pool;
  int pool_threads = available_processors();
  ParallelFor hook;
  int hook_threads = 1;
};

Backend& backend() {
  static Backend instance;
  return instance;
}

/// A child process has the pool's memory and none of its threads, and perhaps a lock that nobody will release.
void forget_pool_in_child() {
  backend().pool.release();
  std::construct_at(&backend().in_use);
}

thread_local bool inside_loop = false;

struct InsideLoop {
  InsideLoop() { inside_loop = true; }
  ~InsideLoop() { inside_loop = false; }
};

}  // namespace

void set_parallel_for(ParallelFor hook, int num_threads) {
  require(num_threads >= 1, ErrorCode::invalid_argument, "[set_parallel_for] num_threads must be at least 1; got ",
          num_threads);
  backend().hook = std::move(hook);
  backend().hook_threads = num_threads;
}

void set_num_threads(int num_threads) {
  require(num_threads >= 1, ErrorCode::invalid_argument, "[set_num_threads] num_threads must be at least 1; got ",
          num_threads);
  backend().pool.reset();
  backend().pool_threads = num_threads;
}

int num_threads() { return backend().hook ? backend().hook_threads : backend().pool_threads; }

void parallel_for(std::int64_t count, const RangeBody& body) {
  if (count <= 0) return;
  if (inside_loop || count == 1) return body(0, count);
  const RangeBody guarded = [&body](std::int64_t begin, std::int64_t end) {
    const InsideLoop guard;
    body(begin, end);
  };
  Backend& b = backend();
  if (b.hook) return b.hook(count, guarded);
  const std::unique_lock lock(b.in_use, std::try_to_lock);
  if (b.pool_threads == 1 || !lock.owns_lock()) return guarded(0, count);
  if (!b.pool) {
    [[maybe_unused]] static const int registered = pthread_atfork(nullptr, nullptr, forget_pool_in_child);
    b.pool = std::make_unique<ThreadPool>(b.pool_threads);
  }
  b.pool->run(count, guarded);
}

}  // namespace comba
