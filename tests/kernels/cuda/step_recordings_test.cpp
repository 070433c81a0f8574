// Recorded micro-batches: what is replayed equals what would have been computed, and what cannot be replayed is not.
#include "kernels/cuda/step_recordings.h"

#include <gtest/gtest.h>

#include <array>
#include <stdexcept>
#include <vector>

#include "kernels/cuda/device.h"
#include "kernels/cuda/rows.h"
#include "kernels/error.h"

namespace lomu::cuda {
namespace {

class StepRecordingsTest : public testing::Test {
 protected:
  StepRecordingsTest()
      : device_(make_emulated_device()),
        memory_(device_->storage()),
        scratch_(memory_),
        uploads_(memory_),
        recordings_(device_->make_recorder(), uploads_, scratch_),
        table_(kRows) {
    for (std::size_t i = 0; i < table_.size(); ++i) table_[i] = static_cast<float>(i * i);
  }

  /// out[i] = table[rows[i]], by a kernel that reads the rows on the device; whether the body ran.
  bool gather(std::uint64_t key) {
    bool ran = false;
    const std::array<std::span<const std::int32_t>, 1> arrays{rows_};
    recordings_.run(key, arrays, [&] {
      ran = true;
      gather_rows<float>({table_.data(), 1}, uploads_.on_device(std::span<const std::int32_t>(rows_)), {out_.data(), 1},
                         static_cast<std::int64_t>(rows_.size()), 1, device_->stream());
    });
    return ran;
  }

  void expect_gathered() const {
    for (std::size_t i = 0; i < rows_.size(); ++i) {
      EXPECT_EQ(out_[i], table_[static_cast<std::size_t>(rows_[i])]);
    }
  }

  static constexpr std::size_t kRows = 50;
  std::unique_ptr<Device> device_;
  Memory memory_;
  Scratch scratch_;
  Uploads uploads_;
  StepRecordings recordings_;
  std::vector<float> table_;
  std::vector<std::int32_t> rows_ = {1, 2, 3};
  std::vector<float> out_ = std::vector<float>(3);
};

TEST_F(StepRecordingsTest, TheThirdOfAKeyIsReplayedWithWhatTheArraysHoldThen) {
  for (int i = 0; i < 6; ++i) {
    rows_ = {7 * i % 50, 11 * i % 50, 13 * i % 50};
    out_.assign(3, -1.0F);
    EXPECT_EQ(gather(1), i < 2) << i;
    expect_gathered();
  }
  EXPECT_EQ(recordings_.replays(), 4u);
}

TEST_F(StepRecordingsTest, EachKeyHasItsOwn) {
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(gather(1), i < 2);
    EXPECT_EQ(gather(2), i < 2);
  }
  EXPECT_EQ(recordings_.replays(), 2u);
}

TEST_F(StepRecordingsTest, ScratchThatMovedForgetsWhatWorkedInIt) {
  gather(1);
  gather(1);
  EXPECT_FALSE(gather(1));
  scratch_.bytes(Slot::kWide, 1000);
  EXPECT_TRUE(gather(1));
  expect_gathered();
}

TEST_F(StepRecordingsTest, ABodyThatWaitsIsNeverRecorded) {
  float value = 0;
  int runs = 0;
  for (int i = 0; i < 4; ++i) {
    recordings_.run(1, {}, [&] {
      ++runs;
      memory_.storage().download(&value, table_.data() + 1, sizeof value);
    });
    EXPECT_EQ(value, 1.0F);
  }
  EXPECT_EQ(recordings_.replays(), 0u);
  EXPECT_EQ(runs, 5);  // one of them the attempt
}

TEST_F(StepRecordingsTest, ArraysOfRecordedWorkStayWhileOthersComeAndGo) {
  const std::vector<std::int32_t> unbound = {4, 5, 6};
  const auto body = [&] {
    gather_rows<float>({table_.data(), 1}, uploads_.on_device(std::span<const std::int32_t>(unbound)), {out_.data(), 1},
                       3, 1, device_->stream());
  };
  recordings_.run(1, {}, body);
  recordings_.run(1, {}, body);
  for (std::int32_t i = 0; i < 100; ++i) (void)uploads_.on_device(std::span<const std::int32_t>(&i, 1));
  out_.assign(3, -1.0F);
  recordings_.run(1, {}, body);
  EXPECT_EQ(recordings_.replays(), 1u);
  EXPECT_EQ(out_, (std::vector<float>{16, 25, 36}));
}

TEST_F(StepRecordingsTest, OnlyTheLastFewAreKept) {
  for (std::uint64_t key = 0; key < 20; ++key) {
    gather(key);
    gather(key);
  }
  EXPECT_FALSE(gather(19));
  EXPECT_TRUE(gather(0));
  expect_gathered();
}

TEST_F(StepRecordingsTest, AnErrorOfABodyIsTheCallers) {
  EXPECT_THROW(recordings_.run(1, {}, [] { throw std::runtime_error("no"); }), std::runtime_error);
  EXPECT_TRUE(gather(2));
  EXPECT_TRUE(gather(2));
  EXPECT_FALSE(gather(2));
}

}  // namespace
}  // namespace lomu::cuda
