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

/// The keys of one item of a list.
struct Item {
  const ItemList* list = nullptr;
  std::size_t index = 0;
  std::string where;
  int line = 0;
  std::vector<Entry> entries;
};

/// What was written: keys, and items of lists in the order of their lists and indices.
struct Document {
  std::vector<Entry> entries;
  std::vector<Item> items;
};

/// `name` is the file's name in messages. Problems are appended; what could be read is returned. Never throws on bad
/// text.
Document read_yaml(std::string_view text, const std::string& name, const Schema& schema,
                   std::vector<Problem>& problems);

/// Adds overrides of the form key.path=value to `document`. The value of a list key is one entry, or a YAML list as
/// [a, b]. A key of an item that the document has is given as optimizer.groups[0].lr=0.1.
void read_overrides(std::span<const std::string> overrides, const Schema& schema, Document& document,
                    std::vector<Problem>& problems);

}  // namespace lomu::config
