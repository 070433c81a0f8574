// Runs of this program as processes of their own: started, waited for, ended. A crash of one is a result, not an end.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace lomu {

/// Starts this program with these arguments, its output in `log`, as a job of one process whatever launched this one.
/// It is killed when this process dies. Throws Error.
pid_t start_child(const std::vector<std::string>& arguments, const std::filesystem::path& log);

struct EndedChild {
  pid_t pid = 0;
  int exit_code = 0;  ///< 128 + signal if one ended it
};

/// Waits for any child. Nothing: none ended within `patience`, a signal came first, or there is none.
std::optional<EndedChild> wait_for_child(std::chrono::milliseconds patience);

void end_child(pid_t pid);

}  // namespace lomu
