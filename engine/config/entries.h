// From text to (key, what was written): the YAML file and the overrides of the command line, by the same rules.
// Finds unknown and doubled keys and values of the wrong shape; does not look into values (schema.h does).
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/config/problems.h"
#include "engine/config/schema.h"

namespace lomu::config {

struct Entry {
  const Field* field = nullptr;
  Written written;
  std::string where;
  int line = 0;          ///< of the file; 0: from the command line
  bool readable = true;  ///< false: the key is there, its value was refused already
  [[nodiscard]] bool from_command_line() const { return line == 0; }
};

/// `name` is the file's name in messages. Problems are appended; what could be read is returned. Never throws on bad
/// text.
std::vector<Entry> read_yaml(std::string_view text, const std::string& name, const Schema& schema,
                             std::vector<Problem>& problems);

/// Overrides of the form key.path=value. The value of a list key is one entry, or a YAML list as [a, b].
std::vector<Entry> read_overrides(std::span<const std::string> overrides, const Schema& schema,
                                  std::vector<Problem>& problems);

}  // namespace lomu::config
