#include "models/tokenizer/pre_tokenizer.h"

#include "models/tokenizer/unicode.h"
#include "models/tokenizer/utf8.h"

namespace lomu {
namespace {

// OpenAI's GPT-2 pattern, which ByteLevel uses by default.
constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

struct Piece {
  ByteRange range;
  bool is_match;
};

// Matches and what lies between them, in order.
std::vector<Piece> all_pieces(std::size_t size, const std::vector<ByteRange>& matches, bool invert) {
  std::vector<Piece> pieces;
  pieces.reserve(2 * matches.size() + 1);
  std::size_t done = 0;
  for (const ByteRange& match : matches) {
    if (done != match.begin) pieces.push_back({{done, match.begin}, invert});
    pieces.push_back({match, !invert});
    done = match.end;
  }
  if (done != size) pieces.push_back({{done, size}, invert});
  return pieces;
}

std::vector<ByteRange> merge_with_previous(const std::vector<Piece>& pieces) {
  std::vector<ByteRange> merged;
  bool previous_match = false;
  for (const Piece& piece : pieces) {
    if (piece.is_match && !previous_match && !merged.empty()) {
      merged.back().end = piece.range.end;
    } else {
      merged.push_back(piece.range);
    }
    previous_match = piece.is_match;
  }
  return merged;
}

std::vector<ByteRange> merge_with_next(const std::vector<Piece>& pieces) {
  std::vector<ByteRange> merged;  // back to front
  bool previous_match = false;
  for (auto piece = pieces.rbegin(); piece != pieces.rend(); ++piece) {
    if (piece->is_match && !previous_match && !merged.empty()) {
      merged.back().begin = piece->range.begin;
    } else {
      merged.push_back(piece->range);
    }
    previous_match = piece->is_match;
  }
  return {merged.rbegin(), merged.rend()};
}

std::vector<ByteRange> merge_neighbours(const std::vector<Piece>& pieces) {
  std::vector<ByteRange> merged;
  bool previous_match = false;
  for (const Piece& piece : pieces) {
    if (piece.is_match == previous_match && !merged.empty()) {
      merged.back().end = piece.range.end;
    } else {
      merged.push_back(piece.range);
    }
    previous_match = piece.is_match;
  }
  return merged;
}

}  // namespace

void split_at(std::size_t size, const std::vector<ByteRange>& matches, SplitBehavior behavior, bool invert,
              std::size_t offset, std::vector<ByteRange>& pieces) {
  const auto put = [&](const ByteRange& range) {
    if (range.begin != range.end) pieces.push_back({offset + range.begin, offset + range.end});
  };
  if (behavior == SplitBehavior::kIsolated) {  // by far the most used, and needs no list of its own
    std::size_t done = 0;
    for (const ByteRange& match : matches) {
      put({done, match.begin});
      put(match);
      done = match.end;
    }
    return put({done, size});
  }
  const std::vector<Piece> all = all_pieces(size, matches, invert);
  if (behavior == SplitBehavior::kRemoved) {
    for (const Piece& piece : all) {
      if (!piece.is_match) put(piece.range);
    }
    return;
  }
  const auto merged = behavior == SplitBehavior::kMergedWithPrevious ? merge_with_previous(all)
                      : behavior == SplitBehavior::kMergedWithNext   ? merge_with_next(all)
                                                                     : merge_neighbours(all);
  for (const ByteRange& range : merged) put(range);
}

PreTokenizer::PreTokenizer(const std::vector<PreTokenizerStep>& steps) {
  for (const PreTokenizerStep& step : steps) {
    const bool last = &step == &steps.back();
    if (const auto* byte_level = std::get_if<ByteLevelStep>(&step)) {
      add_byte_level(*byte_level, last);
    } else if (const auto* split = std::get_if<SplitStep>(&step)) {
      Regex pattern = split->pattern.is_regex ? Regex::from_oniguruma(split->pattern.text)
                                              : Regex::from_literal(split->pattern.text);
      steps_.emplace_back(PatternSplit{std::move(pattern), split->behavior, split->invert});
    } else if (const auto* digits = std::get_if<DigitsStep>(&step)) {
      const auto behavior = digits->individual ? SplitBehavior::kIsolated : SplitBehavior::kContiguous;
      steps_.emplace_back(CharacterSplit{CharacterClass::kDigit, behavior});
    } else if (const auto* punctuation = std::get_if<PunctuationStep>(&step)) {
      steps_.emplace_back(CharacterSplit{CharacterClass::kPunctuation, punctuation->behavior});
    } else if (std::holds_alternative<WhitespaceSplitStep>(step)) {
      steps_.emplace_back(CharacterSplit{CharacterClass::kWhiteSpace, SplitBehavior::kRemoved});
    } else {
      add_metaspace(std::get<MetaspaceStep>(step));
    }
  }
}

void PreTokenizer::add_byte_level(const ByteLevelStep& step, bool last) {
  if (step.add_prefix_space) steps_.emplace_back(PrefixSpace{});
  if (step.use_regex) {
    steps_.emplace_back(PatternSplit{Regex::from_oniguruma(kGpt2Pattern), SplitBehavior::kIsolated, false});
  }
  if (last) {
    byte_level_ = true;
  } else {
    steps_.emplace_back(SpellBytes{});
  }
}

void PreTokenizer::add_metaspace(const MetaspaceStep& step) {
  steps_.emplace_back(step);
  if (step.split) {
    steps_.emplace_back(PatternSplit{Regex::from_literal(step.replacement), SplitBehavior::kMergedWithNext, false});
  }
}

void PreTokenizer::run(AlignedText& text, RegexScratch& scratch, std::vector<ByteRange>& words) const {
  words.clear();
  if (!text.text().empty()) words.push_back({0, text.text().size()});
  std::vector<ByteRange> pieces;
  std::vector<ByteRange> matches;
  for (const Step& step : steps_) {
    const auto* pattern = std::get_if<PatternSplit>(&step);
    const auto* characters = std::get_if<CharacterSplit>(&step);
    if (pattern == nullptr && characters == nullptr) {
      rewrite(step, text, words);
      continue;
    }
    pieces.clear();
    for (const ByteRange& word : words) {
      const std::string_view content = text.text().substr(word.begin, word.end - word.begin);
      matches.clear();
      if (pattern != nullptr) {
        pattern->pattern.find_all(content, scratch, matches);
        split_at(content.size(), matches, pattern->behavior, pattern->invert, word.begin, pieces);
        continue;
      }
      for (std::size_t at = 0, size = 0; at < content.size(); at += size) {
        const char32_t c = utf8_decode(content.substr(at), size);
        const bool hit = characters->which == CharacterClass::kDigit         ? is_numeric(c)
                         : characters->which == CharacterClass::kPunctuation ? is_punctuation(c)
                                                                             : is_white_space(c);
        if (hit) matches.push_back({at, at + size});
      }
      split_at(content.size(), matches, characters->behavior, false, word.begin, pieces);
    }
    words.swap(pieces);
  }
}

void PreTokenizer::rewrite(const Step& step, AlignedText& text, std::vector<ByteRange>& words) const {
  AlignedText::Builder builder(text);
  const std::string_view source = text.text();
  std::size_t done = 0;
  for (ByteRange& word : words) {
    builder.copy(done, word.begin);  // what an earlier step removed stays in the text, outside all words
    done = word.end;
    const std::size_t begin = builder.size();
    if (std::holds_alternative<PrefixSpace>(step)) {
      if (source[word.begin] != ' ') builder.replace(" ", word.begin, word.begin);
      builder.copy(word.begin, word.end);
    } else if (std::holds_alternative<SpellBytes>(step)) {
      for (std::size_t i = word.begin; i < word.end; ++i) {
        builder.replace(alphabet_.spelling(static_cast<unsigned char>(source[i])), i, i + 1);
      }
    } else {
      const auto& metaspace = std::get<MetaspaceStep>(step);
      const bool marked = source[word.begin] == ' ' || source.substr(word.begin).starts_with(metaspace.replacement);
      const bool wanted = metaspace.prepend == PrependScheme::kAlways ||
                          (metaspace.prepend == PrependScheme::kFirst && text.origin(word.begin) == 0);
      if (wanted && !marked) builder.replace(metaspace.replacement, word.begin, word.begin);
      for (std::size_t i = word.begin; i < word.end; ++i) {
        if (source[i] == ' ') {
          builder.replace(metaspace.replacement, i, i + 1);
        } else {
          builder.copy(i, i + 1);
        }
      }
    }
    word = {begin, builder.size()};
  }
  builder.copy(done, source.size());
  text = std::move(builder).finish();
}

}  // namespace lomu
