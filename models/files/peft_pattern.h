// How PEFT decides which modules carry an adapter and with which rank: suffixes, regular expressions, "all-linear".
// Follows check_target_module_exists and get_pattern_key of PEFT 0.21.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lomu {

/// Whether the whole text matches a regular expression in Python's spelling (PCRE2's differs in rare corners only).
/// `where` names the pattern in errors. Throws FormatError for a pattern that does not compile or takes too long.
bool full_match(const std::string& pattern, std::string_view text, const std::string& where);

/// target_modules, exclude_modules, layers_to_transform.
struct ModuleFilter {
  /// A string is a regular expression over the whole module path, or "all-linear"; a list has suffixes of it.
  struct Names {
    std::optional<std::string> regex;
    std::vector<std::string> suffixes;
  };
  Names target;
  Names exclude;
  std::optional<std::vector<std::int64_t>> layers;

  /// `module`: "model.layers.3.self_attn.q_proj".
  [[nodiscard]] bool selects(std::string_view module, std::int64_t layer, const std::string& where) const;
};

/// Whether `module` ends in one of the names of the list, or matches the expression.
bool names_module(const ModuleFilter::Names& names, std::string_view module, const std::string& where);

/// rank_pattern, alpha_pattern: the first entry whose key matches the end of the module path, else `otherwise`.
double pattern_value(const std::vector<std::pair<std::string, double>>& pattern, std::string_view module,
                     double otherwise, const std::string& where);

}  // namespace lomu
