// optimizer.groups: a list of groups of keys, read and written by the same table as the keys of `optimizer`.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "engine/config/resolved.h"
#include "engine/config/schema_text.h"
#include "engine/config/terminal.h"
#include "tests/engine/config/config_fixture.h"

namespace lomu::config {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

const std::string kGrouped = kSmallest +
                             "optimizer:\n"  // line 7
                             "  lr: 0.03\n"
                             "  momentum: 0.8\n"
                             "  groups:\n"
                             "    - match: [norm, bias]\n"  // line 11
                             "      name: adamw\n"
                             "      weight_decay: 0.1\n"
                             "    - {match: model.layers.*.self_attn.q_proj, lr: 0.01}\n"  // line 14
                             "    - match: down\n"                                         // line 15
                             "      lr_multiplier: 0.1\n"
                             "      filter: damped\n";

TEST(Groups, AreReadWithTheKeysOfOptimizer) {
  const TrainConfig config = parse(kGrouped);
  ASSERT_EQ(config.optimizer_groups.size(), 3u);
  const OptimizerGroup& norms = config.optimizer_groups[0];
  EXPECT_THAT(norms.match, ElementsAre("norm", "bias"));
  EXPECT_EQ(norms.optimizer.name, OptimizerName::kAdamW);
  EXPECT_EQ(norms.optimizer.weight_decay, 0.1);
  EXPECT_EQ(config.optimizer_groups[1].optimizer.lr, 0.01);
  EXPECT_EQ(config.optimizer_groups[2].optimizer.filter, SpectralFilter::kDamped);
}

TEST(Groups, TakeWhatTheyLeaveOutFromOptimizerAndTheRateOfAnotherOptimizerFromItsDefault) {
  const TrainConfig config = parse(kGrouped);
  EXPECT_EQ(config.optimizer_groups[0].optimizer.lr, 2e-4);
  EXPECT_EQ(config.optimizer_groups[1].optimizer.momentum, 0.8);
  EXPECT_EQ(config.optimizer_groups[2].optimizer.momentum, 0.8);
  EXPECT_EQ(config.optimizer_groups[2].optimizer.lr, 0.1 * 0.03);
  const TrainConfig same = parse(kSmallest + "optimizer: {lr: 0.03, groups: [{match: q, nesterov: true}]}\n");
  EXPECT_EQ(same.optimizer_groups[0].optimizer.lr, 0.03);
}

TEST(Groups, AreKeptInTheResolvedConfiguration) {
  const TrainConfig config = parse(kGrouped);
  const std::string text = resolved_yaml(config);
  EXPECT_EQ(parse(text), config) << text;
  EXPECT_EQ(resolved_yaml(parse(text)), text);
  EXPECT_THAT(text, AllOf(HasSubstr("  groups:  #"), HasSubstr("    - match: [norm, bias] "),
                          HasSubstr("\n      beta1: 0.9 "), Not(HasSubstr("lr_multiplier"))));
  EXPECT_THAT(resolved_yaml(parse(kSmallest)), Not(HasSubstr("groups")));
}

TEST(Groups, AreChangedFromTheCommandLine) {
  const TrainConfig config = parse(kGrouped, {"optimizer.groups[1].lr=0.5", "optimizer.lr=0.1"});
  EXPECT_EQ(config.optimizer_groups[1].optimizer.lr, 0.5);
  EXPECT_EQ(config.optimizer_groups[2].optimizer.lr, 0.1 * 0.1) << "a multiplier goes with the rate";
  EXPECT_THAT(problems(kGrouped, {"optimizer.groups[3].lr=1"}), ElementsAre(HasSubstr("has no optimizer.groups[3]")));
  EXPECT_THAT(problems(kGrouped, {"optimizer.groups[1].lrr=1"}),
              ElementsAre(AllOf(HasSubstr("unknown key `optimizer.groups[1].lrr`"), HasSubstr("groups.lr"))));
  EXPECT_THAT(problems(kGrouped, {"optimizer.groups=x"}), ElementsAre(HasSubstr("is a list of groups of keys")));
  EXPECT_THAT(problems(kGrouped, {"optimizer.groups[x].lr=1"}), ElementsAre(HasSubstr("unknown key")));
}

TEST(Groups, DoNotCarryARateToAnotherOptimizer) {
  const std::string text =
      kSmallest + "optimizer: {groups: [{match: q, lr: 0.05}, {match: k, name: adamw, lr: 1e-3}]}\n";
  EXPECT_THAT(problems(text, {"optimizer.name=adamw"}),
              ElementsAre(AllOf(HasSubstr("`optimizer.groups.lr` of the file was chosen for lora_muon"),
                                HasSubstr("give optimizer.groups[0].lr=..."))));
  EXPECT_EQ(parse(text, {"optimizer.name=adamw", "optimizer.groups[0].lr=1e-4"}).optimizer_groups[0].optimizer.lr,
            1e-4);
  EXPECT_THAT(problems(text, {"optimizer.groups[1].name=lora_plus"}), ElementsAre(HasSubstr("chosen for adamw")));
}

TEST(Groups, DoNotCarryARateToAnotherMultiplier) {
  const std::string text = kSmallest + "optimizer: {lr: 0.03, groups: [{match: q}, {match: k, multiplier: rms}]}\n";
  EXPECT_EQ(parse(text).optimizer_groups[0].optimizer.lr, 0.03);
  EXPECT_EQ(parse(text).optimizer_groups[1].optimizer.lr, 4e-4);
  const std::string of_adamw = kSmallest + "optimizer: {groups: [{match: q, name: adamw, lr: 1e-3}]}\n";
  EXPECT_THAT(problems(of_adamw, {"optimizer.multiplier=none"}), ElementsAre()) << "adamw has no multiplier";
}

struct Wrong {
  std::string group;  ///< lines 14 to ... of the job, after a sound first group
  std::vector<std::string> said;
};

TEST(Groups, MistakesAreNamedWithPlaceAndHint) {
  const std::string head = kSmallest + "optimizer:\n  groups:\n    - {match: q}\n";  // ends in line 9
  const std::vector<Wrong> cases = {
      {"    - match: k\n      lrr: 1\n", {"unknown key `optimizer.groups[1].lrr`", "job.yaml:11", "groups.lr`"}},
      {"    - match: k\n      learning_rate: 1\n", {"job.yaml:11 (optimizer.groups[1].learning_rate)", "groups.lr`"}},
      {"    - {match: k, max_grad_norm: 1}\n", {"unknown key `optimizer.groups[1].max_grad_norm`"}},
      {"    - {lr: 1}\n", {"`optimizer.groups.match` is missing", "job.yaml:10 (optimizer.groups[1])"}},
      {"    - {match: []}\n", {"the list is empty", "(optimizer.groups[1].match)"}},
      {"    - {match: k, lr: 0}\n", {"0 is out of range", "(optimizer.groups[1].lr)"}},
      {"    - {match: k, lr: 1, lr_multiplier: 2}\n", {"exclude each other"}},
      {"    - {match: k, name: adam}\n", {"did you mean `adamw`", "(optimizer.groups[1].name)"}},
      {"    - {match: k, beta1: 0.9}\n", {"only with `optimizer.groups.name: adamw", "which is lora_muon"}},
      {"    - {match: k, lr: 2, weight_decay: 1}\n", {"shrinks the factors to nothing", "job.yaml:10"}},
      {"    - {match: k, damping: off}\n", {"cannot start from a zero factor", "(optimizer.groups[1].damping)"}},
      {"    - {match: k, lr: 1, lr: 2}\n", {"given twice", "(optimizer.groups[1].lr)"}},
      {"    - k\n", {"not a group of keys", "job.yaml:10 (optimizer.groups[1])"}},
  };
  for (const Wrong& wrong : cases) {
    const auto found = problems(head + wrong.group);
    ASSERT_EQ(found.size(), 1u) << wrong.group << testing::PrintToString(found);
    for (const std::string& part : wrong.said) EXPECT_THAT(found[0], HasSubstr(part));
  }
  for (const char* value : {"3", "{match: q}", "[]", "\n"}) {
    EXPECT_THAT(problems(kSmallest + "optimizer:\n  groups: " + value + "\n"),
                ElementsAre(AllOf(HasSubstr("a list of groups of keys"), HasSubstr("match"))));
  }
}

TEST(Groups, AreInTheSchema) {
  const std::string text = schema_text(train_schema(), Style(false), 100);
  EXPECT_THAT(text, AllOf(HasSubstr("optimizer.groups: a list"), HasSubstr("lr_multiplier"),
                          HasSubstr("every key of optimizer but max_grad_norm")));
  const auto json = nlohmann::json::parse(schema_json(train_schema()));
  const auto& groups = json["properties"]["optimizer"]["properties"]["groups"];
  EXPECT_EQ(groups["type"], "array");
  const auto& item = groups["items"];
  EXPECT_EQ(item["additionalProperties"], false);
  EXPECT_EQ(item["required"], nlohmann::json::array({"match"}));
  EXPECT_TRUE(item["properties"].contains("lr"));
  EXPECT_TRUE(item["properties"].contains("filter_tau"));
  EXPECT_FALSE(item["properties"].contains("max_grad_norm"));
}

}  // namespace
}  // namespace lomu::config
