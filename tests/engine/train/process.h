// A program run as its user runs it: a process of its own, with its output, its exit code and its time. For tests of
// what only whole processes show: exit codes, signals, ranks under mpirun.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace lomu {

struct Outcome {
  int code = -1;   ///< exit code; -1 when a signal ended it
  int signal = 0;  ///< that signal
  bool timed_out = false;
  double seconds = 0;
  std::string out;
  std::string err;
};

struct ProcessOptions {
  std::filesystem::path folder;                                  ///< where it runs; its output is kept there meanwhile
  std::vector<std::pair<std::string, std::string>> environment;  ///< added to this process's own
  std::string input;                                             ///< standard input
  std::optional<std::uint64_t> file_limit;  ///< largest file it may write, as a disk that fills up: a write fails
  double patience = 60;                     ///< seconds until it is killed
};

class Process {
 public:
  /// Starts arguments[0], found in PATH. Throws std::runtime_error.
  Process(const std::vector<std::string>& arguments, const ProcessOptions& options);
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;
  ~Process();

  [[nodiscard]] pid_t pid() const { return pid_; }
  /// Processes that it has started and that still run: under mpirun, the ranks.
  [[nodiscard]] std::vector<pid_t> children() const;
  /// Whether the process runs; one that has ended and waits to be counted does not.
  [[nodiscard]] static bool runs(pid_t pid);
  void kill(int signal) const;
  /// Waits for its end; kills it when the time is over.
  Outcome wait();

 private:
  ProcessOptions options_;
  std::filesystem::path out_;
  std::filesystem::path err_;
  pid_t pid_ = -1;
  double started_ = 0;
  bool ended_ = false;
};

}  // namespace lomu
