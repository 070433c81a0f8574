// The tokenizer of a model that learns from bytes: 256 tokens, one a byte, and an end of text. Nothing to learn,
// nothing unknown.
#pragma once

#include "models/tokenizer/tokenizer_spec.h"

namespace lomu {

/// Id of byte b: b. Id of the end of text: 256. What write_tokenizer_files writes of it, the tokenizers library reads.
TokenizerSpec byte_tokenizer();

inline constexpr std::int64_t kByteVocabulary = 257;

}  // namespace lomu
