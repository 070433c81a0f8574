// Text to token ids and back, exactly as Hugging Face's tokenizers library does it, from the files that come with a
// model. For BPE tokenizers, byte-level (GPT-2, Llama 3, Qwen, SmolLM2, ...) and SentencePiece-like ones written as
// tokenizer.json (Llama 2, Mistral 7B). Not for WordPiece or Unigram: whatever is not implemented is refused by name.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace lomu {

struct TokenizerSpec;

/// One token and the bytes of the text it stands for: [begin, end) in the text given to encode_with_offsets. Begins
/// never go backwards. Byte-level tokens may cut a character; characters that a normalizer made (NFC, a prefix space)
/// map to the bytes they were made from, possibly none; an added token takes the white space it strips along. Tokens
/// added around the text (BOS, EOS) have an empty span at its start or end.
struct TokenSpan {
  std::int32_t id;
  std::size_t begin, end;
  friend bool operator==(const TokenSpan&, const TokenSpan&) = default;
};

/// Immutable after loading and cheap to copy; every const function may be called from several threads at once.
class Tokenizer {
 public:
  /// `model`: a Hugging Face folder (tokenizer.json, with tokenizer_config.json, special_tokens_map.json and
  /// chat_template.jinja if they are there), a tokenizer.json file, or a GGUF file. Throws FileError, FormatError (what
  /// is wrong in the file) and UnsupportedError (what Lomu does not implement, by name).
  static Tokenizer load(const std::filesystem::path& model);

  /// From a description in memory. Throws as load(); `where` names the source in messages.
  explicit Tokenizer(TokenizerSpec spec, const std::string& where = {});

  /// Ids of `text` (UTF-8; invalid bytes are read as U+FFFD, one for each maximal ill-formed part, as Python's
  /// "replace" does). Special tokens written in the text are recognised. `add_special_tokens` adds what the model's
  /// post-processor adds (BOS). Throws FormatError when a pattern of the tokenizer gives up on a pathological text.
  [[nodiscard]] std::vector<std::int32_t> encode(std::string_view text, bool add_special_tokens = false) const;
  [[nodiscard]] std::vector<TokenSpan> encode_with_offsets(std::string_view text,
                                                           bool add_special_tokens = false) const;

  /// Text of `ids`: valid UTF-8, with U+FFFD where the tokens' bytes are not. Ids outside the vocabulary are left out,
  /// as Hugging Face does.
  [[nodiscard]] std::string decode(std::span<const std::int32_t> ids, bool skip_special_tokens = false) const;

  /// The bytes one token adds to a text, for output as it comes (Utf8Stream): may be part of a character. Empty for ids
  /// outside the vocabulary.
  [[nodiscard]] std::string_view bytes_of(std::int32_t id) const;
  /// The token as the vocabulary spells it ("Ġthe"), empty for ids outside the vocabulary.
  [[nodiscard]] std::string_view token_of(std::int32_t id) const;

  [[nodiscard]] std::int64_t vocab_size() const;  ///< 1 + the largest id
  [[nodiscard]] std::optional<std::int32_t> id_of(std::string_view token) const;
  [[nodiscard]] bool is_special(std::int32_t id) const;

  [[nodiscard]] std::optional<std::int32_t> bos() const;
  [[nodiscard]] std::optional<std::int32_t> eos() const;
  [[nodiscard]] std::optional<std::int32_t> pad() const;
  /// Whether encode(text, true) begins with bos().
  [[nodiscard]] bool adds_bos() const;

  /// The model's chat template (Jinja source), empty when it has none.
  [[nodiscard]] std::string_view chat_template() const;

  /// A hash of everything that determines ids: equal fingerprints, equal encodings. The chat template is not part of
  /// it.
  [[nodiscard]] std::uint64_t fingerprint() const;

 private:
  struct Impl;
  std::shared_ptr<const Impl> impl_;
};

}  // namespace lomu
