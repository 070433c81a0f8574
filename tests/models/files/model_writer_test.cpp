#include "models/files/model_writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "models/files/hf_config_writer.h"
#include "tests/models/files/test_support.h"

namespace lomu {
namespace {

using test::data_path;
using test::error_of;
using test::ScratchFolder;
using ::testing::AllOf;
using ::testing::HasSubstr;

RowSource rows_of(const ModelFiles& model) {
  return [&model](WeightId id, std::int64_t first, std::int64_t count, std::span<float> out) {
    model.read_rows(id, first, count, out);
  };
}

std::vector<float> read(const ModelFiles& model, WeightId id) {
  std::vector<float> values(static_cast<std::size_t>(shape_of(model.config(), id).size()));
  model.read(id, values);
  return values;
}

class Rewritten : public ::testing::TestWithParam<const char*> {};

TEST_P(Rewritten, ModelIsTheSameModel) {
  const ScratchFolder scratch;
  const ModelFiles source = ModelFiles::open(data_path(GetParam()));
  ModelWriterOptions options;
  options.dtype = DType::kF32;
  options.max_shard_bytes = 200'000;
  const RoundingReport report = write_model_folder(scratch / "out", source, rows_of(source), options);
  EXPECT_EQ(report.largest_error, 0.0);
  EXPECT_TRUE(std::filesystem::exists(scratch / "out/model.safetensors.index.json"));
  EXPECT_TRUE(std::filesystem::exists(scratch / "out/generation_config.json"));
  const ModelFiles written = ModelFiles::open(scratch / "out");
  EXPECT_EQ(written.stop_ids(), source.stop_ids());
  EXPECT_EQ(written.config().stored_dtype, DType::kF32);
  for (const WeightId id : weights_of(source.config())) EXPECT_EQ(read(written, id), read(source, id)) << hf_name(id);
  EXPECT_EQ(rope_inverse_frequencies(written.config()), rope_inverse_frequencies(source.config()));
}

INSTANTIATE_TEST_SUITE_P(ModelWriter, Rewritten,
                         ::testing::Values("models/llama-bias", "models/llama3-rope-sharded", "models/mistral-window",
                                           "models/qwen2", "models/qwen3", "files/llama-bias.gguf",
                                           "files/qwen3.gguf"));

TEST(ModelWriter, SixteenBitsRoundToNearestAndTheErrorIsReported) {
  const ScratchFolder scratch;
  const ModelFiles source = ModelFiles::open(data_path("models/llama-tied"));
  const RoundingReport report = write_model_folder(scratch / "out", source, rows_of(source), {});
  EXPECT_GT(report.relative_error, 1e-4);
  EXPECT_LT(report.relative_error, 0x1p-8);  // bf16 keeps 8 bits
  EXPECT_FALSE(report.tensor.empty());
  const ModelFiles written = ModelFiles::open(scratch / "out");
  EXPECT_EQ(written.stored_type({WeightKind::kQ, 0}), "bf16");
  EXPECT_EQ(written.config().stored_dtype, DType::kBF16);
  auto expected = read(source, {WeightKind::kQ, 0});
  for (float& x : expected) x = static_cast<float>(BF16(x));
  EXPECT_EQ(read(written, {WeightKind::kQ, 0}), expected);
  EXPECT_FALSE(std::filesystem::exists(scratch / "out/model.safetensors.index.json"));
}

TEST(ModelWriter, NumbersThatCannotBeStoredLeaveNothingBehind) {
  const ScratchFolder scratch;
  const ModelFiles source = ModelFiles::open(data_path("models/llama-tied"));
  const auto with = [&](float bad) {
    return [&source, bad](WeightId id, std::int64_t first, std::int64_t count, std::span<float> out) {
      source.read_rows(id, first, count, out);
      if (id == WeightId{WeightKind::kUp, 1}) out.back() = bad;
    };
  };
  ModelWriterOptions options;
  options.dtype = DType::kF16;
  EXPECT_THAT(
      error_of<NumericError>([&] { write_model_folder(scratch / "out", source, with(std::nanf("")), options); }),
      AllOf(HasSubstr("NaN"), HasSubstr("layers.1.mlp.up_proj")));
  EXPECT_THAT(error_of<NumericError>([&] { write_model_folder(scratch / "out", source, with(7e4f), options); }),
              AllOf(HasSubstr("70000"), HasSubstr("bf16")));
  EXPECT_TRUE(std::filesystem::is_empty(scratch.path()));
}

TEST(ModelWriter, AnExistingFolderIsRefusedBeforeAnyWork) {
  const ScratchFolder scratch;
  const ModelFiles source = ModelFiles::open(data_path("models/llama-tied"));
  std::filesystem::create_directories(scratch / "out");
  const RowSource never = [](WeightId, std::int64_t, std::int64_t, std::span<float>) { FAIL(); };
  EXPECT_THAT(error_of<FileError>([&] { write_model_folder(scratch / "out", source, never, {}); }),
              HasSubstr("exists"));
}

TEST(ModelWriter, TokenizerFilesOfAFolderComeAlongAndAHookWritesOthers) {
  const ScratchFolder scratch;
  std::filesystem::copy(data_path("models/llama-tied"), scratch / "m");
  test::write_text(scratch / "m/tokenizer.json", "{}");
  test::write_text(scratch / "m/notes.txt", "private");
  const ModelFiles source = ModelFiles::open(scratch / "m");
  ModelWriterOptions options;
  options.write_tokenizer = [](const std::filesystem::path& folder) { test::write_text(folder / "hook.txt", "ran"); };
  write_model_folder(scratch / "out", source, rows_of(source), options);
  EXPECT_TRUE(std::filesystem::exists(scratch / "out/tokenizer.json"));
  EXPECT_TRUE(std::filesystem::exists(scratch / "out/hook.txt"));
  EXPECT_FALSE(std::filesystem::exists(scratch / "out/notes.txt"));
}

ModelConfig reread(const ModelConfig& config) {
  const ScratchFolder scratch;
  return read_hf_config(test::write_text(scratch / "config.json", config_json_from(config, DType::kBF16)));
}

TEST(GeneratedConfig, Llama3FactorsAreRecognised) {
  ModelConfig llama3 = read_hf_config(data_path("models/llama3-rope-sharded/config.json"));
  ModelConfig gguf = llama3;
  gguf.rope = RopeConfig{};
  gguf.rope.theta = llama3.rope.theta;
  const auto plain = rope_inverse_frequencies(gguf);
  const auto scaled = rope_inverse_frequencies(llama3);
  for (std::size_t i = 0; i < plain.size(); ++i) {
    gguf.rope.frequency_divisors.push_back(static_cast<float>(plain[i] / scaled[i]));
  }
  const RopeConfig found = reread(gguf).rope;
  EXPECT_EQ(found.type, RopeType::kLlama3);
  EXPECT_EQ(found.factor, 8.0);
  EXPECT_EQ(found.original_max_position, 64);
  gguf.rope.frequency_divisors[2] = 5.0f;
  EXPECT_THAT(error_of<UnsupportedError>([&] { reread(gguf); }), HasSubstr("frequency factors"));
}

TEST(GeneratedConfig, WindowsMakeAMistral) {
  ModelConfig config = read_hf_config(data_path("models/llama-tied/config.json"));
  config.sliding_window.assign(3, 8);
  EXPECT_EQ(reread(config).architecture, Architecture::kMistral);
  EXPECT_EQ(reread(config).sliding_window, config.sliding_window);
  config.mlp_bias = true;
  EXPECT_THROW(reread(config), UnsupportedError);
}

TEST(GeneratedConfig, WhatNoClassHasIsRefused) {
  ModelConfig config = read_hf_config(data_path("models/llama-tied/config.json"));
  config.qkv_bias = true;
  EXPECT_THAT(error_of<UnsupportedError>([&] { reread(config); }), HasSubstr("biases"));
  config = read_hf_config(data_path("models/qwen2/config.json"));
  config.qkv_bias = false;
  EXPECT_THROW(reread(config), UnsupportedError);
}

TEST(GeneratedConfig, LinearScalingWindowsOfSomeLayersAndSeveralStopsSurvive) {
  ModelConfig config = read_hf_config(data_path("models/qwen3/config.json"));
  config.rope.type = RopeType::kLinear;
  config.rope.factor = 4;
  config.sliding_window = {0, 16};
  config.eos_ids = {2, 5};
  const ModelConfig back = reread(config);
  EXPECT_EQ(back.rope.factor, 4.0);
  EXPECT_EQ(back.sliding_window, config.sliding_window);
  EXPECT_EQ(back.eos_ids, config.eos_ids);
}

}  // namespace
}  // namespace lomu
