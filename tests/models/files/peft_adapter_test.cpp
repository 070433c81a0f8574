#include "models/files/peft_adapter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "models/files/peft_pattern.h"
#include "models/files/safetensors_writer.h"
#include "tests/models/files/test_support.h"

namespace lomu {
namespace {

using test::data_path;
using test::error_of;
using test::ScratchFolder;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

ModelConfig config_of(std::string_view name) {
  return read_hf_config(data_path(fmt::format("models/{}/config.json", name)));
}

void expect_equal(const AdapterFile& a, const AdapterFile& b) {
  ASSERT_EQ(a.pairs.size(), b.pairs.size());
  EXPECT_EQ(a.use_rslora, b.use_rslora);
  EXPECT_EQ(a.base_model, b.base_model);
  EXPECT_EQ(a.dropout, b.dropout);
  for (std::size_t i = 0; i < a.pairs.size(); ++i) {
    const AdapterPair& x = a.pairs[i];
    const AdapterPair& y = b.pairs[i];
    EXPECT_TRUE(x.layer == y.layer && x.site == y.site && x.r == y.r && x.alpha == y.alpha && x.scale == y.scale) << i;
    EXPECT_EQ(x.a, y.a);
    EXPECT_EQ(x.b, y.b);
  }
}

struct Golden {
  const char* name;
  std::size_t pairs;
  std::int64_t r;
  double scale;
};
class GoldenAdapter : public ::testing::TestWithParam<Golden> {};

TEST_P(GoldenAdapter, IsReadWithRankAndScaleAndSurvivesWriting) {
  const ScratchFolder scratch;
  const ModelConfig config = config_of(GetParam().name);
  const AdapterFile adapter = read_peft_adapter(data_path(fmt::format("models/{}/adapter", GetParam().name)), config);
  ASSERT_EQ(adapter.pairs.size(), GetParam().pairs);
  for (const AdapterPair& pair : adapter.pairs) {
    EXPECT_EQ(pair.r, GetParam().r);
    EXPECT_DOUBLE_EQ(pair.scale, GetParam().scale);
  }
  write_peft_adapter(scratch / "out", adapter, config);
  expect_equal(read_peft_adapter(scratch / "out", config), adapter);
}

INSTANTIATE_TEST_SUITE_P(PeftAdapter, GoldenAdapter,
                         ::testing::Values(Golden{"llama-tied", 21, 8, 2.0}, Golden{"llama-bias", 14, 8, 0.5},
                                           Golden{"llama3-rope-sharded", 14, 4, 3.0},
                                           Golden{"mistral-window", 6, 5, 2.0},
                                           Golden{"qwen2", 14, 6, 3.6742346141747673}, Golden{"qwen3", 14, 4, 2.0}));

// Three layers of hidden size 64; what is asked for, filled with numbers that 16 bits hold exactly.
class Adapter : public ::testing::Test {
 protected:
  AdapterPair pair(std::int64_t layer, Site site, std::int64_t r, double alpha) {
    const WeightShape weight = shape_of(config_, weight_of(layer, site));
    AdapterPair p;
    p.layer = layer;
    p.site = site;
    p.r = r;
    p.alpha = alpha;
    p.scale = alpha / static_cast<double>(r);
    p.a.resize(static_cast<std::size_t>(r * weight.cols));
    p.b.resize(static_cast<std::size_t>(r * weight.rows));
    for (std::size_t i = 0; i < p.a.size(); ++i) p.a[i] = static_cast<float>(i % 129) / 64.0f - 1.0f;
    for (std::size_t i = 0; i < p.b.size(); ++i) p.b[i] = static_cast<float>(i % 65) / -32.0f;
    return p;
  }
  void write(const AdapterFile& adapter) { write_peft_adapter(out(), adapter, config_, DType::kF32, true); }
  [[nodiscard]] std::filesystem::path out() const { return scratch_ / "adapter"; }
  [[nodiscard]] std::string config_text() const { return test::read_text(out() / "adapter_config.json"); }
  void edit(std::string_view from, std::string_view to) {
    test::write_text(out() / "adapter_config.json", test::replaced(config_text(), from, to));
  }
  AdapterFile read() { return read_peft_adapter(out(), config_); }

  const ScratchFolder scratch_;
  const ModelConfig config_ = config_of("llama-tied");
};

TEST_F(Adapter, DifferentRanksAndAlphasComeBackThroughPatterns) {
  AdapterFile adapter;
  adapter.dropout = 0.05;
  for (std::int64_t layer = 0; layer < 3; ++layer) {
    adapter.pairs.push_back(pair(layer, Site::kQ, 4, 8));
    adapter.pairs.push_back(pair(layer, Site::kV, 2, 8));
    adapter.pairs.push_back(pair(layer, Site::kDown, layer == 1 ? 3 : 4, layer == 1 ? 1.5 : 8));
  }
  write(adapter);
  expect_equal(read(), adapter);
  EXPECT_THAT(config_text(), AllOf(HasSubstr("\"v_proj\": 2"), HasSubstr("\"model.layers.1.mlp.down_proj\": 3"),
                                   HasSubstr("\"model.layers.1.mlp.down_proj\": 1.5"), HasSubstr("\"r\": 4"),
                                   HasSubstr("\"layers_to_transform\": null")));
}

TEST_F(Adapter, SomeLayersGoIntoLayersToTransform) {
  AdapterFile adapter;
  adapter.base_model = "base \"quoted\" \\ model";
  for (const std::int64_t layer : {0, 2}) {
    for (const Site site : {Site::kO, Site::kUp}) adapter.pairs.push_back(pair(layer, site, 2, 4));
  }
  write(adapter);
  expect_equal(read(), adapter);
  EXPECT_THAT(config_text(), HasSubstr("\"layers_to_transform\": [\n    0,\n    2\n  ]"));
}

TEST_F(Adapter, AnyOtherSetOfPairsIsListedByModule) {
  AdapterFile adapter;
  adapter.use_rslora = true;
  adapter.pairs = {pair(0, Site::kQ, 4, 8), pair(2, Site::kGate, 4, 8)};
  for (AdapterPair& p : adapter.pairs) p.scale = 4.0;
  write(adapter);
  expect_equal(read(), adapter);
  EXPECT_THAT(config_text(), HasSubstr("\"model.layers.2.mlp.gate_proj\""));
}

TEST_F(Adapter, SixteenBitFilesHoldTheRoundedValues) {
  AdapterFile adapter;
  adapter.pairs = {pair(0, Site::kQ, 1, 1)};
  adapter.pairs[0].a[3] = 1.0f / 3.0f;
  for (const DType dtype : {DType::kF16, DType::kBF16}) {
    write_peft_adapter(out(), adapter, config_, dtype, true);
    const float expected =
        dtype == DType::kF16 ? static_cast<float>(F16(1.0f / 3.0f)) : static_cast<float>(BF16(1.0f / 3.0f));
    EXPECT_EQ(read().pairs[0].a[3], expected);
    EXPECT_EQ(read().pairs[0].b, adapter.pairs[0].b);
  }
}

TEST_F(Adapter, WhatCannotBeWrittenIsRefusedAndNothingIsLeft) {
  AdapterFile adapter;
  adapter.pairs = {pair(0, Site::kQ, 2, 4)};
  const auto refused = [&](AdapterFile bad, DType dtype = DType::kF32) {
    EXPECT_THROW(write_peft_adapter(out(), bad, config_, dtype), Error);
    EXPECT_TRUE(std::filesystem::is_empty(scratch_.path()));
  };
  AdapterFile bad = adapter;
  bad.pairs[0].a[5] = std::numeric_limits<float>::quiet_NaN();
  refused(bad);
  bad = adapter;
  bad.pairs[0].b[5] = 1e6f;  // beyond f16
  refused(bad, DType::kF16);
  bad = adapter;
  bad.pairs[0].scale = 3;
  refused(bad);
  bad = adapter;
  bad.pairs[0].layer = 3;
  refused(bad);
  bad = adapter;
  bad.pairs[0].a.pop_back();
  refused(bad);
  bad = adapter;
  bad.pairs.push_back(bad.pairs[0]);
  refused(bad);
  refused({});
}

TEST_F(Adapter, WeightsTrainedInFullAreModulesToSave) {
  AdapterFile adapter;
  adapter.pairs = {pair(0, Site::kQ, 2, 4)};
  for (const WeightId id : {WeightId{WeightKind::kEmbed, 0}, WeightId{WeightKind::kFinalNorm, 0},
                            WeightId{WeightKind::kMlpNorm, 1}, WeightId{WeightKind::kDown, 2}}) {
    FullWeight full{id, std::vector<float>(static_cast<std::size_t>(shape_of(config_, id).size()))};
    for (std::size_t i = 0; i < full.values.size(); ++i) full.values[i] = static_cast<float>(i % 97) / 16.0f;
    adapter.full.push_back(std::move(full));
  }
  write(adapter);
  const AdapterFile back = read();
  expect_equal(back, adapter);
  ASSERT_EQ(back.full.size(), adapter.full.size());
  for (std::size_t i = 0; i < back.full.size(); ++i) {
    EXPECT_EQ(back.full[i].weight, adapter.full[i].weight) << i;
    EXPECT_EQ(back.full[i].values, adapter.full[i].values) << i;
  }
  EXPECT_THAT(config_text(), HasSubstr("\"modules_to_save\": [\n    \"down_proj\",\n    \"embed_tokens\",\n    "
                                       "\"lm_head\",\n    \"norm\",\n    \"post_attention_layernorm\"\n  ]"));

  edit("\"down_proj\",", "");
  EXPECT_THAT(error_of<FormatError>([&] { read(); }),
              AllOf(HasSubstr("does not name this module"), HasSubstr("layers.2.mlp.down_proj.weight")));
  edit("\"embed_tokens\",", "\"embed_tokens\", \"down_proj\", \"q_norm\",");
  EXPECT_THAT(error_of<FormatError>([&] { read(); }), HasSubstr("q_norm"));
}

TEST_F(Adapter, AnExistingFolderStaysUnlessItMayBeReplaced) {
  AdapterFile adapter;
  adapter.pairs = {pair(0, Site::kQ, 2, 4)};
  std::filesystem::create_directories(out());
  test::write_text(out() / "mine.txt", "mine");
  EXPECT_THAT(error_of<FileError>([&] { write_peft_adapter(out(), adapter, config_); }), HasSubstr("exists already"));
  EXPECT_EQ(test::read_text(out() / "mine.txt"), "mine");
  write(adapter);
  EXPECT_FALSE(std::filesystem::exists(out() / "mine.txt"));
  expect_equal(read(), adapter);
}

struct Edit {
  const char* message;
  const char* from;
  const char* to;
};
class RefusedAdapter : public Adapter, public ::testing::WithParamInterface<Edit> {
 protected:
  void SetUp() override {
    AdapterFile adapter;
    for (std::int64_t layer = 0; layer < 3; ++layer) adapter.pairs.push_back(pair(layer, Site::kQ, 2, 4));
    write(adapter);
    edit(GetParam().from, GetParam().to);
  }
};

class UnsupportedPeft : public RefusedAdapter {};
TEST_P(UnsupportedPeft, IsRefusedByName) {
  EXPECT_THAT(error_of<UnsupportedError>([&] { read(); }),
              AllOf(HasSubstr(GetParam().message), HasSubstr("adapter_config.json")));
}
INSTANTIATE_TEST_SUITE_P(
    PeftAdapter, UnsupportedPeft,
    ::testing::Values(Edit{"use_dora", "\"use_dora\": false", "\"use_dora\": true"},
                      Edit{"bias", "\"bias\": \"none\"", "\"bias\": \"lora_only\""},
                      Edit{"fan_in_fan_out", "\"fan_in_fan_out\": false", "\"fan_in_fan_out\": true"},
                      Edit{"peft_type \"ADALORA\"", "\"LORA\"", "\"ADALORA\""},
                      Edit{"task_type \"SEQ_CLS\"", "\"CAUSAL_LM\"", "\"SEQ_CLS\""},
                      Edit{"pissa", "\"init_lora_weights\": true", "\"init_lora_weights\": \"pissa\""},
                      Edit{"layer_replication", "\"layer_replication\": null", "\"layer_replication\": [[0, 2]]"},
                      Edit{"layers_pattern", "\"layers_pattern\": null", "\"layers_pattern\": \"blocks\""},
                      Edit{"lora_bias", "\"revision\": null", "\"lora_bias\": true"},
                      Edit{"use_qalora", "\"revision\": null", "\"use_qalora\": true"},
                      Edit{"trainable_token_indices", "\"revision\": null", "\"trainable_token_indices\": [1]"},
                      Edit{"feature_of_next_year", "\"revision\": null", "\"feature_of_next_year\": {\"on\": 1}"},
                      Edit{"lm_head", "\"q_proj\"", "\"q_proj\", \"lm_head\""},
                      Edit{"embed_tokens", "\"q_proj\"", "\"q_proj\", \"embed_tokens\""}));

class MalformedPeft : public RefusedAdapter {};
TEST_P(MalformedPeft, IsRefusedWithAMessage) {
  EXPECT_THAT(error_of<FormatError>([&] { read(); }), HasSubstr(GetParam().message));
}
INSTANTIATE_TEST_SUITE_P(
    PeftAdapter, MalformedPeft,
    ::testing::Values(Edit{"k_proj.lora_A.weight", "\"q_proj\"", "\"q_proj\", \"k_proj\""},
                      Edit{"does not target", "\"layers_to_transform\": null", "\"layers_to_transform\": [0, 1]"},
                      Edit{"does not target", "\"layers_to_transform\": null", "\"layers_to_transform\": 2"},
                      Edit{"[3, 64]", "\"r\": 2", "\"r\": 3"}, Edit{"positive integer", "\"r\": 2", "\"r\": 0"},
                      Edit{"positive integer", "\"r\": 2", "\"r\": 1e300"},
                      Edit{"[5, 64]", "\"rank_pattern\": {}", "\"rank_pattern\": {\"layers.1.*q_proj\": 5}"},
                      Edit{"wrong at character", "\"rank_pattern\": {}", "\"rank_pattern\": {\"(\": 5}"},
                      Edit{"cannot be matched", "[\n    \"q_proj\"\n  ]", "\"(.+)+(.+)+(.+)+[A-Z]\""},
                      Edit{"matches no projection", "[\n    \"q_proj\"\n  ]", "\"nothing\""},
                      Edit{"target_modules", "[\n    \"q_proj\"\n  ]", "[]"},
                      Edit{"target_modules", "[\n    \"q_proj\"\n  ]", "null"},
                      Edit{"k_proj", "[\n    \"q_proj\"\n  ]", "\"all-linear\""},
                      Edit{"lora_dropout", "\"lora_dropout\": 0.0", "\"lora_dropout\": 1.5"}));

class SpelledOtherwise : public RefusedAdapter {};
TEST_P(SpelledOtherwise, IsTheSameAdapter) {
  EXPECT_EQ(read().pairs.size(), 3u);
}
INSTANTIATE_TEST_SUITE_P(
    PeftAdapter, SpelledOtherwise,
    ::testing::Values(Edit{"", "[\n    \"q_proj\"\n  ]", "\".*\\\\.q_proj\""},
                      Edit{"", "\"q_proj\"", "\"self_attn.q_proj\""},
                      Edit{"", "[\n    \"q_proj\"\n  ]",
                           "\"model\\\\.layers\\\\.\\\\d+\\\\.self_attn\\\\.(q|x)_proj\""},
                      Edit{"", "\"q_proj\"", "\"q_proj\", \"k_proj\"], \"exclude_modules\": [\"k_proj\""},
                      Edit{"", "\"layers_to_transform\": null", "\"layers_to_transform\": [0, 1, 2]"},
                      Edit{"", "\"layers_to_transform\": null", "\"layers_to_transform\": []"},
                      Edit{"", "\"r\": 2", "\"r\": 2, \"unknown_but_off\": null"}));

TEST_F(Adapter, TensorsThatAreNoFactorsAreRefused) {
  AdapterFile adapter;
  adapter.pairs = {pair(0, Site::kQ, 2, 4), pair(1, Site::kQ, 2, 4), pair(2, Site::kQ, 2, 4)};
  write(adapter);
  std::string text = test::read_text(out() / "adapter_model.safetensors");
  const std::string from = "layers.2.self_attn.q_proj.lora_A.weight";
  test::write_text(out() / "adapter_model.safetensors",
                   test::replaced(text, from, "layers.2.self_attn.q_proj.lora_Q.weight"));
  EXPECT_THAT(error_of<FormatError>([&] { read(); }), AllOf(HasSubstr("layers.2"), HasSubstr("missing")));
}

TEST_F(Adapter, PickledAndMissingFilesAreSaid) {
  std::filesystem::create_directories(out());
  EXPECT_THAT(error_of<FileError>([&] { read(); }), HasSubstr("adapter_config.json"));
  test::write_text(out() / "adapter_config.json", R"({"peft_type": "LORA", "target_modules": ["q_proj"]})");
  EXPECT_THAT(error_of<FileError>([&] { read(); }), HasSubstr("adapter_model.safetensors"));
  test::write_text(out() / "adapter_model.bin", "x");
  EXPECT_THAT(error_of<UnsupportedError>([&] { read(); }), HasSubstr("pickled"));
}

}  // namespace
}  // namespace lomu
