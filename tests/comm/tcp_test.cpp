// Ranks as processes without MPI, started by launch/ranks: the same results as with threads and MPI, and jobs that end
// when a rank does, with one message.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>

#include "tests/comm/processes.h"

namespace lomu {
namespace {

using processes::digest_in;
using processes::Outcome;
using processes::run;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

const std::string kEnvironment = "env ASAN_OPTIONS=detect_leaks=0 OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive";

Outcome ranks(int count, const std::string& mode, const std::string& environment = {},
              const std::string& options = {}) {
  return run(fmt::format("{} {} timeout 60 {} -n {} {} {} {}", kEnvironment, environment, LOMU_RANKS, count, options,
                         LOMU_RANK_PROBE, mode));
}

int count_of(const std::string& text, const std::string& part) {
  int count = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

TEST(TcpRanks, GiveTheSameBitsForEveryWorldSize) {
  const Outcome alone = run(fmt::format("{} {} digest", kEnvironment, LOMU_RANK_PROBE));
  ASSERT_THAT(alone.output, HasSubstr("backend self ranks 1"));
  for (const int count : {1, 2, 3, 4}) {
    const Outcome outcome = ranks(count, "digest");
    EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
    EXPECT_THAT(outcome.output, HasSubstr(fmt::format("backend {} ranks {}", count == 1 ? "self" : "tcp", count)));
    EXPECT_EQ(digest_in(outcome.output), digest_in(alone.output)) << count << " ranks";
  }
}

TEST(TcpRanks, MatchMessagesByTagHoweverTheyArrive) {
  for (const int count : {2, 4}) {
    const Outcome outcome = ranks(count, "traffic");
    EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
    EXPECT_THAT(outcome.output,
                HasSubstr(fmt::format("traffic is right, backend tcp ranks {} local {}", count, count)));
  }
}

TEST(TcpRanks, OfOneHostShareOneCopyOfTheWeights) {
  const Outcome outcome = ranks(2, "region");
  EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
  EXPECT_THAT(outcome.output, HasSubstr("shared true rss_kb 16384 pss_kb 8192 ranks 2"));
}

TEST(TcpFailure, ARankThatThrowsEndsAllWithOneMessageThatNamesIt) {
  for (const int count : {2, 3}) {
    const Outcome outcome = ranks(count, "fail");
    EXPECT_EQ(outcome.exit_code, 3) << outcome.output;
    EXPECT_LT(outcome.seconds, 10.0);
    EXPECT_THAT(outcome.output, HasSubstr(fmt::format("lomu: rank {} of {}, step 5: layer 3: the loss is not a number\n"
                                                      "  hint: lower the learning rate",
                                                      count - 1, count)));
    EXPECT_EQ(count_of(outcome.output, "lomu: "), 1) << outcome.output;
  }
}

TEST(TcpFailure, AHangMeetsTheDeadlineAndNamesRankOperationAndStep) {
  const Outcome outcome = ranks(3, "hang", "LOMU_COMM_DEADLINE_S=0.8");
  EXPECT_EQ(outcome.exit_code, 1) << outcome.output;
  EXPECT_LT(outcome.seconds, 10.0);
  EXPECT_THAT(outcome.output, HasSubstr("waited 0.8 s in broadcast (configuration) at step 6 for rank 2"));
}

TEST(TcpFailure, AKilledRankIsNamedAtOnceAndReportedOnce) {
  const Outcome outcome = ranks(4, "kill");
  EXPECT_EQ(outcome.exit_code, 137) << outcome.output;
  EXPECT_LT(outcome.seconds, 5.0);
  EXPECT_THAT(outcome.output, HasSubstr("rank 3 has ended without a word while rank 0 was in barrier"));
  EXPECT_EQ(count_of(outcome.output, "lomu: rank"), 1) << outcome.output;
}

TEST(TcpFailure, AKilledRankIsNoticedThroughARankThatComputes) {
  const Outcome outcome = ranks(3, "compute");
  EXPECT_LT(outcome.seconds, 10.0);
  EXPECT_THAT(outcome.output, HasSubstr("rank 2 has ended without a word while rank 0 was in exchange (figures) at "
                                        "step 8"));
}

TEST(TcpFailure, MessagesOfDifferentSizesAreRefused) {
  const Outcome outcome = ranks(2, "mismatch");
  EXPECT_EQ(outcome.exit_code, 1) << outcome.output;
  EXPECT_THAT(outcome.output, HasSubstr("rank 0 sends 8 bytes but rank 1 expects 12 in broadcast (configuration)"));
}

TEST(TcpFailure, AnExceptionThatPassesTheRanksEndsTheJob) {
  const Outcome outcome = ranks(2, "leave");
  EXPECT_NE(outcome.exit_code, 0);
  EXPECT_LT(outcome.seconds, 10.0);
  EXPECT_THAT(outcome.output, HasSubstr("lomu: rank 1 of 2: an error nobody handled ends this rank"));
}

TEST(TcpFailure, AnAgreedErrorIsReportedOnceAndKeepsItsExitCode) {
  const Outcome outcome = ranks(3, "agree");
  EXPECT_EQ(outcome.exit_code, 2) << outcome.output;
  EXPECT_EQ(count_of(outcome.output, "unknown key"), 1) << outcome.output;
  EXPECT_THAT(outcome.output, HasSubstr("lomu: job.yaml:3: rank 0: unknown key"));
}

// ---- meeting -------------------------------------------------------------------------------------------------------

class Meeting : public testing::Test {
 protected:
  Meeting() : folder_(std::filesystem::temp_directory_path() / fmt::format("lomu-meeting-{}", ::getpid())) {
    std::filesystem::create_directories(folder_);
  }
  ~Meeting() override { std::filesystem::remove_all(folder_); }

  // One process of a job, as a shell command.
  [[nodiscard]] static std::string rank(int rank, int size, const std::string& environment) {
    return fmt::format("{} RANK={} WORLD_SIZE={} LOCAL_RANK={} {} timeout 60 {} traffic", kEnvironment, rank, size,
                       rank, environment, LOMU_RANK_PROBE);
  }
  // All of them at once, in a shell; its exit code is that of the last.
  [[nodiscard]] static Outcome together(const std::vector<std::string>& commands) {
    std::string script = "set -m; ";
    for (const std::string& command : commands) script += command + " & ";
    return run("bash -c '" + script + " wait $!; status=$?; wait; exit $status'");
  }

  std::filesystem::path folder_;
};

TEST_F(Meeting, WorksByAddressAndPort) {
  // A port of no well-known service, different for tests that run at once.
  const std::string at = fmt::format("MASTER_ADDR=localhost MASTER_PORT={}", 21000 + ::getpid() % 9000);
  const Outcome outcome = together({rank(2, 3, at), rank(0, 3, at), rank(1, 3, at)});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
  EXPECT_THAT(outcome.output, HasSubstr("traffic is right, backend tcp ranks 3 local 3"));
}

TEST_F(Meeting, WorksByAFileThatAnEarlierJobLeftBehind) {
  const std::filesystem::path file = folder_ / "meeting";
  std::ofstream(file) << "lomu 1234 5678 1\n127.0.0.1\n";
  const std::string at = "LOMU_RENDEZVOUS=" + file.string();
  const Outcome outcome = together({rank(1, 2, at), "sleep 0.3; " + rank(0, 2, at)});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
  EXPECT_THAT(outcome.output, HasSubstr("traffic is right, backend tcp ranks 2"));
  EXPECT_FALSE(std::filesystem::exists(file));
}

TEST_F(Meeting, NamesTheRanksThatDidNotCome) {
  const std::string at = "LOMU_COMM_DEADLINE_S=0.7 LOMU_RENDEZVOUS=" + (folder_ / "meeting").string();
  const Outcome outcome = together({rank(1, 4, at), rank(0, 4, at)});
  EXPECT_EQ(outcome.exit_code, 1) << outcome.output;
  EXPECT_LT(outcome.seconds, 5.0);
  EXPECT_THAT(outcome.output, HasSubstr("waited 0.7 s for ranks 2, 3 of 4 to come"));
}

TEST_F(Meeting, SaysThatRank0IsMissing) {
  const Outcome outcome = together({rank(1, 2, "LOMU_COMM_DEADLINE_S=0.5 LOMU_RENDEZVOUS=tcp://127.0.0.1:1")});
  EXPECT_EQ(outcome.exit_code, 1) << outcome.output;
  EXPECT_LT(outcome.seconds, 5.0);
  EXPECT_THAT(outcome.output, HasSubstr("waited 0.5 s for rank 0 to listen"));
}

TEST_F(Meeting, RefusesAnotherWorldSizeAndASecondProcessOfARank) {
  const std::string at = "LOMU_COMM_DEADLINE_S=20 LOMU_RENDEZVOUS=" + (folder_ / "meeting").string();
  Outcome outcome = together({rank(1, 3, at), rank(0, 2, at)});
  EXPECT_EQ(outcome.exit_code, 1) << outcome.output;
  EXPECT_LT(outcome.seconds, 5.0);
  EXPECT_THAT(outcome.output, HasSubstr("says to be rank 1 of 3, but rank 0 was started with 2 ranks"));
  outcome = together({rank(1, 3, at), rank(1, 3, at), rank(0, 3, at)});
  EXPECT_EQ(outcome.exit_code, 1) << outcome.output;
  EXPECT_LT(outcome.seconds, 5.0);
  EXPECT_THAT(outcome.output, HasSubstr("two processes say to be rank 1"));
}

TEST_F(Meeting, AFileThatCannotBeWrittenIsNamed) {
  const Outcome outcome = together({rank(0, 2, "LOMU_RENDEZVOUS=/no/such/folder/meeting")});
  EXPECT_EQ(outcome.exit_code, 1) << outcome.output;
  EXPECT_THAT(outcome.output, HasSubstr("cannot write the meeting file"));
}

TEST_F(Meeting, TurnsStrangersAway) {
  const int port = 30000 + ::getpid() % 9000;
  const std::string at = fmt::format("LOMU_RENDEZVOUS=tcp://127.0.0.1:{}", port);
  const std::string stranger = fmt::format(
      "sleep 0.2; (exec 3<>/dev/tcp/127.0.0.1/{}; echo GET / HTTP/1.0 and much more of it, so that it is "
      "as long as a greeting >&3)",
      port);
  const Outcome outcome = together({stranger, "sleep 0.5; " + rank(1, 2, at), rank(0, 2, at)});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
  EXPECT_THAT(outcome.output, HasSubstr("traffic is right, backend tcp ranks 2"));
}

// ---- launch/ranks --------------------------------------------------------------------------------------------------

Outcome launch(const std::string& arguments) {
  return run(fmt::format("timeout 60 {} {}", LOMU_RANKS, arguments));
}

TEST(LaunchRanks, TellsEachProcessItsPlace) {
  const Outcome outcome =
      launch("-n 3 --prefix bash -c 'echo rank $RANK of $WORLD_SIZE local $LOCAL_RANK $LOCAL_WORLD_SIZE'");
  EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
  for (int rank = 0; rank < 3; ++rank) {
    EXPECT_THAT(outcome.output, HasSubstr(fmt::format("[{}] rank {} of 3 local {} 3\n", rank, rank, rank)));
  }
}

TEST(LaunchRanks, CountsRanksOverMachines) {
  const Outcome outcome =
      launch("-n 2 --nodes 3 --node 1 --meet tcp://a:5 bash -c 'echo $RANK/$WORLD_SIZE $LOMU_RENDEZVOUS'");
  EXPECT_THAT(outcome.output, AllOf(HasSubstr("2/6 tcp://a:5"), HasSubstr("3/6 tcp://a:5")));
}

TEST(LaunchRanks, EndsAllWithTheExitCodeOfTheRankThatFailed) {
  const Outcome outcome = launch("-n 3 bash -c 'if ((RANK == 1)); then exit 7; fi; sleep 60'");
  EXPECT_EQ(outcome.exit_code, 7) << outcome.output;
  EXPECT_LT(outcome.seconds, 5.0);
}

TEST(LaunchRanks, EndsWhatDoesNotListen) {
  const Outcome outcome =
      launch("-n 2 bash -c 'trap : TERM; if ((RANK == 1)); then exit 3; fi; while :; do sleep 0.2; done'");
  EXPECT_EQ(outcome.exit_code, 3) << outcome.output;
  EXPECT_LT(outcome.seconds, 12.0);
}

TEST(LaunchRanks, ExplainsWrongUse) {
  for (const char* arguments : {"", "-n 0 true", "-n x true", "-n 2", "-n 2 --nodes 2 true", "-n 1 no-such-program",
                                "-n 1 --nodes 2 --node 2 --meet tcp://a:1 true", "--what"}) {
    const Outcome outcome = launch(arguments);
    EXPECT_EQ(outcome.exit_code, 2) << arguments;
    EXPECT_THAT(outcome.output, HasSubstr("error: ")) << arguments;
  }
}

}  // namespace
}  // namespace lomu
