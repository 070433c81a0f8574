// What a tokenizer is, as data: vocabulary, merges, and the steps of the pipeline in the words of tokenizer.json.
// Readers (tokenizer_json, tokenizer_gguf) fill it, Tokenizer executes it, write_tokenizer_files spells it out again.
// Only steps that Lomu implements can be expressed.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace lomu {

/// Largest id a vocabulary may use; real ones end below 300,000. Bounds what a broken file can make us allocate.
inline constexpr std::int64_t kMaxTokenId = (std::int64_t{1} << 22) - 1;

/// A token matched in the text itself, before the model sees it.
struct AddedToken {
  std::string content;
  std::int32_t id = 0;
  bool special = false;      ///< left out by decode(skip_special_tokens)
  bool lstrip = false;       ///< takes the white space before it along
  bool rstrip = false;       ///< takes the white space after it along
  bool single_word = false;  ///< only where no word character touches it
  bool normalized = false;   ///< matched in the normalised text, and itself normalised
};

/// A literal string or a regular expression in Oniguruma's syntax.
struct Pattern {
  std::string text;
  bool is_regex = false;
};

// Normalizers.
struct NfcNormalizer {};
struct NfdNormalizer {};
struct PrependNormalizer {
  std::string prepend;
};
struct ReplaceNormalizer {
  Pattern pattern;
  std::string content;
};
using NormalizerStep = std::variant<NfcNormalizer, NfdNormalizer, PrependNormalizer, ReplaceNormalizer>;

// Pre-tokenizers.
enum class SplitBehavior : std::uint8_t { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };
inline constexpr std::array<const char*, 5> kSplitBehaviorNames = {"Removed", "Isolated", "MergedWithPrevious",
                                                                   "MergedWithNext", "Contiguous"};
struct ByteLevelStep {
  bool add_prefix_space = false;
  bool use_regex = true;
};
struct SplitStep {
  Pattern pattern;
  SplitBehavior behavior = SplitBehavior::kIsolated;
  bool invert = false;
};
struct DigitsStep {
  bool individual = false;
};
struct PunctuationStep {
  SplitBehavior behavior = SplitBehavior::kIsolated;
};
struct WhitespaceSplitStep {};
enum class PrependScheme : std::uint8_t { kNever, kFirst, kAlways };
inline constexpr std::array<const char*, 3> kPrependSchemeNames = {"never", "first", "always"};
struct MetaspaceStep {
  std::string replacement;
  PrependScheme prepend = PrependScheme::kAlways;
  bool split = true;
};
using PreTokenizerStep =
    std::variant<ByteLevelStep, SplitStep, DigitsStep, PunctuationStep, WhitespaceSplitStep, MetaspaceStep>;

/// The model: byte pair encoding.
struct BpeSpec {
  std::vector<std::pair<std::string, std::int32_t>> vocab;
  std::vector<std::pair<std::string, std::string>> merges;  ///< best first
  std::optional<std::string> unk_token;
  bool fuse_unk = false;
  bool byte_fallback = false;
  bool ignore_merges = false;
};

/// A step of the post-processor: ids around the text. A piece without a value stands for the text itself.
using TemplateStep = std::vector<std::optional<std::vector<std::int32_t>>>;

// Decoders.
struct ByteLevelDecoder {};
struct ReplaceDecoder {
  Pattern pattern;
  std::string content;
};
struct ByteFallbackDecoder {};
struct FuseDecoder {};
struct StripDecoder {
  std::string content;  ///< one character
  std::int64_t start = 0, stop = 0;
};
struct MetaspaceDecoder {
  std::string replacement;
  PrependScheme prepend = PrependScheme::kAlways;
};
using DecoderStep =
    std::variant<ByteLevelDecoder, ReplaceDecoder, ByteFallbackDecoder, FuseDecoder, StripDecoder, MetaspaceDecoder>;

struct TokenizerSpec {
  BpeSpec model;
  std::vector<AddedToken> added_tokens;
  std::vector<NormalizerStep> normalizers;
  std::vector<PreTokenizerStep> pre_tokenizers;
  std::vector<TemplateStep> post_processors;
  std::vector<DecoderStep> decoders;  ///< none: tokens are joined with spaces, as the library does

  std::optional<std::int32_t> bos, eos, pad, unk;
  std::string chat_template;
};

}  // namespace lomu
