// The files of a Hugging Face tokenizer: tokenizer.json, tokenizer_config.json, special_tokens_map.json,
// chat_template.jinja. Reading them into a TokenizerSpec and writing one out again, so that a model from a GGUF file
// becomes a usable folder. Not vocab.json + merges.txt without tokenizer.json.
#pragma once

#include <filesystem>

#include "models/tokenizer/tokenizer_spec.h"

namespace lomu {

/// `path`: a folder or a tokenizer.json file (its neighbours are read too). Throws FileError, FormatError,
/// UnsupportedError.
TokenizerSpec read_tokenizer_files(const std::filesystem::path& path);

/// Reads what Tokenizer::load reads: a folder, a tokenizer.json file or a GGUF file.
TokenizerSpec read_tokenizer_spec(const std::filesystem::path& model);

/// Writes tokenizer.json and tokenizer_config.json (with the chat template) into an existing folder; the tokenizers
/// library reads them and gives the same ids. Throws FileError.
void write_tokenizer_files(const TokenizerSpec& spec, const std::filesystem::path& folder);

}  // namespace lomu
