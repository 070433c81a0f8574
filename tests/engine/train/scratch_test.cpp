// Models trained from nothing, and weights trained in full: they learn, the model that is written computes what was
// trained, and neither ranks nor an interruption change a bit.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "tests/engine/train/tiny_run.h"

namespace lomu {
namespace {

using nlohmann::json;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

constexpr const char* kJob =
    "model: {start: scratch, scratch: {layers: 2, hidden: 32, heads: 2}}\n"
    "adapter: {rank: 4, alpha: 4}\n"
    "data: {train: text.txt, validation_split: 0.2, max_length: 64, cache_dir: cache}\n"
    "training: {steps: 60, micro_batch_tokens: 128, micro_batches: 3, save_every: 0}\n"
    "optimizer: {name: adamw, lr: 0.01}\n"
    "runtime: {dtype: f32, threads: 1}\n"
    "output: {dir: out}\n";

/// Sentences of a small grammar: what comes next follows from the words before.
std::string text(std::size_t sentences) {
  constexpr std::array<const char*, 4> kWho = {"the cat", "a bird", "my horse", "one fish"};
  constexpr std::array<const char*, 4> kWhat = {" drinks cold milk", " sings at dawn", " runs uphill", " swims alone"};
  std::minstd_rand random(7);
  std::string all;
  for (std::size_t i = 0; i < sentences; ++i) {
    const std::size_t which = (random() >> 8) % kWho.size();
    all += std::string(kWho[which]) + kWhat[which] + ".\n";
  }
  return all;
}

/// Mean loss, in nats, of the best guess that looks at nothing but how often each byte occurs.
double loss_without_context(const std::string& all) {
  std::map<char, double> counts;
  for (const char c : all) ++counts[c];
  double loss = 0;
  for (const auto& [byte, count] : counts) {
    const double share = count / static_cast<double>(all.size());
    loss -= share * std::log(share);
  }
  return loss;
}

class FromScratch : public testing::Test {
 protected:
  FromScratch() {
    run_.write("text.txt", text(200));
    run_.write("job.yaml", kJob);
  }
  json summary(const std::string& out, const std::vector<std::string>& settings, const Launch& launch = {}) {
    const Outcome outcome = run_.train(out, settings, launch);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return json::parse(run_.read(out + "/summary.json"));
  }
  [[nodiscard]] std::string model(const std::string& out) const { return run_.read(out + "/model/model.safetensors"); }

  const TinyRun run_;
};

struct Kind {
  std::string name;
  std::vector<std::string> settings;
  friend void PrintTo(const Kind& kind, std::ostream* out) { *out << kind.name; }
};

class FromScratchAs : public FromScratch, public testing::WithParamInterface<Kind> {};

TEST_P(FromScratchAs, LearnsAndLeavesTheModelThatItTrained) {
  const json first = summary("out", GetParam().settings);
  EXPECT_NEAR(first["first_loss"].get<double>(), std::log(257.0), 0.1);
  const double after = first["validation_after"].get<double>();
  EXPECT_LT(after, loss_without_context(text(200)));
  EXPECT_THAT(run_.list("out"), ElementsAre("config.yaml", "metrics.jsonl", "model", "summary.json"));
  EXPECT_THAT(run_.list("out/model"), Contains("tokenizer.json"));

  // Another program reads the folder as any model. Its products were summed in another order, so they differ by
  // rounding.
  run_.write("again.yaml",
             "model: {path: out/model}\n"
             "adapter: {rank: 2}\n"
             "data: {train: text.txt, validation_split: 0.2, max_length: 64, cache_dir: cache}\n"
             "training: {steps: 1, micro_batch_tokens: 128, micro_batches: 3}\n"
             "runtime: {dtype: f32, threads: 1}\n"
             "output: {dir: again}\n");
  const Outcome outcome = run_.lomu({"train", "again.yaml"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const json second = json::parse(run_.read("again/summary.json"));
  EXPECT_NEAR(second["validation_before"].get<double>(), after, 1e-4 * after);
  const Outcome written = run_.lomu({"generate", "--model", "out/model", "--prompt", "the ", "--max-tokens", "8"});
  EXPECT_EQ(written.code, 0) << written.err;
}

INSTANTIATE_TEST_SUITE_P(Kinds, FromScratchAs,
                         testing::Values(Kind{"products", {"model.scratch.base=none"}},
                                         Kind{"adapters_on_random_weights", {}},
                                         Kind{"dense", {"adapter.targets=none", "adapter.full=all"}},
                                         Kind{"mixed",
                                              {"model.scratch.base=none", "adapter.targets=q,v,gate,up",
                                               "adapter.full=embedding,head,norms,k,o,down"}}),
                         [](const auto& test) { return test.param.name; });

TEST_F(FromScratch, TheModelIsTheSameOnAnyRanksAndThreadsAndAfterAnInterruption) {
  const std::vector<std::string> settings = {"model.scratch.base=none", "adapter.full=embedding,head,norms,down",
                                             "adapter.targets=q,k,v,o,gate,up", "training.steps=8"};
  (void)summary("alone", settings);
  const std::string alone = model("alone");
  ASSERT_GT(alone.size(), 10'000u);
  for (const int ranks : {2, 3}) {
    std::vector<std::string> more = settings;
    more.push_back(fmt::format("runtime.ranks_in_process={}", ranks));
    (void)summary("ranks", [&] {
      more.emplace_back("output.overwrite=true");
      return more;
    }());
    EXPECT_TRUE(model("ranks") == alone) << ranks << " ranks";
  }
  std::vector<std::string> with_checkpoints = settings;
  with_checkpoints.emplace_back("training.save_every=3");
  (void)summary("out", with_checkpoints);
  EXPECT_TRUE(model("out") == alone);
  std::filesystem::remove_all(run_.path("out/model"));
  std::filesystem::remove_all(run_.path("out/checkpoints/step-00000008"));
  std::filesystem::remove(run_.path("out/summary.json"));
  std::vector<std::string> arguments = train_arguments("out", with_checkpoints);
  arguments.emplace_back("--resume");
  const Outcome resumed = run_.lomu(arguments);
  ASSERT_EQ(resumed.code, 0) << resumed.err;
  EXPECT_TRUE(model("out") == alone);
}

TEST_F(FromScratch, ProductsLearnByLoraMuonBesideWeightsByAdamW) {
  std::string job = kJob;
  const std::string optimizer = "optimizer: {name: adamw, lr: 0.01}\n";
  job.replace(
      job.find(optimizer), optimizer.size(),
      "optimizer: {name: lora_muon, lr: 0.1, groups: [{match: [embedding, head, norm], name: adamw, lr: 0.01}]}\n");
  run_.write("job.yaml", job);
  const json first = summary("out", {"model.scratch.base=none"});
  EXPECT_LT(first["validation_after"].get<double>(), loss_without_context(text(200)));
  // LoRA-Muon has no step for a weight without factors.
  const Outcome refused = run_.train("other", {"model.scratch.base=none", "adapter.full=all", "adapter.targets=none"});
  EXPECT_EQ(refused.code, 2);
  EXPECT_THAT(refused.err, HasSubstr("lora_muon"));
}

TEST_F(FromScratch, AnotherSeedIsAnotherModel) {
  (void)summary("one", {"training.steps=1"});
  (void)summary("two", {"training.steps=1", "training.seed=1"});
  EXPECT_FALSE(model("one") == model("two"));
}

TEST_F(FromScratch, RefusesSizesThatDoNotFit) {
  const auto refused = [&](const std::vector<std::string>& settings, const std::string& what) {
    const Outcome outcome = run_.train("out", settings);
    EXPECT_EQ(outcome.code, 2);
    EXPECT_THAT(outcome.err, HasSubstr(what));
    EXPECT_FALSE(std::filesystem::exists(run_.path("out")));
  };
  refused({"model.scratch.heads=3"}, "3 heads do not divide a width of 32");
  refused({"model.scratch.kv_heads=4"}, "4 kv_heads do not divide 2 heads");
  refused({"model.path=model"}, "`model.path` has an effect only with `model.start: files`");
  refused({"adapter.targets=none", "adapter.full=none"}, "nothing is trained");
  refused({"adapter.full=q"}, "q is both a target and trained in full");
  refused({"adapter.full=nose"}, "`nose` is no weight that can be trained in full");
  refused({"adapter.full=embeding"}, "did you mean `embedding`?");
}

TEST(FullWeights, OfAFinetunedModelComeBackWithTheAdapter) {
  const TinyRun run;
  const Outcome outcome = run.train("out", {"optimizer.name=adamw", "optimizer.lr=0.01", "adapter.full=embedding,norms",
                                            "data.validation=test.jsonl"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(run.read("out/adapter/adapter_config.json"), HasSubstr("embed_tokens"));
  const json first = json::parse(run.read("out/summary.json"));
  // Going on from the adapter begins where it ended.
  const Outcome more = run.train("more", {"optimizer.name=adamw", "optimizer.lr=0.01", "adapter.full=embedding,norms",
                                          "data.validation=test.jsonl", "adapter.from=out/adapter"});
  ASSERT_EQ(more.code, 0) << more.err;
  EXPECT_EQ(json::parse(run.read("more/summary.json"))["validation_before"], first["validation_after"]);
}

TEST(FullWeights, AreTakenByExportAndGenerate) {
  const TinyRun run;
  ASSERT_EQ(run.train("out", {"optimizer.name=adamw", "optimizer.lr=0.05", "adapter.full=embedding,norms,down",
                              "adapter.targets=q,v"})
                .code,
            0);
  const Outcome merged = run.lomu({"export", "out", "--merged", "--out", "merged", "--dtype", "f32"});
  ASSERT_EQ(merged.code, 0) << merged.err;
  const auto answer = [&](const std::vector<std::string>& which) {
    std::vector<std::string> arguments = {"generate", "--prompt", "red blue", "--max-tokens", "12", "--dtype", "f32"};
    arguments.insert(arguments.end(), which.begin(), which.end());
    const Outcome outcome = run.lomu(arguments);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return outcome.out;
  };
  const std::string adapted = answer({"--model", "model", "--adapter", "out/adapter"});
  EXPECT_EQ(answer({"--model", "merged"}), adapted);
  EXPECT_NE(answer({"--model", "model"}), adapted);
}

}  // namespace
}  // namespace lomu
