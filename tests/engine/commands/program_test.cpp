#include "engine/commands/program.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <new>
#include <vector>

#include "engine/commands/report.h"
#include "engine/commands/schema.h"
#include "engine/commands/verify.h"
#include "engine/config/problems.h"

namespace lomu {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

struct Outcome {
  int code;
  std::string out;
  std::string err;
};

/// What a command of the test does: `verify` with the outcome that --weights names.
Exit body(const VerifyOptions& options) {
  if (options.path == "usage") throw UsageError("wrong", "here", "do that");
  if (options.path == "file") throw FileError("gone", "x.bin");
  if (options.path == "diverged") throw NumericError("the loss is NaN");
  if (options.path == "memory") throw std::bad_alloc();
  if (options.path == "surprise") throw std::logic_error("odd");
  if (options.path == "number") throw 3;
  return options.path == "failed" ? Exit::kFailed : Exit::kDone;
}

Outcome run(std::vector<const char*> arguments) {
  Program program;
  program.add(body);
  program.add(run_schema);
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  const int code = program.run(arguments);
  return {code, testing::internal::GetCapturedStdout(), testing::internal::GetCapturedStderr()};
}

TEST(Program, GivesTheExitCodeOfItsCommand) {
  EXPECT_EQ(run({"verify", "model", "fine"}).code, 0);
  EXPECT_EQ(run({"verify", "model", "failed"}).code, 1);
  EXPECT_EQ(run({"verify", "model", "usage"}).code, 2);
  EXPECT_EQ(run({"verify", "model", "file"}).code, 1);
  EXPECT_EQ(run({"verify", "model", "diverged"}).code, 3);
}

TEST(Program, TellsErrorsInThreeLines) {
  EXPECT_EQ(run({"verify", "model", "usage"}).err, "lomu: error: wrong\n  where: here\n  hint: do that\n");
  EXPECT_EQ(run({"verify", "model", "file"}).err, "lomu: error: gone\n  where: x.bin\n");
}

TEST(Program, SurvivesWhatItDoesNotExpect) {
  EXPECT_THAT(run({"verify", "model", "memory"}).err, HasSubstr("out of memory"));
  EXPECT_THAT(run({"verify", "model", "surprise"}).err,
              AllOf(HasSubstr("unexpected failure: odd"), HasSubstr("report")));
  EXPECT_EQ(run({"verify", "model", "number"}).code, 1);
}

TEST(Program, SuggestsCommandsAndOptions) {
  const Outcome command = run({"verfy"});
  EXPECT_EQ(command.code, 2);
  EXPECT_THAT(command.err, AllOf(HasSubstr("unknown command `verfy`"), HasSubstr("did you mean `verify`?")));
  const Outcome option = run({"verify", "--jsno"});
  EXPECT_EQ(option.code, 2);
  EXPECT_THAT(option.err, AllOf(HasSubstr("unknown option --jsno"), HasSubstr("did you mean `--json`?")));
  EXPECT_THAT(run({"--versoin"}).err, HasSubstr("did you mean `--version`?"));
  EXPECT_THAT(run({"verify", "--threads", "x"}).err, HasSubstr("lomu verify --help"));
  EXPECT_THAT(run({"schema", "surplus"}).err, HasSubstr("surplus"));
}

TEST(Program, WithoutACommandIsWrongUse) {
  EXPECT_EQ(run({}).code, 2);
  EXPECT_THAT(run({}).err, HasSubstr("lomu --help"));
}

TEST(Program, HelpAndVersionGoToStandardOutput) {
  const Outcome help = run({"--help"});
  EXPECT_EQ(help.code, 0);
  EXPECT_THAT(help.out, AllOf(HasSubstr("schema"), HasSubstr("verify")));
  EXPECT_EQ(help.err, "");
  EXPECT_THAT(run({"schema", "--help"}).out, HasSubstr("Examples:"));
  EXPECT_THAT(run({"--version"}).out, testing::MatchesRegex("lomu [0-9.]+\n"));
}

TEST(Program, PrintsTheSchemaInThreeForms) {
  EXPECT_THAT(run({"schema"}).out, HasSubstr("adapter: what is trained"));
  EXPECT_THAT(run({"schema", "--json"}).out, testing::StartsWith("{"));
  EXPECT_THAT(run({"schema", "--markdown"}).out, HasSubstr("### adapter"));
  EXPECT_EQ(run({"schema", "--json", "--markdown"}).code, 2);
}

TEST(ErrorText, NamesTheRankInAWorldOfSeveral) {
  const Error error("what");
  EXPECT_EQ(error_text(error, {0, 1}, Style(false)), "lomu: error: what\n");
  EXPECT_EQ(error_text(error, {3, 4}, Style(false)), "lomu: rank 3: error: what\n");
  EXPECT_THAT(error_text(error, {0, 1}, Style(true)), HasSubstr("\x1b[1;31merror:\x1b[0m"));
}

TEST(ErrorText, TellsEveryProblemOfAConfiguration) {
  const config::ConfigError error({{"a", "job:1", "x"}, {"b", "job:2", ""}});
  EXPECT_EQ(error_text(error, {}, Style(false)),
            "lomu: error: a\n  where: job:1\n  hint: x\nlomu: error: b\n  where: job:2\n");
}

class LaunchRankTest : public testing::Test {
 protected:
  void TearDown() override {
    for (const char* name : {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "PMI_RANK", "PMI_SIZE"}) unsetenv(name);
  }
};

TEST_F(LaunchRankTest, IsReadFromTheLaunchersEnvironment) {
  EXPECT_EQ(launch_rank().world, 1);
  setenv("PMI_RANK", "2", 1);
  EXPECT_EQ(launch_rank().world, 1) << "incomplete";
  setenv("PMI_SIZE", "4", 1);
  EXPECT_EQ(launch_rank().rank, 2);
  setenv("OMPI_COMM_WORLD_RANK", "1", 1);
  setenv("OMPI_COMM_WORLD_SIZE", "8", 1);
  EXPECT_EQ(launch_rank().rank, 1);
  EXPECT_EQ(launch_rank().world, 8);
  setenv("OMPI_COMM_WORLD_RANK", "x", 1);
  EXPECT_EQ(launch_rank().rank, 2);
}

}  // namespace
}  // namespace lomu
