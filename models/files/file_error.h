// Turns errno into a FileError that says which file, what failed and what to do.
#pragma once

#include <filesystem>
#include <string_view>

namespace lomu {

/// `action`: "open", "write", "rename", ... Always throws FileError; `where` is the path.
[[noreturn]] void throw_file_error(std::string_view action, const std::filesystem::path& path, int error_number);

}  // namespace lomu
