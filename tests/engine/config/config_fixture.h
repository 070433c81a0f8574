// What the configuration tests share: the smallest valid job, and the problems of a wrong one.
#pragma once

#include <string>
#include <vector>

#include "engine/config/load.h"

namespace lomu::config {

inline const std::string kSmallest =
    "model:\n  path: m.gguf\n"
    "data:\n  train: t.jsonl\n"
    "output:\n  dir: out\n";

inline TrainConfig parse(const std::string& text, const std::vector<std::string>& overrides = {}) {
  return parse_config(text, "job.yaml", overrides);
}

/// The smallest job with overrides.
inline TrainConfig with(const std::vector<std::string>& overrides) {
  return parse(kSmallest, overrides);
}

/// All problems, each as "what | where | hint"; empty if the text is a valid job.
inline std::vector<std::string> problems(const std::string& text, const std::vector<std::string>& overrides = {}) {
  std::vector<std::string> found;
  try {
    parse(text, overrides);
  } catch (const ConfigError& error) {
    for (const Problem& p : error.problems()) found.push_back(p.what + " | " + p.where + " | " + p.hint);
  }
  return found;
}

}  // namespace lomu::config
