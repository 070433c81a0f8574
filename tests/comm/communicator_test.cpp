// Communicator over self and threads: what arrives where, and how failures travel.
#include "comm/communicator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <limits>
#include <numeric>
#include <thread>
#include <vector>

#include "comm/thread_communicator.h"

namespace lomu {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr int kWorlds[] = {1, 2, 3, 4, 5, 8};

template <class T>
std::span<const std::byte> bytes_of(const std::vector<T>& values) {
  return std::as_bytes(std::span(values));
}
template <class T>
std::span<std::byte> bytes_of(std::vector<T>& values) {
  return std::as_writable_bytes(std::span(values));
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Runs the ranks and returns the message of the error that run_threads rethrows.
std::string failure_of(int ranks, const std::function<void(Communicator&)>& body, const CommOptions& options = {}) {
  try {
    run_threads(ranks, body, options);
  } catch (const std::exception& error) {
    return error.what();
  }
  return "no error";
}

TEST(ThreadCommunicator, RanksKnowTheirPlace) {
  for (const int world : kWorlds) {
    std::atomic<int> seen{0};
    run_threads(world, [&](Communicator& comm) {
      EXPECT_EQ(comm.size(), world);
      EXPECT_EQ(comm.local_size(), world);
      EXPECT_EQ(comm.local_rank(), comm.rank());
      EXPECT_EQ(comm.local_leader(), 0);
      seen += 1 << comm.rank();
    });
    EXPECT_EQ(seen, (1 << world) - 1);
  }
}

TEST(ThreadCommunicator, BarrierHoldsEveryRankUntilTheLastArrives) {
  std::atomic<int> arrived{0};
  run_threads(5, [&](Communicator& comm) {
    for (int round = 1; round <= 50; ++round) {
      ++arrived;
      comm.barrier();
      EXPECT_GE(arrived, 5 * round);
    }
  });
}

TEST(ThreadCommunicator, BroadcastReachesAllFromAnyRoot) {
  for (const int world : kWorlds) {
    run_threads(world, [&](Communicator& comm) {
      for (int root = 0; root < world; ++root) {
        std::vector<int> values(1000, comm.rank());
        comm.broadcast(bytes_of(values), root);
        EXPECT_EQ(values, std::vector<int>(1000, root));
      }
    });
  }
}

TEST(ThreadCommunicator, AllGathervPutsUnevenPartsInRankOrder) {
  for (const int world : kWorlds) {
    run_threads(world, [&](Communicator& comm) {
      std::vector<std::size_t> counts;
      std::vector<char> expected;
      for (int k = 0; k < world; ++k) {
        counts.push_back(static_cast<std::size_t>(k * k % 5));  // some ranks have nothing
        expected.insert(expected.end(), counts.back(), static_cast<char>('a' + k));
      }
      const std::vector<char> mine(counts[static_cast<std::size_t>(comm.rank())], static_cast<char>('a' + comm.rank()));
      std::vector<char> all(expected.size());
      comm.all_gatherv(bytes_of(mine), bytes_of(all), counts);
      EXPECT_EQ(all, expected);
    });
  }
}

TEST(ThreadCommunicator, ExchangeNeverDeadlocksOnOrder) {
  for (const int world : kWorlds) {
    run_threads(world, [&](Communicator& comm) {
      std::vector<int> out(static_cast<std::size_t>(2 * world)), in(out.size(), -1);
      std::vector<Outgoing> sends;
      std::vector<Incoming> receives;
      for (int other = 0; other < world; ++other) {
        for (int i = 0; i < 2; ++i) {
          const auto at = static_cast<std::size_t>(2 * other + i);
          out[at] = 1000 * comm.rank() + 10 * other + i;
          sends.push_back({other, &out[at], sizeof(int)});
          receives.insert(receives.begin() + i, {other, &in[at], sizeof(int)});
        }
      }
      comm.exchange(sends, receives, 7);
      for (int other = 0; other < world; ++other) {
        for (int i = 0; i < 2; ++i) {
          EXPECT_EQ(in[static_cast<std::size_t>(2 * other + i)], 1000 * other + 10 * comm.rank() + i);
        }
      }
    });
  }
}

TEST(ThreadCommunicator, AMessageOfAnotherTagIsNotTaken) {
  CommOptions options;
  options.deadline = std::chrono::milliseconds(50);
  EXPECT_THAT(failure_of(
                  2,
                  [](Communicator& comm) {
                    std::vector<int> value{5};
                    if (comm.rank() == 0) comm.send(bytes_of(value), 1, 1);
                    if (comm.rank() == 1) comm.recv(bytes_of(value), 0, 2);
                  },
                  options),
              HasSubstr("waited"));
}

TEST(Communicator, SumsAndMaximaAreTheSameOnEveryRank) {
  for (const int world : kWorlds) {
    run_threads(world, [&](Communicator& comm) {
      const double mine = std::ldexp(1.0, 20 * comm.rank()) / 3.0;
      double ordered = 0.0;
      for (int k = 0; k < world; ++k) ordered += std::ldexp(1.0, 20 * k) / 3.0;
      std::vector<double> sum{mine, -mine};
      comm.all_reduce_sum_ordered(sum);
      EXPECT_EQ(sum[0], ordered);
      EXPECT_EQ(sum[1], -ordered);

      std::vector<std::int64_t> counts{comm.rank() + 1, std::int64_t{1} << 53};
      comm.all_reduce_sum(counts);
      EXPECT_EQ(counts[0], world * (world + 1) / 2);
      EXPECT_EQ(counts[1], world * (std::int64_t{1} << 53));

      std::vector<double> largest{static_cast<double>(comm.rank()), comm.rank() == world - 1 ? std::nan("") : 1e9};
      comm.all_reduce_max(largest);
      EXPECT_EQ(largest[0], world - 1);
      EXPECT_TRUE(std::isnan(largest[1]));
    });
  }
}

TEST(Communicator, AnIntegerSumThatOverflowsIsAnError) {
  EXPECT_THAT(failure_of(2,
                         [](Communicator& comm) {
                           std::vector<std::int64_t> values{std::numeric_limits<std::int64_t>::max()};
                           comm.all_reduce_sum(values);
                         }),
              HasSubstr("overflow"));
}

TEST(Self, IsAWorldOfOne) {
  const auto comm = make_self_communicator();
  comm->barrier();
  std::vector<int> values{1, 2, 3}, all(3), back(3);
  comm->broadcast(bytes_of(values), 0);
  comm->all_gather(bytes_of(values), bytes_of(all));
  EXPECT_EQ(all, values);
  comm->exchange(std::vector<Outgoing>{{0, values.data(), 12}}, std::vector<Incoming>{{0, back.data(), 12}}, 0);
  EXPECT_EQ(back, values);
  EXPECT_THROW(comm->send(bytes_of(values), 0, 0), CommError);
  EXPECT_THROW(comm->send(bytes_of(values), 1, 0), CommError);
  EXPECT_EQ(comm->together([] { return 5; }), 5);
}

TEST(Self, AnErrorPassesTogetherUnchanged) {
  const auto comm = make_self_communicator();
  EXPECT_THROW(comm->together([] { throw FormatError("bad header", "model.gguf"); }), FormatError);
}

TEST(Failure, ARankThatThrowsBeforeACollectiveEndsAllAndIsNamed) {
  for (const int world : {2, 3, 5, 8}) {
    const auto start = std::chrono::steady_clock::now();
    std::vector<std::string> seen(static_cast<std::size_t>(world));
    const std::string message = failure_of(world, [&](Communicator& comm) {
      comm.set_context("step 12");
      if (comm.rank() == 1) throw NumericError("the loss is not a number", "step 12");
      try {
        comm.barrier("before the step");
      } catch (const CommError& error) {
        seen[static_cast<std::size_t>(comm.rank())] = error.what();
        throw;
      }
    });
    EXPECT_EQ(message, "the loss is not a number");
    EXPECT_LT(seconds_since(start), 2.0);
    for (int rank = 0; rank < world; ++rank) {
      if (rank == 1) continue;
      EXPECT_THAT(seen[static_cast<std::size_t>(rank)],
                  AllOf(HasSubstr("rank 1 failed"), HasSubstr("the loss is not a number"), HasSubstr("before the step"),
                        HasSubstr("step 12")));
    }
  }
}

TEST(Failure, ARankThatThrowsWhileOthersCopyLargeMessagesEndsAll) {
  // Rank 2 fails at random points of many exchanges whose buffers live on the stacks that unwind.
  for (int round = 0; round < 30; ++round) {
    const std::string message = failure_of(4, [&](Communicator& comm) {
      for (int i = 0; i < 50; ++i) {
        std::vector<int> mine(20'000, comm.rank()), all(80'000);
        if (comm.rank() == 2 && i == round) throw Error("rank 2 gives up");
        comm.all_gather(bytes_of(mine), bytes_of(all));
        EXPECT_EQ(all[0], 0);
        EXPECT_EQ(all[79'999], 3);
      }
    });
    EXPECT_EQ(message, "rank 2 gives up");
  }
}

TEST(Failure, ARankThatEndsEarlyFailsThoseThatWaitForIt) {
  EXPECT_THAT(failure_of(3,
                         [](Communicator& comm) {
                           if (comm.rank() != 1) comm.barrier();
                         }),
              HasSubstr("rank 1 has ended"));
}

TEST(Failure, AHangMeetsTheDeadlineAndNamesRankOperationAndStep) {
  CommOptions options;
  options.deadline = std::chrono::milliseconds(100);
  const std::string message = failure_of(
      2,
      [](Communicator& comm) {
        comm.set_context("step 3");
        if (comm.rank() == 1) std::this_thread::sleep_for(std::chrono::milliseconds(500));
        comm.barrier("checkpoint");
      },
      options);
  EXPECT_THAT(message,
              AllOf(HasSubstr("rank 0 of 2 waited 0.1 s in barrier (checkpoint) at step 3"), HasSubstr("rank 1")));
}

TEST(Failure, MessagesOfDifferentSizesAreRefused) {
  EXPECT_THAT(failure_of(2,
                         [](Communicator& comm) {
                           std::vector<int> values(comm.rank() == 0 ? 3 : 4);
                           comm.broadcast(bytes_of(values), 0);
                         }),
              HasSubstr("rank 0 sends 12 bytes but rank 1 expects 16"));
}

TEST(Failure, AbortNamesTheReason) {
  testing::internal::CaptureStderr();
  const std::string message = failure_of(2, [](Communicator& comm) {
    if (comm.rank() == 1) comm.abort("out of paper", 1);
    comm.barrier();
  });
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("lomu: rank 1 of 2: out of paper"));
  EXPECT_THAT(message, HasSubstr("out of paper"));
}

TEST(Agreement, EveryRankThrowsTheErrorOfTheLowestFailedRank) {
  for (const int world : {2, 3, 8}) {
    std::atomic<int> thrown{0};
    EXPECT_THROW(run_threads(world,
                             [&](Communicator& comm) {
                               try {
                                 comm.together([&] {
                                   if (comm.rank() > 0) {
                                     throw UsageError("no such key " + std::to_string(comm.rank()), "job.yaml:3",
                                                      "spell it");
                                   }
                                   return 1;
                                 });
                               } catch (const AgreedError& error) {
                                 ++thrown;
                                 EXPECT_EQ(error.rank(), 1);
                                 EXPECT_THAT(error.what(), HasSubstr("rank 1: no such key 1"));
                                 EXPECT_EQ(error.where(), "job.yaml:3");
                                 EXPECT_EQ(error.hint(), "spell it");
                                 EXPECT_EQ(error.exit(), Exit::kUsage);
                                 throw;
                               }
                             }),
                 AgreedError);
    EXPECT_EQ(thrown, world);
  }
}

TEST(Agreement, AnErrorThatAllShareNamesNoRank) {
  EXPECT_EQ(failure_of(4, [](Communicator& comm) { comm.together([] { throw FileError("no such file", "a.gguf"); }); }),
            "no such file");
}

TEST(Agreement, ReturnsTheResultWhenAllSucceed) {
  run_threads(3, [](Communicator& comm) {
    EXPECT_EQ(comm.together([&] { return comm.rank() * 2; }), comm.rank() * 2);
    EXPECT_NO_THROW(comm.agree(true, ""));
  });
}

TEST(Agreement, ALoneCommErrorInsideIsNotAgreedUpon) {
  EXPECT_THAT(failure_of(2,
                         [](Communicator& comm) {
                           comm.together([&] {
                             if (comm.rank() == 0) throw CommError("lost");
                             comm.barrier();
                           });
                         }),
              HasSubstr("lost"));
}

TEST(Conclude, OneRankReportsAnAgreedErrorAndAllReturnItsExitCode) {
  testing::internal::CaptureStderr();
  run_threads(3, [](Communicator& comm) {
    try {
      comm.together([&] {
        if (comm.rank() == 1) throw UsageError("no such key", "job.yaml:3", "spell it");
      });
      FAIL();
    } catch (const std::exception& error) {
      EXPECT_EQ(conclude(comm, error), 2);
    }
  });
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "lomu: job.yaml:3: rank 1: no such key\n  hint: spell it\n");
}

TEST(Options, TheDeadlineComesFromTheEnvironment) {
  setenv("LOMU_COMM_DEADLINE_S", "2.5", 1);
  EXPECT_EQ(CommOptions::from_environment().deadline, std::chrono::milliseconds(2500));
  for (const char* bad : {"soon", "-1", "0", "nan", "1e300", "5s"}) {
    setenv("LOMU_COMM_DEADLINE_S", bad, 1);
    EXPECT_THROW(CommOptions::from_environment(), UsageError) << bad;
  }
  unsetenv("LOMU_COMM_DEADLINE_S");
  EXPECT_EQ(CommOptions::from_environment().deadline, std::chrono::seconds(300));
}

TEST(Options, AWorldNeedsARank) {
  EXPECT_THROW(run_threads(0, [](Communicator&) {}), UsageError);
}

}  // namespace
}  // namespace lomu
