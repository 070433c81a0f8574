// A byte-level tokenizer made in memory, with no model behind it: a token for each byte, the two marks of ChatML, an
// end of text, and a few merges. What tests of data need and can count by hand.
#pragma once

#include <string>

#include "models/tokenizer/byte_alphabet.h"
#include "models/tokenizer/chat.h"
#include "models/tokenizer/tokenizer.h"
#include "models/tokenizer/tokenizer_spec.h"

namespace lomu {

inline constexpr std::int32_t kTurnStart = 257;  ///< <|im_start|>
inline constexpr std::int32_t kTurnEnd = 258;    ///< <|im_end|>
inline constexpr std::int32_t kTextEnd = 259;    ///< <|endoftext|>, the EOS
inline constexpr std::int32_t kTextStart = 260;  ///< <s>, the BOS where there is one
inline constexpr std::int32_t kJoined = 256;     ///< "ab"

struct SmallTokenizerOptions {
  bool adds_bos = false;
  bool has_eos = true;
};

inline Tokenizer small_tokenizer(const SmallTokenizerOptions& options = {}) {
  TokenizerSpec spec;
  const ByteAlphabet alphabet;
  for (int byte = 0; byte < 256; ++byte) {
    spec.model.vocab.emplace_back(alphabet.spelling(static_cast<unsigned char>(byte)), byte);
  }
  spec.model.vocab.emplace_back("ab", kJoined);
  spec.model.merges.emplace_back("a", "b");
  for (const auto& [text, id] : {std::pair("<|im_start|>", kTurnStart), std::pair("<|im_end|>", kTurnEnd),
                                 std::pair("<|endoftext|>", kTextEnd), std::pair("<s>", kTextStart)}) {
    spec.added_tokens.push_back({.content = text, .id = id, .special = true});
  }
  spec.pre_tokenizers.push_back(ByteLevelStep{.add_prefix_space = false, .use_regex = false});
  spec.decoders.push_back(ByteLevelDecoder{});
  if (options.has_eos) spec.eos = kTextEnd;
  if (options.adds_bos) {
    spec.bos = kTextStart;
    spec.post_processors.push_back({std::vector<std::int32_t>{kTextStart}, std::nullopt});
  }
  return Tokenizer(std::move(spec), "small");
}

inline ChatFormat small_chat(const Tokenizer& tokenizer) {
  return ChatFormat::choose(tokenizer, "chatml");
}

}  // namespace lomu
