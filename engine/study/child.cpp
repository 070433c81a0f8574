#include "engine/study/child.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <ctime>
#include <string_view>

#include "kernels/error.h"

extern char** environ;

namespace lomu {
namespace {

/// Variables by which a process knows itself a rank of a job (comm/bootstrap.cpp reads them).
bool places_a_rank(std::string_view variable) {
  constexpr std::array<std::string_view, 12> kStarts = {
      "OMPI_", "PMIX_",       "PMI_",   "MV2_",        "MPI_",        "SLURM_",
      "RANK=", "WORLD_SIZE=", "LOCAL_", "LOMU_RENDEZ", "MASTER_ADDR", "MASTER_PORT"};
  return std::any_of(kStarts.begin(), kStarts.end(),
                     [&](std::string_view start) { return variable.starts_with(start); });
}

std::vector<std::string> environment_of_a_single_process() {
  std::vector<std::string> variables;
  for (char** at = environ; *at != nullptr; ++at) {
    if (!places_a_rank(*at) && !std::string_view(*at).starts_with("OMP_WAIT_POLICY=")) variables.emplace_back(*at);
  }
  variables.emplace_back("OMP_WAIT_POLICY=passive");  // children share the cores
  return variables;
}

std::vector<char*> pointers_to(std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  for (std::string& text : texts) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

}  // namespace

pid_t start_child(const std::vector<std::string>& arguments, const std::filesystem::path& log) {
  // Everything is made before the fork: after it only what is safe in a signal handler may be called.
  std::vector<std::string> words = {"lomu"};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<std::string> variables = environment_of_a_single_process();
  const std::vector<char*> argv = pointers_to(words);
  const std::vector<char*> envp = pointers_to(variables);
  const std::string log_name = log.string();
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid < 0) throw Error(fmt::format("cannot start a run: {}", std::strerror(errno)));
  if (pid > 0) return pid;
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(127);
  const int nothing = ::open("/dev/null", O_RDONLY);
  const int file = ::open(log_name.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
  if (nothing < 0 || file < 0) ::_exit(126);
  ::dup2(nothing, STDIN_FILENO);
  ::dup2(file, STDOUT_FILENO);
  ::dup2(file, STDERR_FILENO);
  ::execve("/proc/self/exe", argv.data(), envp.data());
  ::_exit(127);
}

std::optional<EndedChild> wait_for_child(std::chrono::milliseconds patience) {
  const auto end = std::chrono::steady_clock::now() + patience;
  for (;;) {
    int status = 0;
    const pid_t pid = ::waitpid(-1, &status, WNOHANG);
    if (pid > 0) return EndedChild{pid, WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status)};
    if (pid < 0 || std::chrono::steady_clock::now() >= end) return std::nullopt;
    constexpr timespec kPause{0, 20'000'000};
    if (::nanosleep(&kPause, nullptr) != 0) return std::nullopt;
  }
}

void end_child(pid_t pid) {
  ::kill(pid, SIGKILL);
  ::waitpid(pid, nullptr, 0);
}

}  // namespace lomu
