// SentencePiece's BPE (Llama 2, Mistral 7B) as GGUF stores it: tokens with scores and no merges. Rewritten as the
// merges, normalizer and decoder that Hugging Face's tokenizer.json of these models spells out.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "models/files/gguf.h"
#include "models/tokenizer/tokenizer_spec.h"

namespace lomu {

/// Every way to join two tokens of the vocabulary into a third, best score first: the order transformers gives them
/// when it converts a SentencePiece model (generate_merges in convert_slow_tokenizer.py). scores[i] belongs to
/// vocab[i].
std::vector<std::pair<std::string, std::string>> merges_from_scores(
    const std::vector<std::pair<std::string, std::int32_t>>& vocab, const std::vector<double>& scores);

/// Completes a spec whose vocabulary and added tokens are there already. Throws FormatError for missing scores.
void add_sentencepiece(const GgufFile& file, TokenizerSpec& spec);

}  // namespace lomu
