// A table of mistakes and what must be said about each: the message, the place, and the way out.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/engine/config/config_fixture.h"

namespace lomu::config {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::SizeIs;

struct Mistake {
  std::string name;
  std::string yaml;  ///< after the smallest job, from line 7 on
  std::vector<std::string> said;
};

void PrintTo(const Mistake& mistake, std::ostream* out) {
  *out << mistake.name;
}

class WrongYaml : public testing::TestWithParam<Mistake> {};

TEST_P(WrongYaml, IsRefusedWithPlaceAndHint) {
  const auto found = problems(kSmallest + GetParam().yaml);
  ASSERT_THAT(found, SizeIs(1)) << testing::PrintToString(found);
  for (const auto& fragment : GetParam().said) EXPECT_THAT(found.front(), HasSubstr(fragment));
}

const std::vector<Mistake> kMistakes = {
    {"peer_name", "optimizer:\n  learning_rate: 1\n", {"unknown key", "job.yaml:8", "`optimizer.lr`"}},
    {"peer_name_at_top", "num_epochs: 3\n", {"job.yaml:7 (num_epochs)", "`training.epochs`"}},
    {"peer_section", "lora:\n  r: 3\n", {"job.yaml:7", "did you mean `adapter`"}},
    {"axolotl_batch", "micro_batch_size: 3\n", {"`training.micro_batch_tokens`", "counted in tokens"}},
    {"typo", "adapter: {rnak: 3}\n", {"unknown key `adapter.rnak`", "`adapter.rank`"}},
    {"typo_in_section", "trainig: {steps: 3}\n", {"`training`"}},
    {"other_section", "adapter: {lr: 3}\n", {"`optimizer.lr`"}},
    {"top_level", "rank: 3\n", {"`adapter.rank`"}},
    {"ambiguous", "name: x\n", {"`training.schedule.name` or `optimizer.name`"}},
    {"upper_case", "adapter: {Rank: 3}\n", {"`adapter.rank`"}},
    {"hyphen", "training: {save-every: 3}\n", {"`training.save_every`"}},
    {"nothing_near", "zzzzzzzz: 3\n", {"`lomu schema` lists every key"}},
    {"dotted", "adapter.rank: 3\n", {"write `rank:` below `adapter:`"}},
    {"key_is_a_list", "[a, b]: 3\n", {"a key is not a word", "job.yaml:7"}},
    {"doubled_key", "adapter:\n  rank: 3\n  rank: 4\n", {"given twice", "job.yaml:9 (adapter.rank)", "line 8"}},
    {"doubled_section", "model: {path: x}\n", {"given twice", "line 1"}},
    {"merge_key", "adapter:\n  <<: {rank: 3}\n", {"merge keys"}},
    {"section_as_value", "training: 3\n", {"a group of keys is expected", "`training:`", "steps"}},
    {"scalar_schedule", "training: {schedule: cosine}\n", {"a group of keys", "name"}},
    {"empty_section", "adapter:\n", {"the section is empty", "(adapter)"}},
    {"list_as_value", "adapter: {rank: [1, 2]}\n", {"a list", "integer 1..256"}},
    {"map_as_value", "adapter: {rank: {a: 2}}\n", {"a group of keys", "integer 1..256"}},
    {"nested_list", "adapter: {targets: [[q], k]}\n", {"nested"}},
    {"null_value", "adapter: {rank: }\n", {"no value", "its default is 16"}},
    {"null_word", "adapter: {rank: null}\n", {"no value"}},
    {"tilde", "data: \n", {"given twice"}},
    {"word_for_integer", "adapter: {rank: many}\n", {"`many` is not an integer", "(adapter.rank)"}},
    {"quoted_integer", "adapter: {rank: \"16\"}\n", {"\"16\" is not an integer", "remove the quotes"}},
    {"fraction", "adapter: {rank: 1.5}\n", {"`1.5` is not an integer"}},
    {"whole_fraction", "adapter: {rank: 1.6e1}\n", {"is not an integer", "write 16"}},
    {"separators", "training: {steps: 1_000}\n", {"write 1000"}},
    {"commas", "training: {steps: \"1,000\"}\n", {"remove the quotes"}},
    {"octal", "adapter: {rank: 010}\n", {"octal", "write 10"}},
    {"hexadecimal", "adapter: {rank: 0x10}\n", {"not an integer"}},
    {"too_small", "adapter: {rank: 0}\n", {"0 is out of range", "integer 1..256"}},
    {"too_large", "adapter: {rank: 257}\n", {"257 is out of range"}},
    {"overflow", "adapter: {rank: 99999999999999999999}\n", {"too large"}},
    {"beyond_int", "training: {save_every: 2147483648}\n", {"too large", "at most 2147483647"}},
    {"negative", "training: {seed: -1}\n", {"out of range"}},
    {"unit", "training: {micro_batch_tokens: 2k}\n", {"`2k` is not an integer"}},
    {"nan", "optimizer: {lr: .nan}\n", {"not a finite number"}},
    {"nan_word", "optimizer: {lr: nan}\n", {"not a finite number"}},
    {"infinite", "optimizer: {lr: .inf}\n", {"not a finite number"}},
    {"double_overflow", "optimizer: {lr: 1e999}\n", {"beyond what a double holds"}},
    {"double_underflow", "optimizer: {lr: 1e-999}\n", {"beyond what a double holds"}},
    {"zero_rate", "optimizer: {lr: 0}\n", {"out of range", "number > 0"}},
    {"full_dropout", "adapter: {dropout: 1}\n", {"out of range", "0 <= x < 1"}},
    {"decimal_comma", "optimizer: {lr: '0,1'}\n", {"not a finite number"}},
    {"yes", "adapter: {rslora: yes}\n", {"`yes` is not true or false", "write true"}},
    {"off", "data: {x: 1}\n", {"given twice"}},
    {"number_for_boolean", "output2: 1\n", {"`output`"}},
    {"wrong_choice", "optimizer: {name: adamW}\n", {"did you mean `adamw`?", "allowed: lora_muon, adamw"}},
    {"far_choice", "optimizer: {name: sgd}\n", {"allowed: lora_muon, adamw"}},
    {"unknown_target", "adapter: {targets: [q, gat]}\n", {"`gat`", "did you mean `gate`?"}},
    {"doubled_target", "adapter: {targets: [q, q_proj]}\n", {"`q` is given twice"}},
    {"no_target", "adapter: {targets: []}\n", {"the list is empty"}},
    {"all_and_more", "adapter: {targets: [all, q]}\n", {"all alone"}},
    {"null_target", "adapter: {targets: [q, ~]}\n", {"no value"}},
    {"bad_layers", "adapter: {layers: first}\n", {"`first` is not a layer"}},
    {"backward_layers", "adapter: {layers: 9-0}\n", {"write 0-9"}},
    {"doubled_layer", "adapter: {layers: [0-3, 2]}\n", {"layer 2 is given twice"}},
    {"negative_layer", "adapter: {layers: -1}\n", {"not a layer"}},
    {"huge_layer", "adapter: {layers: 0-99999999}\n", {"not a layer"}},
    {"tag", "adapter: {rank: !!int 3}\n", {"tag"}},
    {"home", "adapter: {from: ~/a}\n", {"~ is not expanded"}},
    {"empty_path", "adapter: {from: ''}\n", {"the path is empty"}},
    {"steps_and_epochs", "training: {steps: 3, epochs: 1}\n", {"exclude each other", "keep one"}},
    {"two_warmups", "training: {schedule: {warmup_steps: 3, warmup_ratio: 0.1}}\n", {"exclude each other"}},
    {"key_of_adamw",
     "optimizer: {beta1: 0.9}\n",
     {"only with `optimizer.name: adamw, lora_plus", "which is lora_muon"}},
    {"filter_without_values",
     "optimizer: {filter: damped, orthogonalizer: newton_schulz}\n",
     {"needs the singular values", "(optimizer.filter)"}},
    {"key_of_a_filter", "optimizer: {filter_tau: 0.3}\n", {"only with `optimizer.filter: damped`, which is sign"}},
    {"polar_express_with_a_metric", "optimizer: {orthogonalizer: polar_express}\n", {"no polar_express"}},
    {"undamped_rite", "optimizer: {name: lora_rite, damping: off}\n", {"cannot start from a zero factor"}},
    {"decay_of_the_faster_factor",
     "optimizer: {name: lora_plus, lr: 0.1, weight_decay: 1}\n",
     {"weight_decay x lr = 1.6"}},
    {"key_of_lora_muon",
     "optimizer: {name: adamw, momentum: 0.9}\n",
     {"only with `optimizer.name: lora_muon, lora_rite_core, muon, muon_factors or spectron`"}},
    {"decay_without_wsd", "training: {schedule: {decay_ratio: 0.1}}\n", {"`training.schedule.name: wsd`"}},
    {"long_warmup", "training: {steps: 3, schedule: {warmup_steps: 4}}\n", {"longer than the run of 3"}},
    {"full_schedule",
     "training: {schedule: {name: wsd, warmup_ratio: 0.5, decay_ratio: 0.6}}\n",
     {"more than the whole run"}},
    {"strong_decay", "optimizer: {lr: 0.5, weight_decay: 2}\n", {"weight_decay x lr = 1", "below 1"}},
    {"undamped_zero", "optimizer: {damping: off}\n", {"cannot start from a zero factor", "adapter.init: balanced"}},
    {"idle_ranks",
     "training: {micro_batches: 2}\nruntime: {ranks_in_process: 3}\n",
     {"3 ranks for 2 micro-batches", "job.yaml:8"}},
    {"cuda_on_cpu_backend", "runtime: {device: cuda, backend: cpu}\n", {"remove runtime.backend"}},
    {"tab", "adapter:\n\trank: 3\n", {"not valid YAML", "job.yaml:8", "spaces"}},
    {"open_bracket", "adapter: {rank: 3\n", {"not valid YAML", "job.yaml:"}},
    {"two_documents", "---\nadapter: {rank: 3}\n", {"more than one YAML document"}},
};

std::string name_of(const testing::TestParamInfo<Mistake>& info) {
  return info.param.name;
}

INSTANTIATE_TEST_SUITE_P(Table, WrongYaml, testing::ValuesIn(kMistakes), name_of);

TEST(WrongYamlFile, WithoutKeysIsRefused) {
  for (const std::string text : {"", "\n", "# only a comment\n", "~", "---\n"}) {
    EXPECT_THAT(problems(text), Contains(HasSubstr("is empty"))) << text;
  }
  EXPECT_THAT(problems("just words\n"), Contains(HasSubstr("not a group of keys")));
  EXPECT_THAT(problems("- a\n- b\n"), Contains(HasSubstr("not a group of keys")));
}

TEST(WrongYamlFile, RequiredKeysAreNamed) {
  const auto found = problems("adapter: {rank: 3}\n");
  EXPECT_THAT(found, Contains(HasSubstr("`model.path` is missing | job.yaml")));
  EXPECT_THAT(found, Contains(HasSubstr("`data.train` is missing")));
  EXPECT_THAT(found, Contains(HasSubstr("`output.dir` is missing")));
  EXPECT_THAT(found, SizeIs(3));
}

TEST(WrongYamlFile, EveryProblemIsReportedInTheOrderOfTheFile) {
  const auto found = problems(
      "adapter:\n  rank: 0\n  alfa: 3\ntraining:\n  steps: x\n  epochs: 1\noutput: {dir: o}\nmodel: {path: m}\n",
      {"optimizer.lr=-1", "nonsense"});
  ASSERT_THAT(found, SizeIs(7)) << testing::PrintToString(found);
  EXPECT_THAT(found[0], HasSubstr("job.yaml:2"));
  EXPECT_THAT(found[1], HasSubstr("job.yaml:3"));
  EXPECT_THAT(found[2], HasSubstr("job.yaml:5"));
  EXPECT_THAT(found[3], HasSubstr("job.yaml:6"));
}

TEST(WrongYamlFile, OutputMustNotBeTheModel) {
  EXPECT_THAT(problems("model: {path: a/b}\ndata: {train: t}\noutput: {dir: a/./b}\n"),
              Contains(HasSubstr("the model itself")));
}

TEST(WrongOverride, IsRefusedLikeTheFile) {
  const auto said = [](const std::string& text) { return problems(kSmallest, {text}); };
  EXPECT_THAT(said("adapter.rank=0"), Contains(HasSubstr("0 is out of range | command line: adapter.rank=0")));
  EXPECT_THAT(said("adapter.rnk=1"), Contains(HasSubstr("did you mean `adapter.rank`")));
  EXPECT_THAT(said("--lr"), Contains(HasSubstr("key.path=value")));
  EXPECT_THAT(said("adapter={rank: 3}"), Contains(HasSubstr("is a group of keys")));
  EXPECT_THAT(said("adapter.rank="), Contains(HasSubstr("no value")));
  EXPECT_THAT(said("=3"), SizeIs(1));
  EXPECT_THAT(said("data.train=[a"), Contains(HasSubstr("not a list")));
  EXPECT_THAT(said("data.train=[{a: b}]"), Contains(HasSubstr("not a list")));
  EXPECT_THAT(said("adapter.rank=[1, 2]"), Contains(HasSubstr("a list")));
  EXPECT_THAT(problems(kSmallest, {"adapter.rank=3", "adapter.rank=4"}), Contains(HasSubstr("given twice")));
  EXPECT_THAT(problems(kSmallest, {"training.steps=3", "training.epochs=4"}),
              Contains(HasSubstr("exclude each other")));
}

// Whatever is cut off or overwritten, the answer is a configuration or a ConfigError: no crash, no other exception.
TEST(WrongYamlFile, DamageNeverCrashes) {
  const std::string whole =
      "# job\nmodel: &m {path: \"m.gguf\"}\nadapter:\n  targets: [q, 'v']\n  layers: 0-3,5\n"
      "data:\n  train:\n    - a.jsonl\n    - b.jsonl\ntraining: {steps: 10, schedule: {name: wsd}}\n"
      "optimizer:\n  lr: 1e-2 # rate\n  damping: off\noutput: {dir: |\n  out\n  }\n";
  int refused = 0;
  const auto feed = [&refused](const std::string& text) {
    try {
      parse(text);
    } catch (const ConfigError& error) {
      ++refused;
      EXPECT_FALSE(std::string(error.what()).empty());
    }
  };
  for (std::size_t length = 0; length < whole.size(); ++length) feed(whole.substr(0, length));
  const std::string hostile = "{}[]:,&*!|>'\"%@`#-?~<\n\t 0";
  for (std::size_t at = 0; at < whole.size(); ++at) {
    std::string damaged = whole;
    damaged[at] = hostile[(at * 7 + at / 5) % hostile.size()];
    feed(damaged);
  }
  EXPECT_GT(refused, 100);
}

TEST(WrongYamlFile, HostileStructureEnds) {
  EXPECT_THAT(problems(std::string(100000, '[')), SizeIs(1));
  EXPECT_THAT(problems(std::string(100000, '{')), SizeIs(1));
  std::string bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n";
  for (char c = 'b'; c <= 'z'; ++c) {
    bomb += std::string(1, c) + ": &" + c + " [";
    for (int i = 0; i < 10; ++i) bomb += std::string(i ? ", *" : "*") + static_cast<char>(c - 1);
    bomb += "]\n";
  }
  EXPECT_FALSE(problems(bomb).empty());
  EXPECT_FALSE(problems(kSmallest + "adapter: {targets: *unknown}\n").empty());
}

}  // namespace
}  // namespace lomu::config
