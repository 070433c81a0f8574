#include "models/tokenizer/tokenizer_gguf.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "kernels/error.h"
#include "models/tokenizer/sentencepiece.h"

namespace lomu {
namespace {

// Patterns as in the tokenizer.json of the models named. Llama 3 and Qwen2 differ in how many digits go together.
constexpr std::string_view kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kTekkenPattern =  // Mistral Nemo
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)"
    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)"
    R"(|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kGpt4oPattern =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

// The four patterns that llama.cpp (src/llama-vocab.cpp) applies one after the other when a file names none.
constexpr std::array<std::string_view, 4> kDefaultPatterns = {
    R"([\p{P}\$\+<=>\^~\|]+)", R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S))", R"(\p{N}+)",
    R"([0-9][0-9][0-9])"};

enum class Kind : std::uint8_t { kGpt2, kDigitsGpt2, kSplit, kDefault };

struct NamedPipeline {
  std::string_view name;  // tokenizer.ggml.pre
  Kind kind;
  std::string_view pattern = {};  // of kSplit
  bool nfc = false;
  bool ignore_merges = false;
  bool adds_bos = false;  // when the file does not say
};

constexpr std::array kPipelines = {
    NamedPipeline{"gpt-2", Kind::kGpt2},
    NamedPipeline{"phi-2", Kind::kGpt2},
    NamedPipeline{"mpt", Kind::kGpt2, {}, true},
    NamedPipeline{"olmo", Kind::kGpt2, {}, true},
    NamedPipeline{"smollm", Kind::kDigitsGpt2},
    NamedPipeline{"starcoder", Kind::kDigitsGpt2},
    NamedPipeline{"refact", Kind::kDigitsGpt2},
    NamedPipeline{"command-r", Kind::kDigitsGpt2, {}, true},
    NamedPipeline{"llama-bpe", Kind::kSplit, kLlama3Pattern, false, true, true},
    NamedPipeline{"llama3", Kind::kSplit, kLlama3Pattern, false, true, true},
    NamedPipeline{"llama-v3", Kind::kSplit, kLlama3Pattern, false, true, true},
    NamedPipeline{"dbrx", Kind::kSplit, kLlama3Pattern},
    NamedPipeline{"qwen2", Kind::kSplit, kQwen2Pattern, true},
    NamedPipeline{"tekken", Kind::kSplit, kTekkenPattern, false, true, true},
    NamedPipeline{"gpt-4o", Kind::kSplit, kGpt4oPattern},
    NamedPipeline{"default", Kind::kDefault},
};

const NamedPipeline& find_pipeline(const GgufFile& file) {
  const std::string name = file.string("tokenizer.ggml.pre").value_or("default");
  const auto it =
      std::find_if(kPipelines.begin(), kPipelines.end(), [&](const NamedPipeline& p) { return p.name == name; });
  if (it != kPipelines.end()) return *it;
  throw UnsupportedError(fmt::format("the pre-tokenizer \"{}\" (tokenizer.ggml.pre) is not implemented", name),
                         file.path().string(),
                         "use the model's Hugging Face folder, whose tokenizer.json says what it does");
}

SplitStep isolate(std::string_view pattern) {
  return {{std::string(pattern), true}, SplitBehavior::kIsolated, false};
}

void add_pipeline(const NamedPipeline& pipeline, TokenizerSpec& spec) {
  if (pipeline.nfc) spec.normalizers.emplace_back(NfcNormalizer{});
  auto& steps = spec.pre_tokenizers;
  switch (pipeline.kind) {
    case Kind::kGpt2: steps.emplace_back(ByteLevelStep{false, true}); break;
    case Kind::kDigitsGpt2:
      steps.emplace_back(DigitsStep{true});
      steps.emplace_back(ByteLevelStep{false, true});
      break;
    case Kind::kSplit:
      steps.emplace_back(isolate(pipeline.pattern));
      steps.emplace_back(ByteLevelStep{false, false});
      break;
    case Kind::kDefault:
      for (const std::string_view pattern : kDefaultPatterns) steps.emplace_back(isolate(pattern));
      steps.emplace_back(ByteLevelStep{false, false});
      break;
  }
  spec.decoders.emplace_back(ByteLevelDecoder{});
  spec.model.ignore_merges = pipeline.ignore_merges;
}

// tokenizer.ggml.token_type, as llama.cpp numbers them.
enum TokenType : std::int64_t { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };

void add_vocabulary(const GgufFile& file, TokenizerSpec& spec) {
  const auto* tokens = file.strings("tokenizer.ggml.tokens");
  if (tokens == nullptr) throw FormatError("tokenizer.ggml.tokens is missing", file.path().string());
  const auto* types = file.integers("tokenizer.ggml.token_type");
  if (types != nullptr && types->size() != tokens->size()) {
    throw FormatError(
        fmt::format("tokenizer.ggml.token_type has {} entries for {} tokens", types->size(), tokens->size()),
        file.path().string());
  }
  spec.model.vocab.reserve(tokens->size());
  for (std::size_t i = 0; i < tokens->size(); ++i) {
    if (static_cast<std::int64_t>(i) > kMaxTokenId) {
      throw FormatError(fmt::format("{} tokens are more than the {} Lomu reads", tokens->size(), kMaxTokenId + 1),
                        file.path().string());
    }
    const auto id = static_cast<std::int32_t>(i);
    spec.model.vocab.emplace_back((*tokens)[i], id);
    const std::int64_t type = types == nullptr ? std::int64_t{kNormal} : (*types)[i];
    if (type != kControl && type != kUserDefined) continue;
    AddedToken token;
    token.content = (*tokens)[i];
    token.id = id;
    token.special = type == kControl;
    spec.added_tokens.push_back(std::move(token));
  }
}

void add_merges(const GgufFile& file, TokenizerSpec& spec) {
  const auto* merges = file.strings("tokenizer.ggml.merges");
  if (merges == nullptr) throw FormatError("tokenizer.ggml.merges is missing", file.path().string());
  spec.model.merges.reserve(merges->size());
  for (const std::string& merge : *merges) {
    const std::size_t space = merge.find(' ', 1);
    if (space == std::string::npos) {
      throw FormatError(
          fmt::format("tokenizer.ggml.merges[{}] is not two tokens: \"{}\"", spec.model.merges.size(), merge),
          file.path().string());
    }
    spec.model.merges.emplace_back(merge.substr(0, space), merge.substr(space + 1));
  }
}

void add_special_ids(const GgufFile& file, bool adds_bos, TokenizerSpec& spec) {
  const auto id_of = [&](std::string_view key) -> std::optional<std::int32_t> {
    const auto id = file.integer(fmt::format("tokenizer.ggml.{}", key));
    if (!id) return std::nullopt;
    if (*id < 0 || *id >= static_cast<std::int64_t>(spec.model.vocab.size())) {
      throw FormatError(
          fmt::format("tokenizer.ggml.{} is {}, but the vocabulary has {} tokens", key, *id, spec.model.vocab.size()),
          file.path().string());
    }
    return static_cast<std::int32_t>(*id);
  };
  spec.bos = id_of("bos_token_id");
  spec.eos = id_of("eos_token_id");
  spec.pad = id_of("padding_token_id");
  spec.unk = id_of("unknown_token_id");
  TemplateStep step = {std::nullopt};
  if (spec.bos && file.boolean("tokenizer.ggml.add_bos_token").value_or(adds_bos)) {
    step.insert(step.begin(), std::vector{*spec.bos});
  }
  if (spec.eos && file.boolean("tokenizer.ggml.add_eos_token").value_or(false))
    step.emplace_back(std::vector{*spec.eos});
  if (step.size() > 1) spec.post_processors.push_back(std::move(step));
}

}  // namespace

TokenizerSpec read_tokenizer_gguf(const GgufFile& file) {
  const auto model = file.string("tokenizer.ggml.model");
  if (!model) throw FormatError("the file has no tokenizer (tokenizer.ggml.model is missing)", file.path().string());
  TokenizerSpec spec;
  add_vocabulary(file, spec);
  bool adds_bos = true;
  if (*model == "gpt2") {
    const NamedPipeline& pipeline = find_pipeline(file);
    adds_bos = pipeline.adds_bos;
    add_merges(file, spec);
    add_pipeline(pipeline, spec);
  } else if (*model == "llama") {
    add_sentencepiece(file, spec);
  } else {
    throw UnsupportedError(fmt::format("the tokenizer model \"{}\" (tokenizer.ggml.model) is not implemented", *model),
                           file.path().string());
  }
  add_special_ids(file, adds_bos, spec);
  spec.chat_template = file.string("tokenizer.chat_template").value_or("");
  return spec;
}

}  // namespace lomu
