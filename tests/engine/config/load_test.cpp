#include "engine/config/load.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "tests/engine/config/config_fixture.h"

namespace lomu::config {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST(Load, SmallestJobGetsEveryDefault) {
  const TrainConfig config = parse(kSmallest);
  TrainConfig expected;
  expected.model.path = "m.gguf";
  expected.data.train = {"t.jsonl"};
  expected.output.dir = "out";
  EXPECT_EQ(config, expected);
}

TEST(Load, DefaultsFollowOtherKeys) {
  EXPECT_EQ(with({"adapter.rank=8"}).adapter.alpha, 16);
  EXPECT_EQ(with({"adapter.rank=8", "adapter.alpha=4"}).adapter.alpha, 4);
  EXPECT_EQ(with({"optimizer.name=adamw"}).optimizer.lr, 2e-4);
  EXPECT_EQ(with({"optimizer.name=adamw"}).optimizer.max_grad_norm, 1.0);
  EXPECT_EQ(with({"optimizer.name=lora_muon"}).optimizer.max_grad_norm, 0.1);
  EXPECT_EQ(with({"optimizer.name=muon_factors"}).optimizer.max_grad_norm, std::nullopt);
  EXPECT_EQ(with({"training.micro_batch_tokens=333"}).data.max_length, 333);
  EXPECT_EQ(with({"training.steps=5"}).training.epochs, std::nullopt);
  EXPECT_EQ(with({}).training.epochs, 1.0);
  EXPECT_EQ(with({"training.schedule.warmup_steps=5"}).training.schedule.warmup_ratio, std::nullopt);
}

TEST(Load, DefaultsFollowTheOptimizer) {
  const auto of = [](const std::string& name) { return with({"optimizer.name=" + name}).optimizer; };
  EXPECT_EQ(of("muon").orthogonalizer, Orthogonalizer::kNewtonSchulz);
  EXPECT_EQ(of("muon_factors").orthogonalizer, Orthogonalizer::kExact);
  EXPECT_TRUE(of("muon_factors").nesterov);
  EXPECT_FALSE(of("spectron").nesterov);
  EXPECT_EQ(of("spectron").momentum, 0.95);
  EXPECT_EQ(of("lora_rite_core").momentum, 0.9);
  EXPECT_EQ(of("lora_plus").lr, 5e-5);
  EXPECT_EQ(of("lora_plus").lr_ratio, 16);
  EXPECT_EQ(of("lora_rite").max_grad_norm, 1.0);
  EXPECT_EQ(of("muon").max_grad_norm, std::nullopt);
}

TEST(Load, EveryKindOfValueIsRead) {
  const TrainConfig config = parse(R"(
model: {path: "/models/a b"}
adapter:
  rslora: true
  dropout: .05
  targets: [q_proj, v]
  layers: [12, 0-9, 10]
  init: balanced
data:
  train: [a.jsonl, 'b.jsonl']
  validation_split: 1e-2
training: {steps: 1000, seed: 9007199254740991, schedule: {name: wsd, warmup_steps: 10}}
optimizer: {damping: off, lr: 5.e-3}
output: {dir: no}
)");
  EXPECT_EQ(config.model.path, "/models/a b");
  EXPECT_TRUE(config.adapter.rslora);
  EXPECT_EQ(config.adapter.dropout, 0.05);
  EXPECT_THAT(config.adapter.targets, ElementsAre("q", "v"));
  EXPECT_THAT(config.adapter.layers, ElementsAre(LayerRange{0, 10}, LayerRange{12, 12}));
  EXPECT_EQ(config.adapter.init, AdapterInit::kBalanced);
  EXPECT_THAT(config.data.train, ElementsAre("a.jsonl", "b.jsonl"));
  EXPECT_EQ(config.data.validation_split, 0.01);
  EXPECT_EQ(config.training.seed, 9007199254740991);
  EXPECT_EQ(config.training.schedule.name, ScheduleName::kWsd);
  EXPECT_EQ(config.optimizer.damping, std::nullopt);
  EXPECT_EQ(config.optimizer.lr, 5e-3);
  EXPECT_EQ(config.output.dir, "no") << "no is text where text is expected";
}

TEST(Load, AnchorsAndAliasesWork) {
  const TrainConfig config =
      parse("model: {path: &p x.gguf}\ndata: {train: &t [a, b], cache_dir: *p}\noutput: {dir: o}\n");
  EXPECT_EQ(config.data.cache_dir, "x.gguf");
}

TEST(Load, TargetsAreKeptInModelOrder) {
  EXPECT_THAT(with({"adapter.targets=down,gate_proj, q"}).adapter.targets, ElementsAre("q", "gate", "down"));
  EXPECT_EQ(with({"adapter.targets=all"}).adapter, with({}).adapter);
  EXPECT_THAT(with({"adapter.targets=[up, k]"}).adapter.targets, ElementsAre("k", "up"));
}

TEST(Load, LayersSelectBlocks) {
  const AdapterConfig adapter = with({"adapter.layers=0-1,3"}).adapter;
  EXPECT_THAT(adapter.layer_mask(5), ElementsAre(true, true, false, true, false));
  EXPECT_THAT(with({}).adapter.layer_mask(2), ElementsAre(true, true));
  EXPECT_THROW(static_cast<void>(adapter.layer_mask(3)), UsageError);
}

TEST(Load, ScaleIsThatOfLoraAndOfRankStabilisedLora) {
  EXPECT_EQ(with({"adapter.rank=16", "adapter.alpha=8"}).adapter.scale(), 0.5);
  EXPECT_EQ(with({"adapter.rank=16", "adapter.alpha=8", "adapter.rslora=true"}).adapter.scale(), 2);
}

TEST(Overrides, WinOverTheFile) {
  EXPECT_EQ(parse(kSmallest + "training: {epochs: 3}\n", {"training.epochs=0.5"}).training.epochs, 0.5);
  EXPECT_EQ(with({"output.dir=a=b"}).output.dir, "a=b") << "only the first = separates";
  EXPECT_THAT(with({"data.train=[a.jsonl, b.jsonl]"}).data.train, ElementsAre("a.jsonl", "b.jsonl"));
  EXPECT_THAT(with({"data.train=a,b.jsonl"}).data.train, ElementsAre("a,b.jsonl")) << "a comma is part of a path";
}

TEST(Overrides, DisplaceTheKeyTheyExclude) {
  const TrainConfig config = parse(kSmallest + "training: {epochs: 3}\n", {"training.steps=7"});
  EXPECT_EQ(config.training.steps, 7);
  EXPECT_EQ(config.training.epochs, std::nullopt);
}

TEST(Overrides, DoNotCarryARateToAnotherOptimizer) {
  const std::string text = kSmallest + "optimizer: {lr: 0.05}\n";
  EXPECT_THAT(problems(text, {"optimizer.name=adamw"}),
              ElementsAre(HasSubstr("`optimizer.lr` of the file was chosen for lora_muon")));
  EXPECT_THAT(problems(text, {"optimizer.name=lora_muon"}), IsEmpty());
  EXPECT_EQ(parse(text, {"optimizer.name=adamw", "optimizer.lr=0.001"}).optimizer.lr, 0.001);
}

TEST(Overrides, DoNotCarryARateToAnotherMultiplier) {
  const std::string text = kSmallest + "optimizer: {lr: 0.05}\n";
  EXPECT_THAT(problems(text, {"optimizer.multiplier=rms"}),
              ElementsAre(AllOf(HasSubstr("`optimizer.lr` of the file was chosen for rms_over_width"),
                                HasSubstr("its default is 0.0004 then"))));
  EXPECT_THAT(problems(text, {"optimizer.multiplier=rms_over_width"}), IsEmpty());
  EXPECT_EQ(parse(text, {"optimizer.multiplier=rms", "optimizer.lr=0.001"}).optimizer.lr, 0.001);
}

TEST(Load, TheRateThatIsNotGivenSuitsTheMultiplier) {
  EXPECT_EQ(parse(kSmallest).optimizer.lr, 0.05);
  EXPECT_EQ(parse(kSmallest + "optimizer: {multiplier: frobenius}\n").optimizer.lr, 0.05);
  EXPECT_EQ(parse(kSmallest + "optimizer: {multiplier: none}\n").optimizer.lr, 0.01);
  EXPECT_EQ(parse(kSmallest + "optimizer: {name: lora_rite_core, multiplier: rms}\n").optimizer.lr, 4e-4);
}

TEST(Load, EveryExampleIsValid) {
  int seen = 0;
  for (const auto& file : std::filesystem::directory_iterator(LOMU_SOURCE_DIR "/configs")) {
    if (file.path().extension() != ".yaml") continue;
    EXPECT_NO_THROW(load_config(file.path())) << file.path();
    ++seen;
  }
  EXPECT_GE(seen, 3);
}

class LoadFile : public testing::Test {
 protected:
  LoadFile() : folder_(std::filesystem::path(testing::TempDir()) / ("lomu-config-" + std::to_string(::getpid()))) {
    std::filesystem::create_directories(folder_);
  }
  ~LoadFile() override { std::filesystem::remove_all(folder_); }

  std::filesystem::path write(const std::string& name, const std::string& content) const {
    std::ofstream(folder_ / name, std::ios::binary) << content;
    return folder_ / name;
  }

  static std::string refusal(const std::filesystem::path& file) {
    try {
      load_config(file);
    } catch (const UsageError& error) {
      return std::string(error.what()) + " | " + error.where();
    }
    return "accepted";
  }

  std::filesystem::path folder_;
};

TEST_F(LoadFile, ReadsAFileWithAByteOrderMarkAndWindowsLines) {
  std::string text = "\xef\xbb\xbf";
  for (const char c : kSmallest) text += c == '\n' ? std::string("\r\n") : std::string(1, c);
  EXPECT_EQ(load_config(write("job.yaml", text)), parse(kSmallest));
}

TEST_F(LoadFile, RefusesWhatIsNoTextFile) {
  EXPECT_THAT(refusal(folder_ / "absent.yaml"), HasSubstr("No such file"));
  EXPECT_THAT(refusal(folder_), HasSubstr("is a folder"));
  EXPECT_THAT(refusal(write("binary", std::string("a: 1\nGGUF\x03\0\0", 12))), HasSubstr("binary:2"));
  EXPECT_THAT(refusal(write("latin1", "a: caf\xe9\n")), HasSubstr("not UTF-8"));
  EXPECT_THAT(refusal(write("large", std::string((1 << 20) + 1, ' '))), HasSubstr("too large"));
  EXPECT_THAT(refusal(write("empty", "")), HasSubstr("is empty"));
}

}  // namespace
}  // namespace lomu::config
