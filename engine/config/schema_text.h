// The key table for people: on a terminal, in the documentation, and as JSON Schema for their editors.
#pragma once

#include <cstddef>
#include <string>

#include "engine/config/schema.h"
#include "engine/config/terminal.h"

namespace lomu::config {

/// `lomu schema`: keys by section, aligned, wrapped at `width` columns.
std::string schema_text(const Schema& schema, const Style& style, std::size_t width);

/// One Markdown table for each section: the part of docs/configuration.md that is generated.
std::string schema_markdown(const Schema& schema);

/// JSON Schema, draft 2020-12, for yaml-language-server and the like.
std::string schema_json(const Schema& schema);

}  // namespace lomu::config
