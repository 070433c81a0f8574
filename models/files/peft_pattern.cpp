#include "models/files/peft_pattern.h"

#include <fmt/format.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <memory>
#include <new>

#include "kernels/error.h"

namespace lomu {
namespace {

// A module path has some 40 bytes; an expression that needs more steps than this on one backtracks without end.
constexpr std::uint32_t kMaxSteps = 1'000'000;

constexpr std::string_view kAllLinear = "all-linear";

struct Free {
  void operator()(pcre2_code* p) const { pcre2_code_free(p); }
  void operator()(pcre2_match_data* p) const { pcre2_match_data_free(p); }
  void operator()(pcre2_match_context* p) const { pcre2_match_context_free(p); }
};

std::string message_of(int error) {
  std::array<PCRE2_UCHAR, 160> text{};
  pcre2_get_error_message(error, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

bool is_all_linear(std::string_view text) {
  return std::equal(text.begin(), text.end(), kAllLinear.begin(), kAllLinear.end(),
                    [](unsigned char a, unsigned char b) { return std::tolower(a) == b; });
}

}  // namespace

bool full_match(const std::string& pattern, std::string_view text, const std::string& where) {
  int error = 0;
  PCRE2_SIZE offset = 0;
  const std::unique_ptr<pcre2_code, Free> code(pcre2_compile(
      reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
      PCRE2_ANCHORED | PCRE2_ENDANCHORED | PCRE2_UTF | PCRE2_NEVER_BACKSLASH_C, &error, &offset, nullptr));
  if (code == nullptr) {
    throw FormatError(
        fmt::format("the regular expression \"{}\" is wrong at character {}: {}", pattern, offset, message_of(error)),
        where);
  }
  const std::unique_ptr<pcre2_match_data, Free> data(pcre2_match_data_create_from_pattern(code.get(), nullptr));
  const std::unique_ptr<pcre2_match_context, Free> context(pcre2_match_context_create(nullptr));
  if (data == nullptr || context == nullptr) throw std::bad_alloc();
  pcre2_set_match_limit(context.get(), kMaxSteps);
  const int result =
      pcre2_match(code.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), 0, 0, data.get(), context.get());
  if (result == PCRE2_ERROR_NOMATCH) return false;
  if (result < 0) {
    throw FormatError(fmt::format("the regular expression \"{}\" cannot be matched: {}", pattern, message_of(result)),
                      where);
  }
  return true;
}

bool names_module(const ModuleFilter::Names& names, std::string_view module, const std::string& where) {
  if (names.regex) return is_all_linear(*names.regex) || full_match(*names.regex, module, where);
  return std::any_of(names.suffixes.begin(), names.suffixes.end(), [&](const std::string& suffix) {
    return module == suffix || (module.ends_with(suffix) && module.size() > suffix.size() &&
                                module[module.size() - suffix.size() - 1] == '.');
  });
}

bool ModuleFilter::selects(std::string_view module, std::int64_t layer, const std::string& where) const {
  if (names_module(exclude, module, where)) return false;
  if (!names_module(target, module, where)) return false;
  // A module that the list names in full is taken whatever layers_to_transform says, as in PEFT.
  const auto& list = target.suffixes;
  if (target.regex || std::find(list.begin(), list.end(), module) != list.end()) return true;
  return !layers || layers->empty() || std::find(layers->begin(), layers->end(), layer) != layers->end();
}

double pattern_value(const std::vector<std::pair<std::string, double>>& pattern, std::string_view module,
                     double otherwise, const std::string& where) {
  for (const auto& [key, value] : pattern) {
    if (full_match(fmt::format("(.*\\.)?({})", key), module, where)) return value;
  }
  return otherwise;
}

}  // namespace lomu
