#include "models/files/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/models/files/test_support.h"

namespace lomu {
namespace {

using test::data_path;
using test::error_of;
using test::ScratchFolder;
using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

ModelConfig parse(std::string_view json) {
  const ScratchFolder scratch;
  return read_hf_config(test::write_text(scratch / "config.json", json));
}

// A small valid configuration with more keys put before the rest.
std::string llama(std::string_view more = "") {
  return fmt::format(R"({{{} "model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
    "num_attention_heads": 4, "vocab_size": 100, "max_position_embeddings": 128}})",
                     more);
}
std::string other(std::string_view type, std::string_view more = "") {
  return test::replaced(llama(more), "\"llama\"", fmt::format("\"{}\"", type));
}

TEST(HfConfig, LlamaTied) {
  const ModelConfig c = read_hf_config(data_path("models/llama-tied/config.json"));
  EXPECT_EQ(c.architecture, Architecture::kLlama);
  EXPECT_EQ(c.hidden_size, 64);
  EXPECT_EQ(c.intermediate_size, 160);
  EXPECT_EQ(c.num_layers, 3);
  EXPECT_EQ(c.num_heads, 4);
  EXPECT_EQ(c.num_kv_heads, 2);
  EXPECT_EQ(c.head_dim, 16);
  EXPECT_EQ(c.vocab_size, 320);
  EXPECT_EQ(c.max_position, 256);
  EXPECT_EQ(c.rms_norm_eps, 1e-5);
  EXPECT_EQ(c.rope.type, RopeType::kDefault);
  EXPECT_EQ(c.rope.theta, 100000.0);
  EXPECT_TRUE(c.tie_word_embeddings);
  EXPECT_FALSE(c.qkv_bias || c.o_bias || c.mlp_bias || c.qk_norm);
  EXPECT_THAT(c.sliding_window, ElementsAre(0, 0, 0));
  EXPECT_EQ(c.bos_id, 1);
  EXPECT_THAT(c.eos_ids, ElementsAre(2));
  EXPECT_FALSE(c.pad_id);
  EXPECT_EQ(c.stored_dtype, DType::kF32);
}

TEST(HfConfig, LlamaBiasInTheSpellingOfTransformers5) {
  const ModelConfig c = read_hf_config(data_path("models/llama-bias/config.json"));
  EXPECT_TRUE(c.qkv_bias && c.o_bias && c.mlp_bias);
  EXPECT_EQ(c.rope.theta, 10000.0);
  EXPECT_EQ(c.stored_dtype, DType::kF32);
  EXPECT_FALSE(c.tie_word_embeddings);
}

TEST(HfConfig, Llama3Rope) {
  const ModelConfig c = read_hf_config(data_path("models/llama3-rope-sharded/config.json"));
  EXPECT_EQ(c.rope.type, RopeType::kLlama3);
  EXPECT_EQ(c.rope.theta, 500000.0);
  EXPECT_EQ(c.rope.factor, 8.0);
  EXPECT_EQ(c.rope.low_freq_factor, 1.0);
  EXPECT_EQ(c.rope.high_freq_factor, 4.0);
  EXPECT_EQ(c.rope.original_max_position, 64);
  EXPECT_EQ(c.stored_dtype, DType::kBF16);
}

TEST(HfConfig, MistralWindowIsInEveryLayer) {
  const ModelConfig c = read_hf_config(data_path("models/mistral-window/config.json"));
  EXPECT_EQ(c.architecture, Architecture::kMistral);
  EXPECT_EQ(c.head_dim, 24);
  EXPECT_THAT(c.sliding_window, ElementsAre(8, 8, 8));
}

TEST(HfConfig, Qwen2HasBiasesAndNoWindowUnlessItIsUsed) {
  const ModelConfig c = read_hf_config(data_path("models/qwen2/config.json"));
  EXPECT_EQ(c.architecture, Architecture::kQwen2);
  EXPECT_TRUE(c.qkv_bias);
  EXPECT_FALSE(c.o_bias);
  EXPECT_THAT(c.sliding_window, Each(0));
  EXPECT_EQ(c.intermediate_size, 132);
}

TEST(HfConfig, Qwen3HasNormsAndAHeadSizeOfItsOwn) {
  const ModelConfig c = read_hf_config(data_path("models/qwen3/config.json"));
  EXPECT_TRUE(c.qk_norm);
  EXPECT_FALSE(c.qkv_bias);
  EXPECT_EQ(c.head_dim, 32);
  EXPECT_EQ(c.q_size(), 128);
}

TEST(HfConfig, MissingKeysTakeTheDefaultsOfTheirArchitecture) {
  const ModelConfig l = parse(R"({"model_type": "llama"})");
  EXPECT_EQ(l.hidden_size, 4096);
  EXPECT_EQ(l.intermediate_size, 11008);
  EXPECT_EQ(l.num_kv_heads, 32);
  EXPECT_EQ(l.head_dim, 128);
  EXPECT_EQ(l.max_position, 2048);
  EXPECT_EQ(l.rms_norm_eps, 1e-6);
  EXPECT_EQ(l.rope.theta, 10000.0);
  EXPECT_EQ(l.bos_id, 1);
  EXPECT_THAT(l.eos_ids, ElementsAre(2));
  EXPECT_FALSE(l.stored_dtype);
  const ModelConfig m = parse(R"({"model_type": "mistral"})");
  EXPECT_EQ(m.num_kv_heads, 8);
  EXPECT_EQ(m.intermediate_size, 14336);
  EXPECT_EQ(m.max_position, 131072);
  EXPECT_THAT(m.sliding_window, Each(4096));
  const ModelConfig q2 = parse(R"({"model_type": "qwen2"})");
  EXPECT_EQ(q2.vocab_size, 151936);
  EXPECT_EQ(q2.intermediate_size, 22016);
  EXPECT_FALSE(q2.bos_id);
  EXPECT_THAT(q2.eos_ids, IsEmpty());
  EXPECT_FALSE(q2.tie_word_embeddings);
  const ModelConfig q3 = parse(R"({"model_type": "qwen3", "hidden_size": 64, "num_attention_heads": 4,
                                   "num_key_value_heads": 2})");
  EXPECT_EQ(q3.head_dim, 128);
}

TEST(HfConfig, NullIsNotTheSameAsAbsent) {
  EXPECT_THAT(parse(other("mistral", R"("sliding_window": null, "num_key_value_heads": null,)")).sliding_window,
              Each(0));
  EXPECT_EQ(parse(other("mistral", R"("num_key_value_heads": null,)")).num_kv_heads, 4);
  EXPECT_FALSE(parse(llama(R"("bos_token_id": null,)")).bos_id);
  EXPECT_THAT(parse(llama(R"("eos_token_id": null,)")).eos_ids, IsEmpty());
  EXPECT_EQ(parse(llama(R"("head_dim": null,)")).head_dim, 16);
}

TEST(HfConfig, TokenIdsMayBeListsOrMinusOne) {
  const ModelConfig c = parse(llama(R"("eos_token_id": [7, 9, 8], "pad_token_id": -1,)"));
  EXPECT_THAT(c.eos_ids, ElementsAre(7, 9, 8));
  EXPECT_FALSE(c.pad_id);
}

TEST(HfConfig, QwenWindowsFollowMaxWindowLayersOrLayerTypes) {
  const std::string used = R"("num_key_value_heads": 4, "use_sliding_window": true, "sliding_window": 16,)";
  EXPECT_THAT(parse(other("qwen2", used + R"("max_window_layers": 1,)")).sliding_window, ElementsAre(0, 16, 16));
  EXPECT_THAT(parse(other("qwen2", used)).sliding_window, Each(0));  // 28 layers before the first window
  EXPECT_THAT(parse(other("qwen2", used + R"("max_window_layers": 0, "layer_types":
                          ["sliding_attention", "full_attention", "sliding_attention"],)"))
                  .sliding_window,
              ElementsAre(16, 0, 16));
}

TEST(HfConfig, RopeParametersInside) {
  const ModelConfig linear = parse(llama(R"("rope_theta": 5000, "rope_scaling": {"type": "linear", "factor": 4},)"));
  EXPECT_EQ(linear.rope.type, RopeType::kLinear);
  EXPECT_EQ(linear.rope.factor, 4.0);
  EXPECT_EQ(linear.rope.theta, 5000.0);
  const ModelConfig inside =
      parse(llama(R"("rope_theta": 5000, "rope_parameters": {"rope_type": "default", "rope_theta": 7},)"));
  EXPECT_EQ(inside.rope.theta, 7.0);
  const ModelConfig original = parse(llama(R"("rope_scaling": {"rope_type": "llama3", "factor": 2, "low_freq_factor": 1,
                                              "high_freq_factor": 4},)"));
  EXPECT_EQ(original.rope.original_max_position, 128);  // transformers falls back to max_position_embeddings
}

struct Refused {
  const char* what;
  const char* keys;
};
class Unsupported : public ::testing::TestWithParam<Refused> {};

TEST_P(Unsupported, FeatureIsRefusedByName) {
  EXPECT_THAT(error_of<UnsupportedError>([] { parse(llama(GetParam().keys)); }),
              AllOf(HasSubstr(GetParam().what), HasSubstr("config.json")));
}

INSTANTIATE_TEST_SUITE_P(
    HfConfig, Unsupported,
    ::testing::Values(
        Refused{"hidden_act \"gelu\"", R"("hidden_act": "gelu",)"},
        Refused{"rope_type \"yarn\"", R"("rope_scaling": {"rope_type": "yarn", "factor": 4},)"},
        Refused{"rope_type \"dynamic\"", R"("rope_scaling": {"type": "dynamic", "factor": 4},)"},
        Refused{"rope_type \"longrope\"", R"("rope_parameters": {"rope_type": "longrope"},)"},
        Refused{"rope_type \"mrope\"", R"("rope_scaling": {"type": "mrope"},)"},
        Refused{"partial_rotary_factor", R"("partial_rotary_factor": 0.5,)"},
        Refused{"partial_rotary_factor", R"("rope_parameters": {"partial_rotary_factor": 0.5},)"},
        Refused{"layer type", R"("rope_parameters": {"full_attention": {"rope_type": "default"}},)"},
        Refused{"num_local_experts", R"("num_local_experts": 8,)"}, Refused{"num_experts", R"("num_experts": 64,)"},
        Refused{"attn_logit_softcapping", R"("attn_logit_softcapping": 50.0,)"},
        Refused{"quantization_config", R"("quantization_config": {"quant_method": "gptq"},)"},
        Refused{"pretraining_tp", R"("pretraining_tp": 2,)"},
        Refused{"auto_map", R"("auto_map": {"AutoModelForCausalLM": "modeling_x.X"},)"},
        Refused{"LlamaForSequenceClassification", R"("architectures": ["LlamaForSequenceClassification"],)"},
        Refused{"layer_types", R"("layer_types": ["full_attention", "sliding_attention", "full_attention"],)"},
        Refused{"chunked_attention", R"("layer_types": ["chunked_attention", "full_attention", "full_attention"],)"},
        Refused{"rope_interleaved", R"("rope_interleaved": true,)"},
        Refused{"dtype \"float8_e4m3fn\"", R"("torch_dtype": "float8_e4m3fn",)"}));

TEST(HfConfig, OtherModelTypesAreRefusedByName) {
  for (const char* type : {"gpt2", "gemma2", "mixtral", "qwen2_moe", "phi3", "Llama", ""}) {
    EXPECT_THAT(error_of<UnsupportedError>([&] { parse(other(type)); }),
                HasSubstr(fmt::format("model_type \"{}\"", type)));
  }
}

class Malformed : public ::testing::TestWithParam<Refused> {};

TEST_P(Malformed, NumberIsRefusedByName) {
  EXPECT_THAT(error_of<FormatError>([] { parse(GetParam().keys); }),
              AllOf(HasSubstr(GetParam().what), HasSubstr("config.json")));
}

INSTANTIATE_TEST_SUITE_P(
    HfConfig, Malformed,
    ::testing::Values(
        Refused{"hidden_size", R"({"model_type": "llama", "hidden_size": 0})"},
        Refused{"hidden_size", R"({"model_type": "llama", "hidden_size": -64})"},
        Refused{"hidden_size",
                R"({"model_type": "llama", "hidden_size": 9223372036854775807, "num_attention_heads": 1})"},
        Refused{"hidden_size must be an integer", R"({"model_type": "llama", "hidden_size": 18446744073709551615})"},
        Refused{"hidden_size must be an integer", R"({"model_type": "llama", "hidden_size": "64"})"},
        Refused{"multiple of num_attention_heads", R"({"model_type": "llama", "hidden_size": 65})"},
        Refused{"num_attention_heads", R"({"model_type": "llama", "num_attention_heads": 0})"},
        Refused{"num_hidden_layers", R"({"model_type": "llama", "num_hidden_layers": 4000000000})"},
        Refused{"num_key_value_heads", R"({"model_type": "llama", "num_key_value_heads": 5})"},
        Refused{"head_dim", R"({"model_type": "llama", "head_dim": 7})"},
        Refused{"head_dim", R"({"model_type": "llama", "head_dim": 0})"},
        Refused{"rms_norm_eps", R"({"model_type": "llama", "rms_norm_eps": -1})"},
        Refused{"rope_theta", R"({"model_type": "llama", "rope_theta": 0})"},
        Refused{"rope_scaling.factor", R"({"model_type": "llama", "rope_scaling": {"type": "linear"}})"},
        Refused{"rope factor", R"({"model_type": "llama", "rope_scaling": {"type": "linear", "factor": 0}})"},
        Refused{"high_freq_factor", R"({"model_type": "llama", "rope_scaling":
                 {"rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4}})"},
        Refused{"sliding_window", R"({"model_type": "mistral", "sliding_window": 0})"},
        Refused{"layer_types has 1", R"({"model_type": "qwen3", "layer_types": ["full_attention"]})"},
        Refused{"no sliding_window in use",
                R"({"model_type": "qwen3", "num_hidden_layers": 1, "layer_types": ["sliding_attention"]})"},
        Refused{"eos_token_id", R"({"model_type": "llama", "eos_token_id": 32000})"},
        Refused{"eos_token_id", R"({"model_type": "llama", "eos_token_id": "</s>"})"},
        Refused{"tie_word_embeddings must be true or false", R"({"model_type": "llama", "tie_word_embeddings": 1})"},
        Refused{"model_type is missing", R"({"hidden_size": 64})"},
        Refused{"not valid JSON", R"({"model_type": "llama")"},
        Refused{"appears twice", R"({"model_type": "llama", "model_type": "llama"})"},
        Refused{"expected a JSON object", "[]"}, Refused{"not valid JSON", ""},
        Refused{"rope_scaling must be an object", R"({"model_type": "llama", "rope_scaling": 2})"}));

TEST(HfConfig, SyntaxErrorsNameTheLine) {
  EXPECT_THAT(error_of<FormatError>([] { parse("{\n\"model_type\": \"llama\",\n oops\n}"); }),
              HasSubstr("config.json:3"));
  const std::string deep(100000, '[');
  EXPECT_THAT(error_of<FormatError>([&] { parse(deep); }), HasSubstr("nested deeper"));
}

TEST(RopeFrequencies, DefaultAndLinear) {
  ModelConfig c;
  c.head_dim = 8;
  c.rope.theta = 10000.0;
  EXPECT_THAT(rope_inverse_frequencies(c),
              ElementsAre(1.0, ::testing::DoubleNear(0.1, 1e-15), ::testing::DoubleNear(0.01, 1e-16),
                          ::testing::DoubleNear(0.001, 1e-17)));
  c.rope.type = RopeType::kLinear;
  c.rope.factor = 4.0;
  EXPECT_DOUBLE_EQ(rope_inverse_frequencies(c)[0], 0.25);
}

// Computed with transformers 5.23 (_compute_llama3_parameters in float64) for the values of the llama3-rope-sharded
// case.
TEST(RopeFrequencies, Llama3KeepsShortBlendsMiddleAndStretchesLongWavelengths) {
  const ModelConfig c = read_hf_config(data_path("models/llama3-rope-sharded/config.json"));
  const auto f = rope_inverse_frequencies(c);
  const std::vector<double> expected = {1.0,
                                        0.0794030091792082,
                                        0.004700753866357992,
                                        0.0009115830921521386,
                                        0.00017677669529663688,
                                        3.428102195952591e-05,
                                        6.647869871181236e-06,
                                        1.2891731721515574e-06};
  ASSERT_EQ(f.size(), expected.size());
  for (std::size_t i = 0; i < f.size(); ++i) EXPECT_NEAR(f[i] / expected[i], 1.0, 1e-12) << i;
}

TEST(RopeFrequencies, DivisorsOfAGgufDivide) {
  ModelConfig c;
  c.head_dim = 4;
  c.rope.frequency_divisors = {1.0f, 8.0f};
  EXPECT_DOUBLE_EQ(rope_inverse_frequencies(c)[1], 0.01 / 8.0);
}

}  // namespace
}  // namespace lomu
