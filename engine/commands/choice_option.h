// A command line option that takes one of a few words. A template over the command, so that no header needs CLI11.
#pragma once

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <string>
#include <utility>
#include <vector>

#include "engine/config/nearest.h"
#include "kernels/error.h"

namespace lomu {

/// `--name WORD` sets `target` to the value of the word; UsageError, with the nearest word, for any other. `command` is
/// a CLI::App; returns its new CLI::Option.
template <class E, class Command>
auto* add_choice(Command& command, const std::string& name, E& target, std::vector<std::pair<std::string, E>> words,
                 const std::string& meaning) {
  std::vector<std::string> names;
  for (const auto& word : words) names.push_back(word.first);
  const auto set = [&target, name, words, names](const std::string& given) {
    for (const auto& [word, value] : words) {
      if (word != given) continue;
      target = value;
      return;
    }
    const auto close = nearest(given, names);
    throw UsageError(
        fmt::format("`{}` is not a value of {}", given, name), "command line",
        fmt::format("{}allowed: {}", close ? fmt::format("did you mean `{}`? ", *close) : "", fmt::join(names, ", ")));
  };
  return command.template add_option_function<std::string>(name, set, meaning)
      ->type_name(fmt::format("{}", fmt::join(names, "|")));
}

}  // namespace lomu
