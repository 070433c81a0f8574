// Checks a tokenizer against recorded cases: what `lomu verify tokenizer FOLDER` runs.
// A folder holds the tokenizer's files and cases.jsonl, one object a line:
//   {"kind": str, "text": str, "ids": [int], "decoded": str, "lossy": bool = false, "add_special_tokens": bool = false}
// ids: of text. decoded: of ids, special tokens kept; not judged when lossy. Further keys are ignored.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "models/tokenizer/tokenizer.h"

namespace lomu {

struct TokenizerCheck {
  std::string name;      ///< "hand:12", kind and line number
  std::string quantity;  ///< "ids" or "decoded"
  bool pass = false;
  std::string got, expected;  ///< short excerpts around the first difference; empty when it passes
};

/// Loads the tokenizer of `folder` and checks every line of its cases.jsonl. Throws FileError, FormatError (path:line),
/// UnsupportedError.
std::vector<TokenizerCheck> verify_tokenizer_folder(const std::filesystem::path& folder);

/// The same for a tokenizer from elsewhere, for example a GGUF file.
std::vector<TokenizerCheck> verify_tokenizer_cases(const Tokenizer& tokenizer, const std::filesystem::path& cases);

}  // namespace lomu
