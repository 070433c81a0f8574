// The last stage: tokens back to text.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "models/tokenizer/byte_alphabet.h"
#include "models/tokenizer/regex.h"
#include "models/tokenizer/tokenizer_spec.h"

namespace lomu {

class Decoder {
 public:
  /// Throws what compiling a pattern throws.
  explicit Decoder(const std::vector<DecoderStep>& steps);

  /// The text of a sequence of tokens, each as the vocabulary spells it: valid UTF-8.
  [[nodiscard]] std::string decode(std::vector<std::string> tokens, RegexScratch& scratch) const;

  /// What one token in the middle of a sequence contributes: may be part of a character.
  [[nodiscard]] std::string bytes_of(std::string_view token, RegexScratch& scratch) const;

 private:
  struct Replace {
    Regex pattern;
    std::string content;
  };
  using Step =
      std::variant<ByteLevelDecoder, Replace, ByteFallbackDecoder, FuseDecoder, StripDecoder, MetaspaceDecoder>;

  [[nodiscard]] std::vector<std::string> apply(const Step& step, std::vector<std::string> tokens,
                                               RegexScratch& scratch) const;
  [[nodiscard]] std::string unspell(std::string_view token) const;

  std::vector<Step> steps_;
  ByteAlphabet alphabet_;
};

}  // namespace lomu
