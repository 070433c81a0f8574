// The command lines of all commands, without their bodies: words in, options out.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <CLI/CLI.hpp>
#include <string>

#include "engine/commands/export.h"
#include "engine/commands/generate.h"
#include "engine/commands/inspect.h"
#include "engine/commands/plan.h"
#include "engine/commands/report_runs.h"
#include "engine/commands/train.h"
#include "engine/commands/verify.h"

namespace lomu {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

template <class Options>
Options parsed(const std::string& line) {
  CLI::App program;
  Options options;
  declare(program, options);
  program.parse(line);
  return options;
}

template <class Options>
std::string help() {
  CLI::App program;
  Options options;
  return declare(program, options).help();
}

TEST(TrainOptions, AreAFileAndOverrides) {
  const auto options = parsed<TrainOptions>("train job.yaml optimizer.lr=1e-3 adapter.rank=-1 --resume");
  EXPECT_EQ(options.config, "job.yaml");
  EXPECT_THAT(options.overrides, ElementsAre("optimizer.lr=1e-3", "adapter.rank=-1"));
  EXPECT_TRUE(options.resume);
  EXPECT_FALSE(options.print_config);
  EXPECT_THROW(parsed<TrainOptions>("train"), CLI::RequiredError);
}

TEST(PlanOptions, AreAFileAndOverrides) {
  const auto options = parsed<PlanOptions>("plan job.yaml training.micro_batch_tokens=64 --json");
  EXPECT_EQ(options.config, "job.yaml");
  EXPECT_THAT(options.overrides, ElementsAre("training.micro_batch_tokens=64"));
  EXPECT_TRUE(options.json);
  EXPECT_THROW(parsed<PlanOptions>("plan"), CLI::RequiredError);
}

TEST(GenerateOptions, CoverSamplingAndDevice) {
  const auto options = parsed<GenerateOptions>(
      "generate --model m --adapter a --prompt '--hello there' --system s --max-tokens 7 --temperature 0.5 --top-p 0.5 "
      "--seed 18446744073709551615 --backend reference --dtype f32 --threads 2 --device cpu");
  EXPECT_EQ(options.prompt, "--hello there");
  EXPECT_EQ(options.max_tokens, 7);
  EXPECT_EQ(options.temperature, 0.5);
  EXPECT_EQ(options.seed, 18446744073709551615u);
  EXPECT_EQ(options.compute.backend, config::BackendName::kReference);
  EXPECT_EQ(options.compute.dtype, config::ComputeType::kF32);
  EXPECT_EQ(options.compute.threads, 2);
  EXPECT_FALSE(reads_stdin(options));
  EXPECT_TRUE(reads_stdin(parsed<GenerateOptions>("generate --model m")));
}

TEST(GenerateOptions, RefuseContradictions) {
  EXPECT_THROW(parsed<GenerateOptions>("generate --prompt x"), CLI::RequiredError);
  EXPECT_THROW(parsed<GenerateOptions>("generate --model m --greedy --temperature 1"), CLI::ExcludesError);
  EXPECT_THROW(parsed<GenerateOptions>("generate --model m --prompt x --messages f"), CLI::ExcludesError);
  EXPECT_THROW(parsed<GenerateOptions>("generate --model m --raw --system s"), CLI::ExcludesError);
  EXPECT_THROW(parsed<GenerateOptions>("generate --model m --max-tokens 0"), CLI::ValidationError);
  EXPECT_THROW(parsed<GenerateOptions>("generate --model m --seed -1"), CLI::ParseError);
  EXPECT_THROW(parsed<GenerateOptions>("generate --model m --top-p 0"), CLI::ValidationError);
  EXPECT_THROW(parsed<GenerateOptions>("generate --model m --temperature nan"), CLI::ParseError);
}

TEST(InspectOptions, AskForOneThing) {
  EXPECT_EQ(parsed<InspectOptions>("inspect --model m").model, "m");
  EXPECT_EQ(parsed<InspectOptions>("inspect --adapter a --model m").adapter, "a");
  EXPECT_EQ(parsed<InspectOptions>("inspect --example j.yaml --index 3").index, 3);
  EXPECT_EQ(parsed<InspectOptions>("inspect --model m").device, std::nullopt);
  EXPECT_EQ(parsed<InspectOptions>("inspect --model m --device auto").device, config::DeviceName::kAuto);
  EXPECT_THROW(parsed<InspectOptions>("inspect"), UsageError);
  EXPECT_THROW(parsed<InspectOptions>("inspect --index 3"), CLI::RequiresError);
  EXPECT_THROW(parsed<InspectOptions>("inspect --model m --example j"), CLI::ExcludesError);
  EXPECT_THROW(parsed<InspectOptions>("inspect --example j --index -1"), CLI::ValidationError);
}

TEST(ExportOptions, NameSourceAndTarget) {
  const auto options = parsed<ExportOptions>("export runs/a --out x --merged --dtype bf16 --overwrite");
  EXPECT_EQ(options.adapter, "runs/a");
  EXPECT_TRUE(options.merged && options.overwrite);
  EXPECT_EQ(options.dtype, config::StoredType::kBF16);
  EXPECT_EQ(parsed<ExportOptions>("export a --out x").dtype, std::nullopt);
  EXPECT_THROW(parsed<ExportOptions>("export a"), CLI::RequiredError);
  EXPECT_EQ(parsed<ExportOptions>("export a --out x --model m").model, "m");
  EXPECT_EQ(options.device, config::DeviceName::kAuto);
  EXPECT_EQ(parsed<ExportOptions>("export a --out x --device cuda").device, config::DeviceName::kCuda);
  EXPECT_THROW(parsed<ExportOptions>("export a --out x --device gpu"), UsageError);
}

TEST(ReportOptions, AreRunsAndSamples) {
  const auto options =
      parsed<ReportOptions>("report runs/a runs/b --samples 3 --sample-tokens 9 --device cpu --dtype f32 --threads 2");
  EXPECT_THAT(options.runs, ElementsAre("runs/a", "runs/b"));
  EXPECT_EQ(options.samples, 3);
  EXPECT_EQ(options.sample_tokens, 9);
  EXPECT_EQ(options.compute.device, config::DeviceName::kCpu);
  EXPECT_EQ(options.compute.dtype, config::ComputeType::kF32);
  EXPECT_EQ(options.compute.threads, 2);
  EXPECT_EQ(parsed<ReportOptions>("report a").samples, 0);
  EXPECT_EQ(parsed<ReportOptions>("report a --samples 1").sample_tokens, 64);
  EXPECT_THROW(parsed<ReportOptions>("report"), CLI::RequiredError);
  EXPECT_THROW(parsed<ReportOptions>("report a --samples -1"), CLI::ValidationError);
  EXPECT_THROW(parsed<ReportOptions>("report a --samples 1 --sample-tokens 0"), CLI::ValidationError);
  EXPECT_THROW(parsed<ReportOptions>("report a --sample-tokens 9"), CLI::RequiresError);
}

TEST(VerifyOptions, KnowTheirCases) {
  EXPECT_EQ(parsed<VerifyOptions>("verify").kind, VerifyKind::kAll);
  const auto options = parsed<VerifyOptions>("verify model f --weights w --json --backend cpu");
  EXPECT_EQ(options.kind, VerifyKind::kModel);
  EXPECT_EQ(options.path, "f");
  EXPECT_TRUE(options.json);
  EXPECT_EQ(parsed<VerifyOptions>("verify lora-muon f").kind, VerifyKind::kLoraMuon);
  EXPECT_EQ(parsed<VerifyOptions>("verify --json tokenizer f").kind, VerifyKind::kTokenizer);
  EXPECT_THROW(parsed<VerifyOptions>("verify model"), UsageError);
  EXPECT_THROW(parsed<VerifyOptions>("verify tokenizer f --weights w"), UsageError);
}

TEST(VerifyOptions, SuggestTheNearestWord) {
  try {
    parsed<VerifyOptions>("verify lora_muon f");
    FAIL();
  } catch (const UsageError& error) {
    EXPECT_THAT(error.hint(), HasSubstr("did you mean `lora-muon`?"));
  }
}

TEST(Help, ShowsExamplesForEveryCommand) {
  EXPECT_THAT(help<TrainOptions>(), HasSubstr("lomu train configs/quickstart.yaml"));
  EXPECT_THAT(help<GenerateOptions>(), HasSubstr("lomu generate --model"));
  EXPECT_THAT(help<InspectOptions>(), HasSubstr("lomu inspect --model"));
  EXPECT_THAT(help<ExportOptions>(), HasSubstr("lomu export runs/quickstart"));
  EXPECT_THAT(help<ReportOptions>(), AllOf(HasSubstr("lomu report runs/quickstart"), HasSubstr("--samples")));
  EXPECT_THAT(help<VerifyOptions>(), HasSubstr("lomu verify lora-muon"));
}

}  // namespace
}  // namespace lomu
