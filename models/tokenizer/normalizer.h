// The first stage: NFC, NFD and simple replacements, keeping track of where bytes came from.
#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "models/tokenizer/aligned_text.h"
#include "models/tokenizer/regex.h"
#include "models/tokenizer/tokenizer_spec.h"

namespace lomu {

class Normalizer {
 public:
  /// Throws what compiling a pattern throws.
  explicit Normalizer(const std::vector<NormalizerStep>& steps);

  [[nodiscard]] bool empty() const { return steps_.empty(); }
  /// `text` must be valid UTF-8.
  [[nodiscard]] AlignedText normalize(AlignedText text, RegexScratch& scratch) const;
  [[nodiscard]] std::string normalize(std::string_view text, RegexScratch& scratch) const;

 private:
  struct Unicode {
    bool compose;
  };
  struct Prepend {
    std::string text;
  };
  struct Replace {
    Regex pattern;
    std::string content;
  };
  std::vector<std::variant<Unicode, Prepend, Replace>> steps_;
};

/// NFC (`compose`) or NFD of a text, by its Unicode canonical decomposition and ordering; linear in the length but for
/// sorting runs of combining marks.
AlignedText normalize_unicode(AlignedText text, bool compose);

}  // namespace lomu
