// Deadlines of operations that a device carries out: which one is named, when it counts, and what becomes of a program
// that does not ask.
#include "comm/operation_watch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <vector>

#include "kernels/error.h"

namespace lomu {
namespace {

using std::chrono::milliseconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// An operation that a test lets begin and end.
struct Fake {
  std::atomic<bool> begun{false}, done{false};
};
WatchedOperation watched(Fake& fake, std::string name) {
  return {std::move(name), [&fake] { return fake.begun.load(); }, [&fake] { return fake.done.load(); }};
}

WatchOptions quick() {
  WatchOptions options;
  options.deadline = milliseconds(100);
  options.warn_after = milliseconds(30);
  options.interval = milliseconds(1);
  return options;
}

template <class Condition>
bool soon(Condition condition) {
  for (int i = 0; i < 3000 && !condition(); ++i) std::this_thread::sleep_for(milliseconds(1));
  return condition();
}

std::string failure_of(OperationWatch& watch) {
  try {
    watch.drain();
  } catch (const CommError& error) {
    return error.what();
  }
  return "none";
}

TEST(OperationWatch, CountsWhatIsDoneInOrder) {
  Fake first, second;
  OperationWatch watch(quick());
  watch.add(watched(first, "first"));
  watch.add(watched(second, "second"));
  second.done = true;
  std::this_thread::sleep_for(milliseconds(20));
  EXPECT_EQ(watch.completed(), 0u);
  first.done = true;
  EXPECT_EQ(failure_of(watch), "none");
  EXPECT_EQ(watch.completed(), 2u);
}

TEST(OperationWatch, ADeadlineCountsFromTheBeginningAndNamesTheOperation) {
  Fake waiting;
  std::atomic<int> stopped = 0;
  WatchOptions options = quick();
  options.stop = [&] { ++stopped; };
  OperationWatch watch(options);
  watch.add(watched(waiting, "rank 1 of 3 in reduce_scatter (bucket 2) at step 12"));
  std::this_thread::sleep_for(milliseconds(150));
  EXPECT_NO_THROW(watch.check()) << "it has not begun: backward may take as long as it likes";
  waiting.begun = true;
  EXPECT_THAT(failure_of(watch), HasSubstr("rank 1 of 3 in reduce_scatter (bucket 2) at step 12 waited 0.1 s"));
  EXPECT_EQ(stopped, 1);
  EXPECT_THROW(watch.add(watched(waiting, "next")), CommError);
}

TEST(OperationWatch, WarnsOnceOfWhatIsSlowAndLetsItGoOn) {
  Fake slow;
  std::mutex mutex;
  std::vector<std::string> warnings;
  WatchOptions options = quick();
  options.deadline = std::chrono::seconds(20);
  options.warn = [&](const std::string& text) {
    const std::lock_guard lock(mutex);
    warnings.push_back(text);
  };
  OperationWatch watch(options);
  slow.begun = true;
  watch.add(watched(slow, "all_gather at step 3"));
  std::this_thread::sleep_for(milliseconds(100));
  slow.done = true;
  EXPECT_EQ(failure_of(watch), "none");
  const std::lock_guard lock(mutex);
  EXPECT_THAT(warnings, ElementsAre(HasSubstr("all_gather at step 3 has waited 0.03 s")));
}

TEST(OperationWatch, AnErrorOfTheLibraryStopsEverything) {
  Fake running;
  std::atomic<bool> broken = false, stopped = false;
  WatchOptions options = quick();
  options.health = [&]() -> std::optional<std::string> {
    if (broken) return "remote process exited";
    return std::nullopt;
  };
  options.stop = [&] { stopped = true; };
  OperationWatch watch(options);
  watch.add(watched(running, "exchange at step 4"));
  broken = true;
  EXPECT_EQ(failure_of(watch), "exchange at step 4: remote process exited");
  EXPECT_TRUE(soon([&] { return stopped.load(); }));
}

TEST(OperationWatch, AProgramThatDoesNotAskIsEnded) {
  Fake stuck;
  stuck.begun = true;
  std::atomic<int> given_up = 0;
  WatchOptions options = quick();
  options.grace = milliseconds(50);
  options.give_up = [&](const std::string& why) { given_up += why.find("exchange") != std::string::npos ? 1 : 100; };
  OperationWatch watch(options);
  watch.add(watched(stuck, "exchange"));
  EXPECT_TRUE(soon([&] { return given_up == 1; }));
  EXPECT_TRUE(watch.failed());
}

TEST(OperationWatch, AProgramThatAsksMayEndByItself) {
  Fake stuck;
  stuck.begun = true;
  std::atomic<int> given_up = 0;
  WatchOptions options = quick();
  options.grace = milliseconds(50);
  options.give_up = [&](const std::string&) { ++given_up; };
  OperationWatch watch(options);
  watch.add(watched(stuck, "exchange"));
  EXPECT_NE(failure_of(watch), "none");
  std::this_thread::sleep_for(milliseconds(100));
  EXPECT_EQ(given_up, 0);
}

TEST(OperationWatch, TakesAFailureFromOutside) {
  bool stopped = false;
  WatchOptions options = quick();
  options.stop = [&] { stopped = true; };
  OperationWatch watch(options);
  watch.fail("cannot connect");
  EXPECT_TRUE(stopped);
  EXPECT_EQ(failure_of(watch), "cannot connect");
}

}  // namespace
}  // namespace lomu
