// Rules between keys: what each key allows by itself is in the key table.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "engine/config/train_config.h"
#include "engine/config/value.h"

namespace lomu::config {

/// A rule over `keys`. `broken` gives what is wrong, or nothing.
struct Rule {
  std::vector<std::string> keys;
  std::function<std::optional<BadValue>(const TrainConfig&)> broken;
};

const std::vector<Rule>& rules();

}  // namespace lomu::config
