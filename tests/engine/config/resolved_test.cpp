#include "engine/config/resolved.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "tests/engine/config/config_fixture.h"

namespace lomu::config {
namespace {

using testing::HasSubstr;
using testing::Not;

void expect_round_trip(const TrainConfig& config) {
  const std::string text = resolved_yaml(config);
  EXPECT_EQ(parse(text), config) << text;
  EXPECT_EQ(resolved_yaml(parse(text)), text);
}

TEST(Resolved, ReadsBackToTheSameConfiguration) {
  const std::vector<std::vector<std::string>> jobs = {
      {},
      {"optimizer.name=adamw", "optimizer.max_grad_norm=off"},
      {"training.steps=123", "training.schedule.warmup_steps=7", "training.schedule.name=wsd"},
      {"optimizer.damping=off", "adapter.init=balanced", "optimizer.lr=0.1234567890123456789"},
      {"adapter.targets=q,down", "adapter.layers=0-3,7", "adapter.rank=256", "adapter.from=runs/first"},
      {"data.train=[a.jsonl, '12', \"with \\\"quotes\\\" # and, more\", 'true']", "data.validation=- v: x"},
      {"data.validation_split=0.1", "training.epochs=0.25", "training.seed=9007199254740991"},
      {"optimizer.filter=damped", "optimizer.filter_tau=0.3"},
      {"optimizer.name=muon", "optimizer.scaling=rms", "optimizer.nesterov=false"},
      {"optimizer.name=lora_rite", "optimizer.damping=0.2"},
      {"optimizer.name=lora_plus", "optimizer.lr_ratio=4"},
      {"model.path=caf\xc3\xa9/m.gguf", "output.dir=null.d", "data.cache_dir=new\nline"},
  };
  for (const auto& overrides : jobs) expect_round_trip(with(overrides));
}

TEST(Resolved, RoundTripsEveryExample) {
  for (const auto& file : std::filesystem::directory_iterator(LOMU_SOURCE_DIR "/configs")) {
    if (file.path().extension() == ".yaml") expect_round_trip(load_config(file.path()));
  }
}

TEST(Resolved, ShowsDerivedDefaultsAndMeanings) {
  const std::string text = resolved_yaml(with({"adapter.rank=8"}));
  EXPECT_THAT(text, HasSubstr("  alpha: 16 "));
  EXPECT_THAT(text, HasSubstr("  lr: 0.05 "));
  EXPECT_THAT(text, HasSubstr("# rank r of every pair"));
  EXPECT_THAT(text, HasSubstr("  epochs: 1 "));
}

TEST(Resolved, LeavesOutWhatHasNoEffect) {
  const std::string text = resolved_yaml(with({"training.steps=5"}));
  EXPECT_THAT(text, Not(HasSubstr("epochs:")));
  EXPECT_THAT(text, Not(HasSubstr("beta1")));
  EXPECT_THAT(text, Not(HasSubstr("decay_ratio")));
}

}  // namespace
}  // namespace lomu::config
