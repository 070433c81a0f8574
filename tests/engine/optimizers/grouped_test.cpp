// Parameter groups: who steps which parameter, with which rate, and what is refused.
#include "engine/optimizers/grouped.h"

#include <gtest/gtest.h>

#include "engine/optimizers/parameter_names.h"
#include "kernels/error.h"
#include "tests/engine/optimizers/test_pairs.h"

namespace lomu::testing {
namespace {

TEST(ParameterNames, SitesHaveWords) {
  EXPECT_EQ(site_word("model.layers.0.self_attn.q_proj"), "q");
  EXPECT_EQ(site_word("model.layers.11.mlp.gate_proj.weight"), "gate");
  EXPECT_EQ(site_word("model.layers.0.self_attn.q_proj.bias"), "bias");
  EXPECT_EQ(site_word("model.layers.0.self_attn.q_norm.weight"), "norm");
  EXPECT_EQ(site_word("model.layers.0.input_layernorm.weight"), "norm");
  EXPECT_EQ(site_word("model.norm.weight"), "norm");
  EXPECT_EQ(site_word("model.embed_tokens.weight"), "embedding");
  EXPECT_EQ(site_word("lm_head.weight"), "head");
  EXPECT_EQ(site_word("something.else"), "");
  EXPECT_EQ(site_word("x.unheard_proj"), "");
  EXPECT_EQ(site_word(""), "");
}

TEST(ParameterNames, PatternsAreWordsOrGlobs) {
  const std::string_view name = "model.layers.10.self_attn.q_proj.weight";
  for (const char* pattern : {"q", "*", "model.layers.10.*", "model.layers.*.self_attn.q_proj", "*.q_proj.weight",
                              "model.layers.1?.self_attn.?_proj", "*layers*10*q_proj*"}) {
    EXPECT_TRUE(matches_parameter(pattern, name)) << pattern;
  }
  for (const char* pattern : {"", "k", "q_proj", "layers.10", "model.layers.1.*", "model.layers.?.*", "*.k_proj",
                              "model.layers.10.self_attn.q_proj.weight.more", "norm"}) {
    EXPECT_FALSE(matches_parameter(pattern, name)) << pattern;
  }
  EXPECT_FALSE(matches_parameter("", "something"));
  EXPECT_TRUE(matches_parameter("norms", "model.norm.weight"));
  EXPECT_FALSE(matches_parameter("norms", name));
}

OptimizerOptions plain(OptimizerKind kind, double lr) {
  OptimizerOptions o;
  o.name = kind;
  o.lr = lr;
  return o;
}

/// LoRA-Muon, with AdamW for norms, Muon for a dense matrix, and another rate for one layer's q.
OptimizerOptions grouped_options() {
  OptimizerOptions o = plain(OptimizerKind::kLoraMuon, 0.02);
  OptimizerOptions norms = plain(OptimizerKind::kAdamW, 1e-3);
  norms.weight_decay = 0.1;
  o.groups = {{{"norm"}, norms},
              {{"head"}, plain(OptimizerKind::kMuon, 0.04)},
              {{"model.layers.1.*.q_proj"}, plain(OptimizerKind::kLoraMuon, 0.005)}};
  return o;
}

std::vector<OwnedPair> some_parameters() {
  std::mt19937_64 random(151);
  std::vector<OwnedPair> all;
  for (const char* name : {"model.layers.1.self_attn.q_proj", "model.layers.0.self_attn.q_proj"}) {
    all.push_back(random_pair(random, 20, 16, 3));
    all.back().name = name;
  }
  all.push_back(random_matrix(random, 1, 16));
  all.back().name = "model.norm.weight";
  all.push_back(random_matrix(random, 30, 16));
  all.back().name = "lm_head.weight";
  return all;
}

std::vector<OwnedPair> stepped(std::vector<OwnedPair> all, Optimizer& optimizer, double lr) {
  std::vector<PairView> views;
  for (OwnedPair& p : all) {
    p.give_state(optimizer);
    views.push_back(p.view());
  }
  StepReport report;
  for (std::int64_t t = 1; t <= 3; ++t) optimizer.step(views, {t, lr, {}}, report);
  EXPECT_EQ(report.pairs.size(), all.size());
  for (const PairReport& pair : report.pairs) EXPECT_GT(pair.update_norm_squared, 0.0);
  return all;
}

TEST(Grouped, EachParameterIsSteppedByItsOwnOptimizerAtItsOwnRate) {
  const auto start = some_parameters();
  const OptimizerOptions options = grouped_options();
  // The schedule is at half its peak: so is every group.
  const auto together = stepped(start, *make_optimizer(options), 0.5 * options.lr);
  const std::vector<OptimizerOptions> own = {options.groups[2].options, plain(OptimizerKind::kLoraMuon, 0.02),
                                             options.groups[0].options, options.groups[1].options};
  for (std::size_t i = 0; i < start.size(); ++i) {
    const auto alone = stepped({start[i]}, *make_optimizer(own[i]), 0.5 * own[i].lr);
    EXPECT_EQ(together[i].left, alone[0].left) << start[i].name;
    EXPECT_EQ(together[i].right, alone[0].right) << start[i].name;
    EXPECT_EQ(together[i].state, alone[0].state) << start[i].name;
  }
}

std::string refusal(const OptimizerOptions& options) {
  const auto all = some_parameters();
  std::vector<ParameterShape> shapes;
  for (const OwnedPair& p : all) shapes.push_back({p.name, p.m, p.n, p.r, p.dense});
  try {
    make_optimizer(options)->check_all(shapes);
  } catch (const UsageError& error) {
    return std::string(error.what()) + " | " + error.where() + " | " + error.hint();
  }
  return "accepted";
}

TEST(Grouped, PatternsWithoutAParameterAreRefused) {
  EXPECT_EQ(refusal(grouped_options()), "accepted");
  OptimizerOptions o = grouped_options();
  o.groups[0].match = {"norm", "querry"};
  const std::string said = refusal(o);
  for (const char* part : {"`querry` means none of the 4", "optimizer.groups[0].match", "as model.layers.1"}) {
    EXPECT_NE(said.find(part), std::string::npos) << said;
  }
  o = grouped_options();
  o.groups.push_back({{"q"}, plain(OptimizerKind::kLoraMuon, 0.01)});
  EXPECT_EQ(refusal(o), "accepted") << "one q is left";
  o.groups.push_back({{"model.layers.0.*"}, plain(OptimizerKind::kLoraMuon, 0.01)});
  EXPECT_NE(refusal(o).find("taken by groups before it"), std::string::npos);
  o = grouped_options();
  o.groups[1].match.clear();
  EXPECT_NE(refusal(o).find("no patterns"), std::string::npos);
}

TEST(Grouped, APairThatItsOptimizerCannotTrainIsNamed) {
  std::mt19937_64 random(152);
  OptimizerOptions o = grouped_options();
  o.groups[0].options = plain(OptimizerKind::kMuon, 0.02);  // a vector to muon
  const auto optimizer = make_optimizer(o);
  OwnedPair norm = some_parameters()[2];
  norm.give_state(*optimizer);
  EXPECT_THROW(step_once(*optimizer, norm, {1, 0.02, {}}), UsageError);
}

TEST(Grouped, OneNormClipsAllGroups) {
  OptimizerOptions o = grouped_options();
  o.max_grad_norm = 0.5;
  const auto start = some_parameters();
  OwnedPair norm = start[2];
  const auto optimizer = make_optimizer(o);
  norm.give_state(*optimizer);
  EXPECT_THROW(step_once(*optimizer, norm, {1, 0.02, {}}), Error) << "clipping needs the norm";
  EXPECT_NO_THROW(step_once(*optimizer, norm, {1, 0.02, 1.0}));
}

}  // namespace
}  // namespace lomu::testing
