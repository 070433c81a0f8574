#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "models/files/gguf.h"
#include "models/files/model_config.h"
#include "models/files/model_files.h"
#include "tests/models/files/gguf_bytes.h"
#include "tests/models/files/test_support.h"

namespace lomu {
namespace {

using test::error_of;
using test::GgufBytes;
using test::ScratchFolder;
using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct Tensor {
  std::string name;
  std::vector<std::int64_t> dims;
};

// A model of one layer: hidden 8, 2 heads of 4, 1 kv head, feed-forward 6, vocabulary 5; all weights zero.
struct Model {
  std::string architecture = "llama";
  std::vector<std::function<void(GgufBytes&, const std::string&)>> keys;
  std::vector<Tensor> tensors{
      {"token_embd.weight", {8, 5}},        {"output_norm.weight", {8}},      {"blk.0.attn_norm.weight", {8}},
      {"blk.0.attn_q.weight", {8, 8}},      {"blk.0.attn_k.weight", {8, 4}},  {"blk.0.attn_v.weight", {8, 4}},
      {"blk.0.attn_output.weight", {8, 8}}, {"blk.0.ffn_norm.weight", {8}},   {"blk.0.ffn_gate.weight", {8, 6}},
      {"blk.0.ffn_up.weight", {8, 6}},      {"blk.0.ffn_down.weight", {6, 8}}};

  void u32(std::string key, std::uint32_t value) {
    keys.push_back([key, value](GgufBytes& g, const std::string& a) { g.key_u32(test_key(a, key), value); });
  }
  void f32(std::string key, float value) {
    keys.push_back([key, value](GgufBytes& g, const std::string& a) { g.key_f32(test_key(a, key), value); });
  }
  void string(std::string key, std::string value) {
    keys.push_back([key, value](GgufBytes& g, const std::string& a) { g.key_string(test_key(a, key), value); });
  }
  void u32_list(std::string key, std::vector<std::uint32_t> values) {
    keys.push_back([key, values](GgufBytes& g, const std::string& a) {
      g.string(test_key(a, key)).put(9u).put(4u).put(static_cast<std::uint64_t>(values.size()));
      for (const std::uint32_t v : values) g.put(v);
    });
  }

  // "." in front: a key of the architecture.
  static std::string test_key(const std::string& architecture, const std::string& key) {
    return key.starts_with(".") ? architecture + key : key;
  }

  void usual_keys() {
    string("general.architecture", architecture);
    u32(".block_count", 1);
    u32(".context_length", 64);
    u32(".embedding_length", 8);
    u32(".feed_forward_length", 6);
    u32(".attention.head_count", 2);
    u32(".attention.head_count_kv", 1);
    f32(".attention.layer_norm_rms_epsilon", 1e-5f);
  }

  [[nodiscard]] std::string bytes() const {
    GgufBytes g;
    g.header(tensors.size(), keys.size());
    for (const auto& key : keys) key(g, architecture);
    std::uint64_t offset = 0;
    for (const Tensor& t : tensors) {
      std::int64_t elements = 1;
      for (const std::int64_t d : t.dims) elements *= d;
      g.tensor(t.name, t.dims, 0, offset);
      offset = (offset + static_cast<std::uint64_t>(elements) * 4 + 31) / 32 * 32;
    }
    // Ones, so that rope_freqs.weight is a table of divisors.
    g.align();
    for (std::uint64_t i = 0; i < offset / 4; ++i) g.put(1.0f);
    return g.bytes();
  }

  [[nodiscard]] ModelConfig config() const {
    const ScratchFolder scratch;
    return ModelFiles::open(test::write_text(scratch / "m.gguf", bytes())).config();
  }
  template <typename E>
  [[nodiscard]] std::string error() const {
    return error_of<E>([&] { (void)config(); });
  }
};

Model usual(std::string architecture = "llama") {
  Model m;
  m.architecture = std::move(architecture);
  m.usual_keys();
  if (m.architecture == "qwen3") {
    m.tensors.push_back({"blk.0.attn_q_norm.weight", {4}});
    m.tensors.push_back({"blk.0.attn_k_norm.weight", {4}});
  }
  return m;
}

TEST(GgufConfig, ReadsNumbersAndDefaults) {
  const ModelConfig c = usual().config();
  EXPECT_EQ(c.architecture, Architecture::kLlama);
  EXPECT_EQ(c.num_layers, 1);
  EXPECT_EQ(c.hidden_size, 8);
  EXPECT_EQ(c.intermediate_size, 6);
  EXPECT_EQ(c.num_heads, 2);
  EXPECT_EQ(c.num_kv_heads, 1);
  EXPECT_EQ(c.head_dim, 4);
  EXPECT_EQ(c.vocab_size, 5);
  EXPECT_EQ(c.max_position, 64);
  EXPECT_EQ(c.rms_norm_eps, 1e-5);
  EXPECT_EQ(c.rope.theta, 10000.0);
  EXPECT_TRUE(c.tie_word_embeddings);
  EXPECT_FALSE(c.qkv_bias || c.o_bias || c.mlp_bias || c.qk_norm);
  EXPECT_THAT(c.sliding_window, Each(0));
  EXPECT_TRUE(usual("qwen3").config().qk_norm);
}

TEST(GgufConfig, BiasesAndHeadFollowTheTensors) {
  Model m = usual("qwen2");
  for (const char* name : {"q", "k", "v"}) {
    m.tensors.push_back({fmt::format("blk.0.attn_{}.bias", name), {*name == 'q' ? 8 : 4}});
  }
  m.tensors.push_back({"output.weight", {8, 5}});
  EXPECT_TRUE(m.config().qkv_bias);
  EXPECT_FALSE(m.config().tie_word_embeddings);
  m.tensors.pop_back();
  m.tensors.pop_back();
  EXPECT_THAT(m.error<FormatError>(), AllOf(HasSubstr("blk.0.attn_v.bias"), HasSubstr("missing")));
}

TEST(GgufConfig, TokenIdsAndSeveralStops) {
  Model m = usual();
  m.u32("tokenizer.ggml.bos_token_id", 1);
  m.u32("tokenizer.ggml.eos_token_id", 2);
  m.u32("tokenizer.ggml.eot_token_id", 3);
  m.u32("tokenizer.ggml.padding_token_id", 0xffffffff);
  const ModelConfig c = m.config();
  EXPECT_EQ(c.bos_id, 1);
  EXPECT_THAT(c.eos_ids, ElementsAre(2, 3));
  EXPECT_FALSE(c.pad_id);
}

TEST(GgufConfig, RopeScalingLinearAndFrequencyFactors) {
  Model m = usual();
  m.string(".rope.scaling.type", "linear");
  m.f32(".rope.scaling.factor", 4.0f);
  EXPECT_EQ(m.config().rope.type, RopeType::kLinear);
  EXPECT_EQ(m.config().rope.factor, 4.0);
  Model old = usual();
  old.f32(".rope.scale_linear", 2.0f);
  EXPECT_EQ(old.config().rope.factor, 2.0);
  Model factors = usual();
  factors.tensors.push_back({"rope_freqs.weight", {2}});
  EXPECT_THAT(factors.config().rope.frequency_divisors, ElementsAre(1.0f, 1.0f));
  factors.tensors.back().dims = {3};
  EXPECT_THAT(factors.error<FormatError>(), HasSubstr("3 rope frequency factors"));
}

TEST(GgufConfig, MistralWindowIsInEveryLayerAndLongOnesAreNone) {
  Model m = usual();
  m.u32(".attention.sliding_window", 16);
  EXPECT_THAT(m.config().sliding_window, ElementsAre(16));
  Model longer = usual();
  longer.u32(".attention.sliding_window", 64);
  EXPECT_THAT(longer.config().sliding_window, ElementsAre(0));
}

TEST(GgufConfig, NumbersALayerMustAgree) {
  Model m;
  m.usual_keys();
  m.keys.erase(m.keys.begin() + 6);
  m.u32_list(".attention.head_count_kv", {1});
  EXPECT_EQ(m.config().num_kv_heads, 1);
  m.keys.pop_back();
  m.u32_list(".attention.head_count_kv", {1, 2});
  EXPECT_THAT(m.error<UnsupportedError>(), HasSubstr("different shapes (llama.attention.head_count_kv)"));
}

TEST(GgufConfig, OtherFeaturesAreRefusedByName) {
  const auto refused = [](const std::string& what, const std::function<void(Model&)>& change,
                          std::string architecture = "llama") {
    Model m = usual(std::move(architecture));
    change(m);
    EXPECT_THAT(m.error<UnsupportedError>(), HasSubstr(what));
  };
  refused(
      "\"gemma\"", [](Model&) {}, "gemma");
  refused("expert_count", [](Model& m) { m.u32(".expert_count", 8); });
  refused("attn_logit_softcapping", [](Model& m) { m.f32(".attn_logit_softcapping", 50); });
  refused("\"yarn\"", [](Model& m) { m.string(".rope.scaling.type", "yarn"); });
  refused("longrope", [](Model& m) { m.tensors.push_back({"rope_factors_long.weight", {2}}); });
  refused("rope.dimension_count", [](Model& m) { m.u32(".rope.dimension_count", 2); });
  refused("value_length", [](Model& m) { m.u32(".attention.value_length", 2); });
  refused(
      "qwen3.attention.sliding_window", [](Model& m) { m.u32(".attention.sliding_window", 16); }, "qwen3");
  refused("attention.scale", [](Model& m) { m.f32(".attention.scale", 0.5f); });
  refused("adapter", [](Model& m) { m.string("general.type", "adapter"); });
  refused("blk.0.attn_qkv.weight", [](Model& m) { m.tensors.push_back({"blk.0.attn_qkv.weight", {8, 16}}); });
  refused("blk.0.ffn_gate_exps.weight", [](Model& m) { m.tensors.push_back({"blk.0.ffn_gate_exps.weight", {8, 6}}); });
}

TEST(GgufConfig, ImpossibleNumbersAreRefusedByName) {
  const auto refused = [](const std::string& what, std::size_t key, const std::function<void(Model&)>& change) {
    Model m = usual();
    m.keys.erase(m.keys.begin() + static_cast<std::ptrdiff_t>(key));
    change(m);
    EXPECT_THAT(m.error<FormatError>(), AllOf(HasSubstr(what), HasSubstr("m.gguf")));
  };
  refused("general.architecture is missing", 0, [](Model&) {});
  refused("block_count is missing", 1, [](Model&) {});
  refused("layer_norm_rms_epsilon is missing", 7, [](Model&) {});
  refused("layers", 1, [](Model& m) { m.u32(".block_count", 0xffffffff); });
  refused("heads", 5, [](Model& m) { m.u32(".attention.head_count", 0); });
  refused("not a multiple", 5, [](Model& m) { m.u32(".attention.head_count", 3); });
  refused("num_key_value_heads", 6, [](Model& m) { m.u32(".attention.head_count_kv", 0); });
  refused("hidden_size", 3, [](Model& m) { m.u32(".embedding_length", 0); });
  refused("[8, 16]", 3, [](Model& m) { m.u32(".embedding_length", 16); });
  refused("must be an integer", 1, [](Model& m) { m.string(".block_count", "1"); });
  Model vocab = usual();
  vocab.u32(".vocab_size", 6);
  EXPECT_THAT(vocab.error<FormatError>(), AllOf(HasSubstr("vocab_size is 6"), HasSubstr("5 rows")));
  Model none = usual();
  none.tensors.erase(none.tensors.begin());
  EXPECT_THAT(none.error<FormatError>(), AllOf(HasSubstr("missing"), HasSubstr("token_embd.weight")));
}

}  // namespace
}  // namespace lomu
