#include "models/tokenizer/fingerprint.h"

#include <algorithm>
#include <numeric>

#include "models/files/hashing.h"

namespace lomu {
namespace {

void add(FastHash& hash, bool value) {
  hash.add(std::uint64_t{value});
}
void add(FastHash& hash, std::int32_t value) {
  hash.add(static_cast<std::uint64_t>(value));
}
void add(FastHash& hash, const Pattern& pattern) {
  hash.add(pattern.text);
  add(hash, pattern.is_regex);
}

void add(FastHash&, const NfcNormalizer&) {}
void add(FastHash&, const NfdNormalizer&) {}
void add(FastHash& hash, const PrependNormalizer& step) {
  hash.add(step.prepend);
}
void add(FastHash& hash, const ReplaceNormalizer& step) {
  add(hash, step.pattern);
  hash.add(step.content);
}

void add(FastHash& hash, const ByteLevelStep& step) {
  add(hash, step.add_prefix_space);
  add(hash, step.use_regex);
}
void add(FastHash& hash, const SplitStep& step) {
  add(hash, step.pattern);
  hash.add(static_cast<std::uint64_t>(step.behavior));
  add(hash, step.invert);
}
void add(FastHash& hash, const DigitsStep& step) {
  add(hash, step.individual);
}
void add(FastHash& hash, const PunctuationStep& step) {
  hash.add(static_cast<std::uint64_t>(step.behavior));
}
void add(FastHash&, const WhitespaceSplitStep&) {}
void add(FastHash& hash, const MetaspaceStep& step) {
  hash.add(step.replacement);
  hash.add(static_cast<std::uint64_t>(step.prepend));
  add(hash, step.split);
}

template <class... Kinds>
void add(FastHash& hash, const std::vector<std::variant<Kinds...>>& steps) {
  hash.add(std::uint64_t{steps.size()});
  for (const auto& step : steps) {
    hash.add(std::uint64_t{step.index()});
    std::visit([&](const auto& kind) { add(hash, kind); }, step);
  }
}

void add(FastHash& hash, const BpeSpec& model) {
  std::vector<std::size_t> by_id(model.vocab.size());
  std::iota(by_id.begin(), by_id.end(), std::size_t{0});
  std::sort(by_id.begin(), by_id.end(),
            [&](std::size_t a, std::size_t b) { return model.vocab[a].second < model.vocab[b].second; });
  hash.add(std::uint64_t{by_id.size()});
  for (const std::size_t i : by_id) {
    hash.add(model.vocab[i].first);
    add(hash, model.vocab[i].second);
  }
  hash.add(std::uint64_t{model.merges.size()});
  for (const auto& [left, right] : model.merges) {
    hash.add(left);
    hash.add(right);
  }
  add(hash, model.unk_token.has_value());
  hash.add(model.unk_token.value_or(""));
  add(hash, model.fuse_unk);
  add(hash, model.byte_fallback);
  add(hash, model.ignore_merges);
}

void add(FastHash& hash, const AddedToken& token) {
  hash.add(token.content);
  add(hash, token.id);
  for (const bool flag : {token.special, token.lstrip, token.rstrip, token.single_word, token.normalized})
    add(hash, flag);
}

void add(FastHash& hash, const TemplateStep& step) {
  hash.add(std::uint64_t{step.size()});
  for (const auto& piece : step) {
    add(hash, piece.has_value());
    if (!piece) continue;
    hash.add(std::uint64_t{piece->size()});
    for (const std::int32_t id : *piece) add(hash, id);
  }
}

}  // namespace

std::uint64_t fingerprint_of(const TokenizerSpec& spec) {
  FastHash hash;
  add(hash, spec.model);
  hash.add(std::uint64_t{spec.added_tokens.size()});
  for (const AddedToken& token : spec.added_tokens) add(hash, token);
  add(hash, spec.normalizers);
  add(hash, spec.pre_tokenizers);
  hash.add(std::uint64_t{spec.post_processors.size()});
  for (const TemplateStep& step : spec.post_processors) add(hash, step);
  return hash.value();
}

}  // namespace lomu
