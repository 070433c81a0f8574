// An adapter that lomu trained and exported, loaded by PEFT: logits, losses, residual streams and gradients are lomu's.
// Needs a Python with peft, transformers and torch: LOMU_PYTHON, or python3.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <deque>
#include <string>
#include <vector>

#include "tests/engine/train/tiny_run.h"

namespace lomu {
namespace {

constexpr int kNoPeft = 77;

/// A run whose adapter PEFT must read.
struct Exported {
  std::string name;
  std::string model;
  std::vector<std::string> settings;
};

std::vector<Exported> exported() {
  return {{"all-sites", "llama-tied", {}},
          {"rslora-some-layers",
           "llama-tied",
           {"adapter.rslora=true", "adapter.rank=8", "adapter.alpha=5", "adapter.targets=q,v,down",
            "adapter.layers=0,2", "optimizer.name=adamw"}},
          {"weights-in-full",
           "llama-tied",
           {"adapter.full=embedding,norms,down", "adapter.targets=q,v,up", "optimizer.name=adamw"}},
          {"norms-of-heads-in-full", "qwen3", {"adapter.full=norms,k", "adapter.targets=q,o", "optimizer.name=adamw"}},
          {"biases-bf16-dropout", "qwen2", {"output.adapter_dtype=bf16", "adapter.dropout=0.1"}},
          {"norms-of-heads-balanced", "qwen3", {"adapter.init=balanced", "optimizer.damping=off"}}};
}

TEST(PeftParity, PeftComputesWhatLomuComputesWithAnExportedAdapter) {
  std::deque<TinyRun> runs;  // a run is where its folder is: it does not move
  const char* named = std::getenv("LOMU_PYTHON");
  std::vector<std::string> python = {named == nullptr ? "python3" : named, LOMU_PEFT_CASE};
  const std::vector<Exported> all = exported();
  for (const Exported& one : all) {
    runs.emplace_back(one.model);
    const TinyRun& run = runs.back();
    std::vector<std::string> settings = {"training.steps=2", "optimizer.lr=0.05"};
    settings.insert(settings.end(), one.settings.begin(), one.settings.end());
    const Outcome outcome = run.train("out", settings);
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    for (const char* name : {"model", "out/adapter", "case"}) python.push_back(run.path(name));
  }

  ProcessOptions options;
  options.folder = runs.front().path(".");
  options.patience = 300;
  const Outcome made = Process(python, options).wait();
  if (made.code == kNoPeft || made.code == 127) {
    GTEST_SKIP() << "needs a Python with peft, transformers and torch (LOMU_PYTHON=...): " << made.err;
  }
  ASSERT_EQ(made.code, 0) << made.err;

  for (std::size_t i = 0; i < all.size(); ++i) {
    const Outcome verified = runs[i].lomu({"verify", "model", "case", "--dtype", "f32"});
    EXPECT_EQ(verified.code, 0) << all[i].name << "\n" << verified.out << verified.err;
    EXPECT_THAT(verified.out, testing::HasSubstr("all 1 pass"));
  }

  // The comparison notices one wrong element of one factor.
  const TinyRun& run = runs.front();
  run.put("case/adapter/adapter_model.safetensors", "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",
          1);
  EXPECT_EQ(run.lomu({"verify", "model", "case", "--dtype", "f32"}).code, 1);
}

}  // namespace
}  // namespace lomu
