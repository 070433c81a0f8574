// Runs a command of several processes and keeps what it said, for tests of ranks.
#pragma once

#include <sys/wait.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <string>

namespace lomu::processes {

struct Outcome {
  int exit_code = -1;
  double seconds = 0.0;
  std::string output;  ///< stdout and stderr
};

inline Outcome run(const std::string& command) {
  const auto start = std::chrono::steady_clock::now();
  Outcome outcome;
  std::FILE* const pipe = popen((command + " 2>&1").c_str(), "r");
  if (pipe == nullptr) return outcome;
  std::array<char, 4096> buffer{};
  while (const std::size_t got = std::fread(buffer.data(), 1, buffer.size(), pipe))
    outcome.output.append(buffer.data(), got);
  const int status = pclose(pipe);
  if (WIFEXITED(status)) outcome.exit_code = WEXITSTATUS(status);
  outcome.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return outcome;
}

inline std::string digest_in(const std::string& output) {
  const std::size_t at = output.find("digest ");
  return at == std::string::npos ? "no digest in: " + output : output.substr(at + 7, 16);
}

}  // namespace lomu::processes
