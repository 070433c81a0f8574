// The emulator itself: it must name every fault that it can see, whatever the schedule, and go on working after it.
#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

#include "kernels/cuda/emulation/runtime.h"
#include "kernels/cuda/emulation/schedule.h"
#include "tests/kernels/cuda/emulator_defects.h"

namespace lomu::emu {
namespace {

// What the launch's failure says; "wrong result" if only the output shows it; empty if nothing was noticed.
std::string noticed(const char* defect) {
  try {
    run_defect(defect);
  } catch (const LaunchFailure& e) {
    return e.what();
  } catch (const WrongResult&) {
    return "wrong result";
  }
  return {};
}

struct Named {
  const char* defect;
  const char* text;
};
void PrintTo(const Named& n, std::ostream* out) {
  *out << n.defect;
}

class EmulatorNames : public testing::TestWithParam<Named> {};

TEST_P(EmulatorNames, TheFaultUnderEverySchedule) {
  for_each_schedule([](unsigned seed) {
    SCOPED_TRACE(seed);
    const std::string said = noticed(GetParam().defect);
    EXPECT_NE(said.find(GetParam().text), std::string::npos) << said;
    EXPECT_NE(said.find("emulator_defects.cpp:"), std::string::npos) << said;
    EXPECT_EQ(noticed("correct_rotate"), "") << "the emulator must stay usable";
  });
}

INSTANTIATE_TEST_SUITE_P(
    , EmulatorNames,
    testing::Values(Named{"divergent_barrier", "divergent barrier: thread "},
                    Named{"early_return", "24 threads have ended"}, Named{"not_in_mask", "is not in its mask 0xff"},
                    Named{"mask_too_wide", "no thread of the block can go on"},
                    Named{"inactive_lane", "reads lane 20, which does not take part"},
                    Named{"named_barrier_of_part", "40 threads expected, which is no number of whole"},
                    Named{"mma_by_sixteen", "no thread of the block can go on"},
                    Named{"shared_too_much", "launched with 256"}, Named{"misaligned_load", "is not a multiple of 16"},
                    Named{"copy_never_lands", "a thread ended with 1 cp.async in flight"}),
    [](const auto& named) { return std::string(named.param.defect); });

TEST(Emulator, AcceptsCorrectKernelsUnderEverySchedule) {
  for (const Defect& d : emulator_defects()) {
    if (std::string(d.name) == "none") break;
    for_each_schedule([&](unsigned seed) { EXPECT_EQ(noticed(d.name), "") << d.name << ", schedule " << seed; });
  }
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)

// Wrong results that no schedule hides. What only some schedules show, or none, is left to the sanitizers.
TEST(Emulator, ShowsInTheResult) {
  for (const char* defect : {"missing_barrier", "missing_second_barrier", "uninitialised", "missing_wait"}) {
    for_each_schedule([&](unsigned seed) { EXPECT_EQ(noticed(defect), "wrong result") << defect << ", " << seed; });
  }
}

TEST(Emulator, ShowsInTheResultOfSomeSchedule) {
  bool noticed_once = false;
  for_each_schedule([&](unsigned) { noticed_once |= !noticed("named_barrier_of_one_side").empty(); });
  EXPECT_TRUE(noticed_once);
}

using EmulatorDeathTest = testing::Test;
TEST(EmulatorDeathTest, NamesAStackOverflow) {
  EXPECT_DEATH(run_defect("stack_overflow"), "stack overflow in thread 0 of block 0,0,0");
}

#endif

void nothing(void*) {}

TEST(Emulator, RefusesSizesThatNoDeviceTakes) {
  const auto refused = [](dim3 grid, dim3 block, std::size_t shared) {
    EXPECT_THROW(run_grid(grid, block, shared, nothing, nullptr), LaunchFailure);
  };
  refused({1}, {0}, 0);
  refused({0}, {32}, 0);
  refused({1}, {1025}, 0);
  refused({1}, {32, 33}, 0);
  refused({1}, {1, 1, 65}, 0);
  refused({1}, {1u << 31, 2, 2}, 0);
  refused({1, 65536}, {32}, 0);
  refused({1, 1, 65536}, {32}, 0);
  refused({1u << 31}, {32}, 0);
  refused({1}, {32}, 228 * 1024);
  run_grid({2, 2, 2}, {4, 4, 4}, 227 * 1024, nothing, nullptr);
  run_grid({1}, {1024}, 0, nothing, nullptr);
}

TEST(Emulator, TakesLaunchesFromSeveralThreads) {
  std::vector<std::string> said(4);
  {
    std::vector<std::jthread> threads;
    for (std::string& s : said) {
      threads.emplace_back([&s] {
        for (int i = 0; i < 20; ++i) s += noticed("correct_rotate");
      });
    }
  }
  for (const std::string& s : said) EXPECT_EQ(s, "");
}

TEST(Emulator, RepeatsASchedule) {
  const auto cost = [](unsigned seed) {
    const ScheduleScope scope(seed);
    const long before = switch_count();
    run_defect("correct_hand_over");
    return switch_count() - before;
  };
  for (unsigned seed = 0; seed < 6; ++seed) EXPECT_EQ(cost(seed), cost(seed)) << seed;
}

}  // namespace
}  // namespace lomu::emu
