#include "models/files/file_error.h"

#include <fmt/format.h>

#include <cerrno>
#include <system_error>

#include "kernels/error.h"

namespace lomu {
namespace {

std::string_view hint_for(int error_number) {
  switch (error_number) {
    case ENOENT:
    case ENOTDIR: return "check the path: a file or folder on it does not exist";
    case EACCES:
    case EPERM: return "check the owner and permissions of the file and of its folder";
    case EROFS: return "this file system is mounted read-only: choose another folder";
    case ENOSPC:
    case EDQUOT: return "free some space or choose a folder on another disk; nothing was left half-written";
    case EISDIR: return "this is a folder; a file is needed here";
    case EEXIST:
    case ENOTEMPTY: return "choose another name or remove what is there";
    case EMFILE:
    case ENFILE: return "too many files are open: raise the limit (ulimit -n)";
    default: return "";
  }
}

}  // namespace

void throw_file_error(std::string_view action, const std::filesystem::path& path, int error_number) {
  throw FileError(
      fmt::format("cannot {} {}: {}", action, path.filename().empty() ? path.string() : path.filename().string(),
                  std::generic_category().message(error_number)),
      path.string(), std::string(hint_for(error_number)));
}

}  // namespace lomu
