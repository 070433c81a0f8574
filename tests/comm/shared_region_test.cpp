// Read-only bytes held once per host.
#include "comm/shared_region.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <stdexcept>

#include "comm/thread_communicator.h"

namespace lomu {
namespace {

using ::testing::HasSubstr;

void fill_pattern(std::span<std::byte> bytes) {
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * 7 % 251);
}

bool has_pattern(std::span<const std::byte> bytes) {
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    if (bytes[i] != static_cast<std::byte>(i * 7 % 251)) return false;
  }
  return true;
}

TEST(SharedRegion, EveryRankReadsWhatTheLeaderWroteOnce) {
  for (const int world : {1, 2, 5}) {
    for (const std::size_t bytes : {std::size_t{1}, std::size_t{4097}, std::size_t{5} << 20}) {
      std::atomic<int> fills{0};
      run_threads(world, [&](Communicator& comm) {
        const SharedRegion region = SharedRegion::create(comm, bytes, "weights", [&](std::span<std::byte> memory) {
          ++fills;
          fill_pattern(memory);
        });
        EXPECT_EQ(region.bytes().size(), bytes);
        EXPECT_TRUE(has_pattern(region.bytes()));
        EXPECT_TRUE(region.shared()) << region.note();
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(region.bytes().data()) % (2u << 20), 0u);
      });
      EXPECT_EQ(fills, 1);
    }
  }
}

TEST(SharedRegion, OutlivesTheLeadersOwnMapping) {
  run_threads(3, [](Communicator& comm) {
    SharedRegion region = SharedRegion::create(comm, 10'000, "weights", fill_pattern);
    if (comm.rank() == 0) region = SharedRegion();
    comm.barrier();
    if (comm.rank() > 0) {
      EXPECT_TRUE(has_pattern(region.bytes()));
    }
  });
}

TEST(SharedRegion, MovesKeepOneOwner) {
  const auto comm = make_self_communicator();
  SharedRegion first = SharedRegion::create(*comm, 100, "a", fill_pattern);
  SharedRegion second = std::move(first);
  EXPECT_TRUE(has_pattern(second.bytes()));
  EXPECT_EQ(second.bytes().size(), 100u);
  second = SharedRegion::create(*comm, 50, "b", fill_pattern);
  EXPECT_EQ(second.bytes().size(), 50u);
}

TEST(SharedRegion, NoBytesNeedNoMemory) {
  run_threads(2, [](Communicator& comm) {
    const SharedRegion region = SharedRegion::create(comm, 0, "none", [](std::span<std::byte>) { FAIL(); });
    EXPECT_TRUE(region.bytes().empty());
  });
}

TEST(SharedRegion, AFailedFillBecomesTheSameErrorOnEveryRankAtOnce) {
  const auto start = std::chrono::steady_clock::now();
  std::atomic<int> thrown{0};
  EXPECT_THROW(run_threads(4,
                           [&](Communicator& comm) {
                             try {
                               SharedRegion::create(comm, 1000, "weights", [](std::span<std::byte>) {
                                 throw FormatError("tensor data ends early", "model.gguf", "download it again");
                               });
                             } catch (const AgreedError& error) {
                               ++thrown;
                               EXPECT_THAT(error.what(), HasSubstr("tensor data ends early"));
                               EXPECT_EQ(error.where(), "model.gguf");
                               throw;
                             }
                           }),
               AgreedError);
  EXPECT_EQ(thrown, 4);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(2));
}

TEST(SharedRegion, DifferentSizesAreRefused) {
  EXPECT_THROW(run_threads(2,
                           [](Communicator& comm) {
                             const std::size_t bytes = comm.rank() == 0 ? 1000 : 9'000'000;
                             SharedRegion::create(comm, bytes, "weights", fill_pattern);
                           }),
               AgreedError);
}

TEST(SharedRegion, MoreMemoryThanThereIsIsAClearError) {
  for (const std::size_t bytes : {std::size_t{1} << 46, static_cast<std::size_t>(-1), std::size_t{1} << 62}) {
    for (const int world : {1, 2}) {
      try {
        run_threads(world, [&](Communicator& comm) {
          SharedRegion::create(comm, bytes, "weights", [](std::span<std::byte>) { FAIL(); });
        });
        FAIL();
      } catch (const Error& error) {
        EXPECT_THAT(error.what(), HasSubstr("not enough memory for weights"));
        EXPECT_FALSE(error.hint().empty());
      }
    }
  }
}

// Sanitizers need descriptors, and memory faults, for themselves.
#if !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
TEST(SharedRegion, WithoutAMemoryFileEveryRankFillsItsOwnCopy) {
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit none{0, before.rlim_max};
  std::atomic<int> fills{0};
  run_threads(3, [&](Communicator& comm) {
    if (comm.rank() == 0) {
      ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
    }
    const SharedRegion region = SharedRegion::create(comm, 5000, "weights", [&](std::span<std::byte> memory) {
      ++fills;
      fill_pattern(memory);
    });
    if (comm.rank() == 0) {
      ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
    }
    EXPECT_TRUE(has_pattern(region.bytes()));
    EXPECT_FALSE(region.shared());
    EXPECT_THAT(region.note(), HasSubstr("no memory file"));
  });
  EXPECT_EQ(fills, 3);
}

TEST(SharedRegionDeathTest, NobodyCanWriteAfterwards) {
  const auto comm = make_self_communicator();
  const SharedRegion region = SharedRegion::create(*comm, 100, "weights", fill_pattern);
  auto* const writable = const_cast<std::byte*>(region.bytes().data());
  EXPECT_DEATH(*writable = std::byte{1}, "");
}
#endif

}  // namespace
}  // namespace lomu
