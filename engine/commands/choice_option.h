// A command line option that takes one of a few words. For the *_options.cpp files only: it needs CLI11.
#pragma once

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <string>
#include <utility>
#include <vector>

#include "engine/config/nearest.h"
#include "kernels/error.h"

namespace lomu {

/// `--name WORD` sets `target` to the value of the word; UsageError, with the nearest word, for any other.
template <class E>
CLI::Option* add_choice(CLI::App& command, const std::string& name, E& target,
                        std::vector<std::pair<std::string, E>> words, const std::string& meaning) {
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
  return command.add_option_function<std::string>(name, set, meaning)
      ->type_name(fmt::format("{}", fmt::join(names, "|")));
}

}  // namespace lomu
