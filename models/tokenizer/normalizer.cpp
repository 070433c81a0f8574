#include "models/tokenizer/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <optional>
#include <span>

#include "models/tokenizer/unicode.h"
#include "models/tokenizer/utf8.h"

namespace lomu {
namespace {

// Canonical decompositions have at most 4 code points (Unicode stability policy).
using Decomposition = std::array<utf8proc_int32_t, 8>;

// A vowel of Dives Akuru (Unicode 13) and its second half: the only canonical composition of Unicode 10 to 15, and
// unknown to the tokenizers library.
constexpr utf8proc_int32_t kDivesAkuruO = 0x11938;
constexpr utf8proc_int32_t kDivesAkuruOEnd = 0x11930;

std::span<const utf8proc_int32_t> decompose(char32_t c, Decomposition& buffer) {
  if (c == kDivesAkuruO) {
    buffer[0] = kDivesAkuruO;
    return {buffer.data(), 1};
  }
  int boundary_class = 0;
  const auto count = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c), buffer.data(), buffer.size(),
                                             UTF8PROC_DECOMPOSE, &boundary_class);
  if (count < 1 || count > static_cast<utf8proc_ssize_t>(buffer.size())) {
    buffer[0] = static_cast<utf8proc_int32_t>(c);
    return {buffer.data(), 1};
  }
  return {buffer.data(), static_cast<std::size_t>(count)};
}

int combining_class(utf8proc_int32_t c) {
  return is_unordered_mark(static_cast<char32_t>(c)) ? 0 : utf8proc_get_property(c)->combining_class;
}

// Whether a character that decomposes to `first`... can neither be reordered before, nor composed with, what precedes
// it. Those that can are marks and the vowels and finals of Hangul.
bool begins_segment(utf8proc_int32_t first) {
  if (first < 0x300) return true;
  if (is_unordered_mark(static_cast<char32_t>(first)) || first == kDivesAkuruOEnd) return true;
  if (combining_class(first) != 0) return false;
  const auto category = utf8proc_category(first);
  const bool mark =
      category == UTF8PROC_CATEGORY_MN || category == UTF8PROC_CATEGORY_MC || category == UTF8PROC_CATEGORY_ME;
  const bool hangul_tail = (first >= 0x1161 && first <= 0x1175) || (first >= 0x11A8 && first <= 0x11C2);
  return !mark && !hangul_tail;
}

// Canonical ordering: stable, within runs of characters of non-zero class.
void order_marks(std::vector<utf8proc_int32_t>& code_points) {
  auto run = code_points.begin();
  while (run != code_points.end()) {
    if (combining_class(*run) == 0) {
      ++run;
      continue;
    }
    const auto end = std::find_if(run, code_points.end(), [](auto c) { return combining_class(c) == 0; });
    std::stable_sort(run, end, [](auto a, auto b) { return combining_class(a) < combining_class(b); });
    run = end;
  }
}

// Appends the normal form of one segment to `out`.
void normalize_segment(std::string_view segment, bool compose, std::vector<utf8proc_int32_t>& work, std::string& out) {
  work.clear();
  Decomposition buffer;
  while (!segment.empty()) {
    std::size_t size = 0;
    const auto part = decompose(utf8_decode(segment, size), buffer);
    work.insert(work.end(), part.begin(), part.end());
    segment.remove_prefix(size);
  }
  order_marks(work);
  auto length = static_cast<utf8proc_ssize_t>(work.size());
  if (compose) {
    length = utf8proc_normalize_utf32(work.data(), length,
                                      static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  }
  for (utf8proc_ssize_t i = 0; i < length; ++i)
    utf8_append(out, static_cast<char32_t>(work[static_cast<std::size_t>(i)]));
}

// The end of the segment that begins at `begin`; `plain` says that it is one character which is its own decomposition.
std::size_t segment_end(std::string_view text, std::size_t begin, bool& plain) {
  Decomposition buffer;
  std::size_t size = 0;
  const char32_t first = utf8_decode(text.substr(begin), size);
  const auto first_part = decompose(first, buffer);
  plain = first_part.size() == 1 && first_part[0] == static_cast<utf8proc_int32_t>(first);
  std::size_t end = begin + size;
  while (end < text.size()) {
    const char32_t c = utf8_decode(text.substr(end), size);
    if (c < 0x300 || begins_segment(decompose(c, buffer)[0])) return end;
    plain = false;
    end += size;
  }
  return end;
}

AlignedText replace_all(AlignedText text, const Regex& pattern, std::string_view content, RegexScratch& scratch) {
  std::vector<ByteRange> matches;
  pattern.find_all(text.text(), scratch, matches);
  if (matches.empty()) return text;
  AlignedText::Builder builder(text);
  std::size_t done = 0;
  for (const ByteRange& match : matches) {
    builder.copy(done, match.begin);
    builder.replace(content, match.begin, match.end);
    done = match.end;
  }
  builder.copy(done, text.text().size());
  return std::move(builder).finish();
}

}  // namespace

AlignedText normalize_unicode(AlignedText text, bool compose) {
  const std::string_view source = text.text();
  std::optional<AlignedText::Builder> builder;  // from the first change on
  std::vector<utf8proc_int32_t> work;
  std::string normal;
  for (std::size_t begin = 0, end = 0; begin < source.size(); begin = end) {
    bool plain = false;
    end = segment_end(source, begin, plain);
    const std::string_view segment = source.substr(begin, end - begin);
    normal.clear();
    if (!plain) normalize_segment(segment, compose, work, normal);
    if (plain || normal == segment) {
      if (builder) builder->copy(begin, end);
      continue;
    }
    if (!builder) {
      builder.emplace(text);
      builder->copy(0, begin);
    }
    builder->replace(normal, begin, end);
  }
  return builder ? std::move(*builder).finish() : std::move(text);
}

Normalizer::Normalizer(const std::vector<NormalizerStep>& steps) {
  for (const NormalizerStep& step : steps) {
    if (std::holds_alternative<NfcNormalizer>(step)) {
      steps_.emplace_back(Unicode{true});
    } else if (std::holds_alternative<NfdNormalizer>(step)) {
      steps_.emplace_back(Unicode{false});
    } else if (const auto* prepend = std::get_if<PrependNormalizer>(&step)) {
      steps_.emplace_back(Prepend{prepend->prepend});
    } else {
      const auto& replace = std::get<ReplaceNormalizer>(step);
      Regex pattern = replace.pattern.is_regex ? Regex::from_oniguruma(replace.pattern.text)
                                               : Regex::from_literal(replace.pattern.text);
      steps_.emplace_back(Replace{std::move(pattern), replace.content});
    }
  }
}

AlignedText Normalizer::normalize(AlignedText text, RegexScratch& scratch) const {
  for (const auto& step : steps_) {
    if (const auto* unicode = std::get_if<Unicode>(&step)) {
      text = normalize_unicode(std::move(text), unicode->compose);
    } else if (const auto* replace = std::get_if<Replace>(&step)) {
      text = replace_all(std::move(text), replace->pattern, replace->content, scratch);
    } else if (!text.text().empty()) {
      AlignedText::Builder builder(text);
      builder.replace(std::get<Prepend>(step).text, 0, 0);
      builder.copy(0, text.text().size());
      text = std::move(builder).finish();
    }
  }
  return text;
}

std::string Normalizer::normalize(std::string_view text, RegexScratch& scratch) const {
  return std::string(normalize(AlignedText(text, 0), scratch).text());
}

}  // namespace lomu
