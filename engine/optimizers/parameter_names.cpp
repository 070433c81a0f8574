#include "engine/optimizers/parameter_names.h"

#include <algorithm>
#include <array>
#include <cstddef>

namespace lomu {
namespace {

constexpr std::string_view kWeight = ".weight";

std::string_view without_suffix(std::string_view text, std::string_view suffix) {
  if (text.ends_with(suffix)) text.remove_suffix(suffix.size());
  return text;
}

/// Goes back to the last * when a character does not fit: linear in practice, and never worse than the product of
/// lengths.
bool glob(std::string_view pattern, std::string_view text) {
  std::size_t p = 0, t = 0;
  std::size_t star = std::string_view::npos, resume = 0;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      resume = t;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == text[t])) {
      ++p;
      ++t;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      t = ++resume;
    } else {
      return false;
    }
  }
  return std::ranges::all_of(pattern.substr(p), [](char c) { return c == '*'; });
}

}  // namespace

std::string_view site_word(std::string_view name) {
  constexpr std::array<std::string_view, 7> kProjections = {"q", "k", "v", "o", "gate", "up", "down"};
  if (name.ends_with(".bias")) return "bias";
  const std::string_view module = without_suffix(name, kWeight);
  const std::string_view last = module.substr(module.rfind('.') + 1);
  if (last.ends_with("_proj")) {
    const auto* found = std::ranges::find(kProjections, without_suffix(last, "_proj"));
    return found == kProjections.end() ? std::string_view{} : *found;
  }
  if (last == "embed_tokens") return "embedding";
  if (last == "lm_head") return "head";
  if (last.find("norm") != std::string_view::npos) return "norm";
  return {};
}

bool matches_parameter(std::string_view pattern, std::string_view name) {
  const std::string_view word = site_word(name);
  const bool norms = pattern == "norms" && word == "norm";
  return (!word.empty() && pattern == word) || norms || glob(pattern, name) ||
         glob(pattern, without_suffix(name, kWeight));
}

}  // namespace lomu
