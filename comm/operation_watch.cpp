#include "comm/operation_watch.h"

#include <fmt/format.h>

#include <utility>

#include "kernels/error.h"

namespace lomu {
namespace {

using std::chrono::steady_clock;

double seconds(std::chrono::milliseconds time) {
  return std::chrono::duration<double>(time).count();
}

}  // namespace

OperationWatch::OperationWatch(WatchOptions options) : options_(std::move(options)), thread_([this] { run(); }) {}

OperationWatch::~OperationWatch() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void OperationWatch::add(WatchedOperation operation) {
  check();
  {
    const std::lock_guard lock(mutex_);
    operations_.push_back(std::move(operation));
  }
  changed_.notify_all();
}

void OperationWatch::fail(const std::string& why) {
  std::unique_lock lock(mutex_);
  noticed_ = true;
  fail_locked(lock, why);
}

void OperationWatch::check() {
  const std::lock_guard lock(mutex_);
  if (!failed_at_) return;
  noticed_ = true;
  throw CommError(failure_, {},
                  "a rank has ended, hangs or is far slower than the others: see the other ranks' messages; "
                  "LOMU_COMM_DEADLINE_S sets the limit in seconds");
}

void OperationWatch::drain() {
  std::unique_lock lock(mutex_);
  while (!operations_.empty() && !failed_at_) changed_.wait(lock);
  lock.unlock();
  check();
}

bool OperationWatch::failed() const {
  const std::lock_guard lock(mutex_);
  return failed_at_.has_value();
}

std::uint64_t OperationWatch::completed() const {
  const std::lock_guard lock(mutex_);
  return completed_;
}

void OperationWatch::run() {
  std::unique_lock lock(mutex_);
  while (!ending_) {
    if (failed_at_) {
      if (!noticed_ && steady_clock::now() - *failed_at_ >= options_.grace && options_.give_up) {
        noticed_ = true;
        options_.give_up(failure_);
      }
      changed_.wait_for(lock, options_.interval);
    } else if (operations_.empty()) {
      changed_.wait(lock);
    } else if (!look(lock)) {
      changed_.wait_for(lock, options_.interval);
    }
  }
}

bool OperationWatch::look(std::unique_lock<std::mutex>& lock) {
  if (options_.health) {
    if (const auto trouble = options_.health()) {
      fail_locked(lock, fmt::format("{}: {}", operations_.front().name, *trouble));
      return false;
    }
  }
  const WatchedOperation& first = operations_.front();
  if (first.done()) {
    operations_.pop_front();
    begun_.reset();
    warned_ = false;
    ++completed_;
    changed_.notify_all();
    return true;
  }
  if (!begun_) {
    if (first.begun()) begun_ = steady_clock::now();
    return false;
  }
  const auto taken = steady_clock::now() - *begun_;
  if (taken >= options_.deadline) {
    fail_locked(lock, fmt::format("{} waited {:g} s for other ranks", first.name, seconds(options_.deadline)));
  } else if (taken >= options_.warn_after && !warned_ && options_.warn) {
    warned_ = true;
    options_.warn(
        fmt::format("{} has waited {:g} s for other ranks; it goes on", first.name, seconds(options_.warn_after)));
  }
  return false;
}

void OperationWatch::fail_locked(std::unique_lock<std::mutex>& lock, const std::string& why) {
  if (failed_at_) return;
  failure_ = why;
  failed_at_ = steady_clock::now();
  if (options_.stop) {
    // It may take a while, and check() must not wait for it.
    lock.unlock();
    options_.stop();
    lock.lock();
  }
  changed_.notify_all();
}

}  // namespace lomu
