// The second stage: cuts a normalised text into the words that BPE then encodes one by one.
#pragma once

#include <variant>
#include <vector>

#include "models/tokenizer/aligned_text.h"
#include "models/tokenizer/byte_alphabet.h"
#include "models/tokenizer/regex.h"
#include "models/tokenizer/tokenizer_spec.h"

namespace lomu {

class PreTokenizer {
 public:
  /// Throws what compiling a pattern throws.
  explicit PreTokenizer(const std::vector<PreTokenizerStep>& steps);

  /// Cuts `text` into `words`, ranges of it in order. Steps that change the text (a prefix space) replace it.
  void run(AlignedText& text, RegexScratch& scratch, std::vector<ByteRange>& words) const;

  /// Whether BPE is to take the bytes of a word, spelled in the byte alphabet, for its characters: a ByteLevel step
  /// came last.
  [[nodiscard]] bool byte_level() const { return byte_level_; }

 private:
  enum class CharacterClass : std::uint8_t { kDigit, kPunctuation, kWhiteSpace };
  struct PatternSplit {
    Regex pattern;
    SplitBehavior behavior;
    bool invert;
  };
  struct CharacterSplit {
    CharacterClass which;
    SplitBehavior behavior;
  };
  struct PrefixSpace {};  // in front of words that do not begin with a space
  struct SpellBytes {};   // the byte alphabet, when further steps have to see it
  using Step = std::variant<PatternSplit, CharacterSplit, PrefixSpace, SpellBytes, MetaspaceStep>;

  void add_byte_level(const ByteLevelStep& step, bool last);
  void add_metaspace(const MetaspaceStep& step);
  void rewrite(const Step& step, AlignedText& text, std::vector<ByteRange>& words) const;

  std::vector<Step> steps_;
  ByteAlphabet alphabet_;
  bool byte_level_ = false;
};

/// The pieces of [0, size) after cutting at `matches` in the manner of `behavior`; with `invert` what lies between the
/// matches takes their part. Appends to `pieces`, each moved by `offset`; empty pieces are left out.
void split_at(std::size_t size, const std::vector<ByteRange>& matches, SplitBehavior behavior, bool invert,
              std::size_t offset, std::vector<ByteRange>& pieces);

}  // namespace lomu
