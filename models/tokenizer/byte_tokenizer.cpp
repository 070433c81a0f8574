#include "models/tokenizer/byte_tokenizer.h"

#include <string>

#include "models/tokenizer/byte_alphabet.h"

namespace lomu {

TokenizerSpec byte_tokenizer() {
  constexpr std::int32_t kEnd = 256;
  TokenizerSpec spec;
  const ByteAlphabet alphabet;
  for (std::int32_t byte = 0; byte < kEnd; ++byte) {
    spec.model.vocab.emplace_back(alphabet.spelling(static_cast<unsigned char>(byte)), byte);
  }
  AddedToken end;
  end.content = "<|endoftext|>";
  end.id = kEnd;
  end.special = true;
  spec.added_tokens.push_back(end);
  spec.pre_tokenizers.emplace_back(ByteLevelStep{false, false});
  spec.decoders.emplace_back(ByteLevelDecoder{});
  spec.eos = kEnd;
  return spec;
}

}  // namespace lomu
