#include "models/tokenizer/sentencepiece.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <unordered_map>

#include "kernels/error.h"
#include "models/tokenizer/utf8.h"

namespace lomu {
namespace {

constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  // U+2581, SentencePiece's space

// A token of n characters can be cut in n - 1 ways, each a look-up of up to n bytes; real tokens have a few dozen
// bytes.
constexpr std::size_t kLongestPiece = 1024;

struct Candidate {
  std::string_view left, right;
  double score;
  std::size_t left_characters, right_characters;
  std::int32_t left_id, right_id;
};

}  // namespace

std::vector<std::pair<std::string, std::string>> merges_from_scores(
    const std::vector<std::pair<std::string, std::int32_t>>& vocab, const std::vector<double>& scores) {
  std::unordered_map<std::string_view, std::int32_t> ids;
  ids.reserve(vocab.size());
  for (const auto& [token, id] : vocab) ids.emplace(token, id);

  std::vector<Candidate> candidates;
  for (std::size_t i = 0; i < vocab.size(); ++i) {
    const std::string_view token = vocab[i].first;
    if (token.size() > kLongestPiece) continue;
    const auto first_of_token = static_cast<std::ptrdiff_t>(candidates.size());
    std::size_t characters = 0;
    for (std::size_t at = 0; at < token.size(); at += utf8_lead(token.substr(at)).size) ++characters;
    std::size_t cut = 0;
    for (std::size_t k = 1; k < characters; ++k) {
      cut += utf8_lead(token.substr(cut)).size;
      const auto left = ids.find(token.substr(0, cut));
      const auto right = ids.find(token.substr(cut));
      if (left == ids.end() || right == ids.end()) continue;
      candidates.push_back({left->first, right->first, scores[i], k, characters - k, left->second, right->second});
    }
    std::sort(candidates.begin() + first_of_token, candidates.end(), [](const Candidate& a, const Candidate& b) {
      return std::pair(a.left_id, a.right_id) < std::pair(b.left_id, b.right_id);
    });
  }
  std::stable_sort(candidates.begin(), candidates.end(), [](const Candidate& a, const Candidate& b) {
    if (a.score != b.score) return a.score > b.score;
    if (a.left_characters != b.left_characters) return a.left_characters > b.left_characters;
    return a.right_characters > b.right_characters;
  });

  std::vector<std::pair<std::string, std::string>> merges;
  merges.reserve(candidates.size());
  for (const Candidate& c : candidates) merges.emplace_back(c.left, c.right);
  return merges;
}

void add_sentencepiece(const GgufFile& file, TokenizerSpec& spec) {
  const auto* scores = file.numbers("tokenizer.ggml.scores");
  if (scores == nullptr || scores->size() != spec.model.vocab.size()) {
    throw FormatError(fmt::format("tokenizer.ggml.scores has {} entries for {} tokens",
                                  scores == nullptr ? 0 : scores->size(), spec.model.vocab.size()),
                      file.path().string());
  }
  if (std::any_of(scores->begin(), scores->end(), [](double score) { return score != score; })) {
    throw FormatError("tokenizer.ggml.scores has an entry that is no number", file.path().string());
  }
  spec.model.merges = merges_from_scores(spec.model.vocab, *scores);
  spec.model.byte_fallback = true;
  spec.model.fuse_unk = true;
  const auto unknown = file.integer("tokenizer.ggml.unknown_token_id").value_or(0);
  if (unknown >= 0 && unknown < static_cast<std::int64_t>(spec.model.vocab.size())) {
    spec.model.unk_token = spec.model.vocab[static_cast<std::size_t>(unknown)].first;
  }
  const bool prefix = file.boolean("tokenizer.ggml.add_space_prefix").value_or(true);
  const Pattern space = {" ", false};
  const Pattern mark = {std::string(kSpaceMark), false};
  if (prefix) spec.normalizers.emplace_back(PrependNormalizer{std::string(kSpaceMark)});
  spec.normalizers.emplace_back(ReplaceNormalizer{space, std::string(kSpaceMark)});
  spec.decoders = {ReplaceDecoder{mark, " "}, ByteFallbackDecoder{}, FuseDecoder{}};
  if (prefix) spec.decoders.emplace_back(StripDecoder{" ", 1, 0});
}

}  // namespace lomu
