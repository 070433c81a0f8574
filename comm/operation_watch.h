// A deadline for operations that a device carries out by itself while the host is elsewhere: queued collectives. A
// thread looks at them in order; when one takes too long, or the library reports an error, it stops them all, so that
// whoever waits for the device comes back, and check() says what happened. It knows no device: the operations bring
// their own questions.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

namespace lomu {

struct WatchOptions {
  /// How long an operation may take from the moment it has begun on the device.
  std::chrono::milliseconds deadline = std::chrono::seconds(300);
  /// After this long a warning is given once; the operation goes on.
  std::chrono::milliseconds warn_after = std::chrono::seconds(30);
  std::chrono::milliseconds interval = std::chrono::milliseconds(20);  ///< between two looks
  /// After a failure: how long the program may take to come to check(), before `give_up` ends it.
  std::chrono::milliseconds grace = std::chrono::seconds(10);
  /// What is wrong with the library or device, if anything is. May be empty.
  std::function<std::optional<std::string>()> health;
  /// Stops all operations under way. Called once.
  std::function<void()> stop;
  std::function<void(const std::string&)> warn;
  std::function<void(const std::string&)> give_up;
};

struct WatchedOperation {
  std::string name;  ///< "rank 1 of 8 in reduce_scatter (gradients to owners, bucket 2) at step 12"
  std::function<bool()> begun;
  std::function<bool()> done;
};

class OperationWatch {
 public:
  explicit OperationWatch(WatchOptions options);
  OperationWatch(const OperationWatch&) = delete;
  OperationWatch& operator=(const OperationWatch&) = delete;
  /// Watches no more; operations under way are left alone.
  ~OperationWatch();

  /// The operations begin and end in the order in which they are added.
  void add(WatchedOperation operation);
  /// Fails as the watch itself does, for a caller that saw the error: stops everything.
  void fail(const std::string& why);
  /// Throws CommError saying why, if anything has failed.
  void check();
  /// Returns when all operations are done; throws as check() does.
  void drain();
  [[nodiscard]] bool failed() const;
  [[nodiscard]] std::uint64_t completed() const;

 private:
  void run();
  /// The next thing to say or do about the first operation, with `lock` held. Whether an operation was finished.
  bool look(std::unique_lock<std::mutex>& lock);
  void fail_locked(std::unique_lock<std::mutex>& lock, const std::string& why);

  WatchOptions options_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<WatchedOperation> operations_;
  std::optional<std::chrono::steady_clock::time_point> begun_;  ///< the first operation's
  bool warned_ = false;
  std::uint64_t completed_ = 0;
  std::string failure_;
  std::optional<std::chrono::steady_clock::time_point> failed_at_;
  bool noticed_ = false;  ///< the program has come to check()
  bool ending_ = false;
  std::thread thread_;
};

}  // namespace lomu
