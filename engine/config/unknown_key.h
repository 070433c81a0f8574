// What to say about a key that does not exist: the key that was probably meant.
#pragma once

#include <string>
#include <string_view>

#include "engine/config/schema.h"

namespace lomu::config {

/// A hint for the unknown key `path` ("training.learning_rate"): the name other trainers use for one of ours, a slip of
/// the keyboard, or the right name in the wrong section; else where to find the list of keys.
std::string unknown_key_hint(const Schema& schema, std::string_view path);

}  // namespace lomu::config
