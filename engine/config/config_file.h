// Reads a configuration file as text, and refuses what is not one before a parser sees it.
#pragma once

#include <filesystem>
#include <string>

namespace lomu::config {

/// The content of `file`: at most 1 MiB of UTF-8 without control characters. UsageError (missing, a folder, no
/// permission, too large, binary, not UTF-8; the line where it can be told).
std::string read_config_file(const std::filesystem::path& file);

}  // namespace lomu::config
