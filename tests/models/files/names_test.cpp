#include "models/files/names.h"

#include <gtest/gtest.h>

#include <set>

namespace lomu {
namespace {

ModelConfig everything() {
  ModelConfig c;
  c.hidden_size = 48;
  c.intermediate_size = 128;
  c.num_layers = 12;
  c.num_heads = 6;
  c.num_kv_heads = 3;
  c.head_dim = 10;
  c.vocab_size = 192;
  c.qkv_bias = c.o_bias = c.mlp_bias = c.qk_norm = true;
  return c;
}

TEST(Names, EveryWeightHasOneNameInEachFormatAndComesBack) {
  const auto weights = weights_of(everything());
  EXPECT_EQ(weights.size(), 3u + 12u * 18u);
  std::set<std::string> hf;
  std::set<std::string> gguf;
  for (const WeightId id : weights) {
    EXPECT_EQ(parse_hf_name(hf_name(id)), id);
    EXPECT_EQ(parse_gguf_name(gguf_name(id)), id);
    hf.insert(hf_name(id));
    gguf.insert(gguf_name(id));
  }
  EXPECT_EQ(hf.size(), weights.size());
  EXPECT_EQ(gguf.size(), weights.size());
}

TEST(Names, AreThoseOfTheFormats) {
  EXPECT_EQ(hf_name({WeightKind::kEmbed, 0}), "model.embed_tokens.weight");
  EXPECT_EQ(hf_name({WeightKind::kMlpNorm, 11}), "model.layers.11.post_attention_layernorm.weight");
  EXPECT_EQ(gguf_name({WeightKind::kO, 3}), "blk.3.attn_output.weight");
  EXPECT_EQ(gguf_name({WeightKind::kLmHead, 0}), "output.weight");
  EXPECT_EQ(peft_name({7, Site::kDown, Factor::kB}), "base_model.model.model.layers.7.mlp.down_proj.lora_B.weight");
  EXPECT_EQ(module_path(0, Site::kQ), "model.layers.0.self_attn.q_proj");
}

TEST(Names, OthersAreNotTakenForWeights) {
  for (const char* name :
       {"model.layers.0.self_attn.q_proj", "model.layers.00.self_attn.q_proj.weight",
        "model.layers.-1.mlp.up_proj.weight", "model.layers.self_attn.q_proj.weight",
        "model.layers.99999999999999999999.mlp.up_proj.weight", "model.norm.bias", "model.layers.1", "model.layers.1.",
        "", "lm_head.bias", "blk.0.attn_q.weight", "model.layers.1x.mlp.up_proj.weight"}) {
    EXPECT_FALSE(parse_hf_name(name)) << name;
  }
  for (const char* name :
       {"blk.0.attn_qkv.weight", "blk.01.attn_q.weight", "output_norm.bias", "blk.0.ffn_gate_exps.weight"}) {
    EXPECT_FALSE(parse_gguf_name(name)) << name;
  }
  for (const char* name : {"base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight",
                           "base_model.model.lm_head.lora_A.weight", "model.layers.0.self_attn.q_proj.lora_A.weight",
                           "base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector"}) {
    EXPECT_FALSE(parse_peft_name(name)) << name;
  }
}

TEST(Names, ShapesFollowTheConfiguration) {
  const ModelConfig c = everything();
  EXPECT_EQ(shape_of(c, {WeightKind::kQ, 0}), (WeightShape{60, 48, false}));
  EXPECT_EQ(shape_of(c, {WeightKind::kK, 0}), (WeightShape{30, 48, false}));
  EXPECT_EQ(shape_of(c, {WeightKind::kO, 0}), (WeightShape{48, 60, false}));
  EXPECT_EQ(shape_of(c, {WeightKind::kDown, 0}), (WeightShape{48, 128, false}));
  EXPECT_EQ(shape_of(c, {WeightKind::kKNorm, 0}), (WeightShape{1, 10, true}));
  EXPECT_EQ(shape_of(c, {WeightKind::kVBias, 0}).dims(), std::vector<std::int64_t>{30});
}

TEST(Names, SitesKnowTheirWeightBiasAndSpelling) {
  for (const Site site : kAllSites) {
    EXPECT_EQ(site_of(weight_of(2, site).kind), site);
    EXPECT_EQ(parse_site(name_of(site)), site);
    EXPECT_EQ(parse_site(module_leaf(site)), site);
    EXPECT_EQ(hf_name(weight_of(2, site)), module_path(2, site) + ".weight");
    EXPECT_EQ(hf_name(bias_of(2, site)), module_path(2, site) + ".bias");
    for (const Factor factor : {Factor::kA, Factor::kB}) {
      EXPECT_EQ(parse_peft_name(peft_name({2, site, factor})), (FactorId{2, site, factor}));
    }
  }
  EXPECT_FALSE(parse_site("lm_head"));
  EXPECT_FALSE(site_of(WeightKind::kEmbed));
}

}  // namespace
}  // namespace lomu
