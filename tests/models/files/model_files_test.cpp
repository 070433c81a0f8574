#include "models/files/model_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "models/files/gguf.h"
#include "models/files/safetensors.h"
#include "tests/models/files/test_support.h"

namespace lomu {
namespace {

using test::data_path;
using test::error_of;
using test::ScratchFolder;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::vector<float> read(const ModelFiles& model, WeightId id) {
  std::vector<float> values(static_cast<std::size_t>(shape_of(model.config(), id).size()));
  model.read(id, values);
  return values;
}

class GoldenFolder : public ::testing::TestWithParam<const char*> {};

TEST_P(GoldenFolder, HasEveryWeightAndNothingElse) {
  const ModelFiles model = ModelFiles::open(data_path(fmt::format("models/{}", GetParam())));
  std::int64_t parameters = 0;
  for (const WeightId id : weights_of(model.config())) {
    EXPECT_TRUE(model.has(id)) << hf_name(id);
    parameters += static_cast<std::int64_t>(read(model, id).size());
  }
  EXPECT_EQ(parameters, model.parameter_count());
  EXPECT_THAT(model.ignored_tensors(), IsEmpty());
  EXPECT_EQ(model.gguf(), nullptr);
}

INSTANTIATE_TEST_SUITE_P(ModelFiles, GoldenFolder,
                         ::testing::Values("llama-tied", "llama-bias", "llama3-rope-sharded", "mistral-window", "qwen2",
                                           "qwen3"));

TEST(ModelFiles, TiedHeadReadsTheEmbedding) {
  const ModelFiles model = ModelFiles::open(data_path("models/llama-tied"));
  EXPECT_FALSE(model.has({WeightKind::kLmHead, 0}));
  EXPECT_EQ(read(model, {WeightKind::kLmHead, 0}), read(model, {WeightKind::kEmbed, 0}));
  EXPECT_EQ(model.stored_type({WeightKind::kLmHead, 0}), "f32");
  EXPECT_EQ(model.stored_bytes(), static_cast<std::uint64_t>(4 * model.parameter_count()));
}

TEST(ModelFiles, RowsAreRowsOfTheWhole) {
  const ModelFiles model = ModelFiles::open(data_path("models/llama3-rope-sharded"));
  EXPECT_EQ(model.stored_type({WeightKind::kQ, 1}), "bf16");
  const auto whole = read(model, {WeightKind::kQ, 1});
  std::vector<float> part(3 * 96);
  model.read_rows({WeightKind::kQ, 1}, 5, 3, part);
  EXPECT_TRUE(std::equal(part.begin(), part.end(), whole.begin() + 5 * 96));
  model.drop_pages({WeightKind::kQ, 1});
  EXPECT_EQ(read(model, {WeightKind::kQ, 1}), whole);
}

TEST(ModelFiles, RangesOutsideAreRefused) {
  const ModelFiles model = ModelFiles::open(data_path("models/llama-tied"));
  std::vector<float> row(64);
  EXPECT_THROW(model.read_rows({WeightKind::kQ, 0}, 64, 1, row), FormatError);
  EXPECT_THROW(model.read_rows({WeightKind::kQ, 0}, -1, 1, row), FormatError);
  EXPECT_THROW(model.read_rows({WeightKind::kQ, 0}, 0, 2, row), FormatError);
  EXPECT_THAT(error_of<FormatError>([&] { model.read({WeightKind::kQ, 9}, row); }), HasSubstr("layers.9"));
  EXPECT_THROW(model.read({WeightKind::kQBias, 0}, row), FormatError);
}

// The GGUF files hold the weights of the folders, written with the gguf package; llama-bias with q and k (and their
// biases) permuted as llama.cpp's converter does.
struct Pair {
  const char* gguf;
  const char* folder;
};
class GgufOfFolder : public ::testing::TestWithParam<Pair> {};

TEST_P(GgufOfFolder, GivesTheSameWeights) {
  const ModelFiles gguf = ModelFiles::open(data_path(GetParam().gguf));
  const ModelFiles folder = ModelFiles::open(data_path(GetParam().folder));
  ASSERT_NE(gguf.gguf(), nullptr);
  EXPECT_EQ(weights_of(gguf.config()), weights_of(folder.config()));
  for (const WeightId id : weights_of(folder.config())) EXPECT_EQ(read(gguf, id), read(folder, id)) << hf_name(id);
  EXPECT_EQ(rope_inverse_frequencies(gguf.config()), rope_inverse_frequencies(folder.config()));
  EXPECT_EQ(gguf.config().rms_norm_eps, folder.config().rms_norm_eps);
  EXPECT_EQ(gguf.config().head_dim, folder.config().head_dim);
  EXPECT_EQ(gguf.stop_ids(), folder.stop_ids());
  std::vector<float> row(static_cast<std::size_t>(folder.config().hidden_size));
  gguf.read_rows({WeightKind::kK, 1}, 5, 1, row);
  const auto whole = read(folder, {WeightKind::kK, 1});
  EXPECT_TRUE(std::equal(row.begin(), row.end(), whole.begin() + 5 * folder.config().hidden_size));
}

INSTANTIATE_TEST_SUITE_P(ModelFiles, GgufOfFolder,
                         ::testing::Values(Pair{"files/llama-bias.gguf", "models/llama-bias"},
                                           Pair{"files/qwen3.gguf", "models/qwen3"}));

TEST(ModelFiles, FingerprintIsOfTheContent) {
  const ScratchFolder scratch;
  std::filesystem::copy(data_path("models/llama-tied"), scratch / "copy");
  const std::string original = ModelFiles::open(data_path("models/llama-tied")).fingerprint();
  EXPECT_EQ(original.size(), 16u);
  EXPECT_EQ(ModelFiles::open(scratch / "copy").fingerprint(), original);
  std::string weights = test::read_text(scratch / "copy/model.safetensors");
  weights.back() = static_cast<char>(weights.back() ^ 1);
  test::write_text(scratch / "copy/model.safetensors", weights);
  EXPECT_NE(ModelFiles::open(scratch / "copy").fingerprint(), original);
  EXPECT_NE(ModelFiles::open(data_path("files/llama-bias.gguf")).fingerprint(), original);
}

TEST(ModelFiles, StopIdsIncludeThoseOfTheGenerationConfiguration) {
  const ScratchFolder scratch;
  std::filesystem::copy(data_path("models/llama-tied"), scratch / "m");
  test::write_text(scratch / "m/generation_config.json", R"({"eos_token_id": [2, 17]})");
  EXPECT_THAT(ModelFiles::open(scratch / "m").stop_ids(), ElementsAre(2, 17));
}

// Changes of the header of a valid model: what the configuration and the tensors say about each other.
class BadFolder : public ::testing::Test {
 protected:
  BadFolder() { std::filesystem::copy(data_path("models/llama-tied"), scratch_ / "m"); }

  void edit(std::string_view file, std::string_view from, std::string_view to) {
    test::write_text(scratch_ / "m" / file, test::replaced(test::read_text(scratch_ / "m" / file), from, to));
  }
  template <typename E>
  std::string error() {
    return error_of<E>([&] { ModelFiles::open(scratch_ / "m"); });
  }

  const ScratchFolder scratch_;
};

TEST_F(BadFolder, ShapeThatDoesNotFitNamesTensorAndBothShapes) {
  edit("config.json", "\"intermediate_size\": 160", "\"intermediate_size\": 161");
  EXPECT_THAT(error<FormatError>(),
              AllOf(HasSubstr("model.layers.0.mlp.down_proj.weight"), HasSubstr("[64, 160]"), HasSubstr("[64, 161]")));
}

TEST_F(BadFolder, VocabularyThatDoesNotFit) {
  edit("config.json", "\"vocab_size\": 320", "\"vocab_size\": 321");
  EXPECT_THAT(error<FormatError>(), AllOf(HasSubstr("embed_tokens"), HasSubstr("[320, 64]"), HasSubstr("[321, 64]")));
}

TEST_F(BadFolder, MissingLayer) {
  edit("config.json", "\"num_hidden_layers\": 3", "\"num_hidden_layers\": 4");
  EXPECT_THAT(error<FormatError>(), AllOf(HasSubstr("model.layers.3.input_layernorm.weight"), HasSubstr("missing")));
}

TEST_F(BadFolder, LayerTooMany) {
  edit("config.json", "\"num_hidden_layers\": 3", "\"num_hidden_layers\": 2");
  EXPECT_THAT(error<FormatError>(), AllOf(HasSubstr("model.layers.2."), HasSubstr("says 2 layers")));
}

TEST_F(BadFolder, UntiedHeadThatIsMissing) {
  edit("config.json", "\"tie_word_embeddings\": true", "\"tie_word_embeddings\": false");
  EXPECT_THAT(error<FormatError>(), AllOf(HasSubstr("lm_head.weight"), HasSubstr("missing")));
}

TEST_F(BadFolder, BiasThatIsMissing) {
  edit("config.json", "\"attention_bias\": false", "\"attention_bias\": true");
  EXPECT_THAT(error<FormatError>(), AllOf(HasSubstr("self_attn.q_proj.bias"), HasSubstr("missing")));
}

TEST_F(BadFolder, BiasThatTheConfigurationDoesNotHave) {
  const std::string from = "model.layers.1.post_attention_layernorm.weight\"";
  std::string to = "model.layers.1.self_attn.o_proj.bias\"";
  to.resize(from.size(), ' ');  // the header keeps its length
  edit("model.safetensors", from, to);
  EXPECT_THAT(error<FormatError>(),
              AllOf(HasSubstr("model.layers.1.self_attn.o_proj.bias"), HasSubstr("no such weight")));
}

TEST_F(BadFolder, UnknownTensor) {
  edit("model.safetensors", "model.layers.1.post_attention_layernorm.weight",
       "model.layers.1.post_attention_layernorm.gamma_");
  EXPECT_THAT(error<UnsupportedError>(), HasSubstr("model.layers.1.post_attention_layernorm.gamma_"));
}

TEST_F(BadFolder, NoWeights) {
  std::filesystem::remove(scratch_ / "m/model.safetensors");
  EXPECT_THAT(error<FileError>(), HasSubstr("model.safetensors"));
  test::write_text(scratch_ / "m/pytorch_model.bin", "x");
  EXPECT_THAT(error<UnsupportedError>(), HasSubstr("pickled"));
}

TEST_F(BadFolder, NoConfiguration) {
  std::filesystem::remove(scratch_ / "m/config.json");
  EXPECT_THAT(error<FileError>(), HasSubstr("config.json"));
}

TEST(ModelFiles, MissingPathIsAFileError) {
  EXPECT_THAT(error_of<FileError>([] { ModelFiles::open("/no/such/model"); }), HasSubstr("/no/such/model"));
}

TEST(ModelFiles, FileOfAnotherKindIsAFormatError) {
  EXPECT_THAT(error_of<FormatError>([] { ModelFiles::open(data_path("models/llama-tied/model.safetensors")); }),
              HasSubstr("does not begin with GGUF"));
}

}  // namespace
}  // namespace lomu
