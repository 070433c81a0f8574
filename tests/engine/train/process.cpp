#include "tests/engine/train/process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <charconv>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <system_error>
#include <thread>

#include "tests/engine/data/scratch.h"

namespace lomu {
namespace {

namespace fs = std::filesystem;

constexpr std::chrono::milliseconds kGlance{2};

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// In the child, which may only call what is safe after fork: no allocation.
void redirect(const char* path, int flags, int to) {
  const int file = ::open(path, flags, 0644);
  if (file < 0 || ::dup2(file, to) < 0) ::_exit(126);
  ::close(file);
}

/// Nothing for a process that has ended.
std::optional<pid_t> parent_of(const fs::path& process) {
  // "PID (NAME) STATE PARENT ...": the name may hold spaces and parentheses, so the last parenthesis counts.
  const std::string text = Scratch::read(process / "stat");
  const std::size_t end = text.rfind(')');
  if (end == std::string::npos) return std::nullopt;
  std::istringstream rest(text.substr(end + 1));
  char state = 0;
  pid_t parent = 0;
  if (!(rest >> state >> parent) || state == 'Z') return std::nullopt;
  return parent;
}

}  // namespace

Process::Process(const std::vector<std::string>& arguments, const ProcessOptions& options) : options_(options) {
  static int count = 0;
  const std::string name = "process-" + std::to_string(count++);
  out_ = options.folder / (name + ".out");
  err_ = options.folder / (name + ".err");
  const fs::path in = options.folder / (name + ".in");
  std::ofstream(in) << options.input;

  std::vector<char*> argv;
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  std::vector<std::string> variables;
  for (const auto& [key, value] : options.environment) variables.push_back(key + "=" + value);

  started_ = now();
  pid_ = ::fork();
  if (pid_ < 0) throw std::runtime_error("fork failed");
  if (pid_ > 0) return;

  ::setpgid(0, 0);
  redirect(in.c_str(), O_RDONLY, STDIN_FILENO);
  redirect(out_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, STDOUT_FILENO);
  redirect(err_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, STDERR_FILENO);
  if (::chdir(options.folder.c_str()) != 0) ::_exit(126);
  for (std::string& variable : variables) ::putenv(variable.data());
  if (options.file_limit) {
    const rlimit limit{*options.file_limit, *options.file_limit};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    ::signal(SIGXFSZ, SIG_IGN);  // so that write() fails, as on a full disk
  }
  ::execvp(argv[0], argv.data());
  ::_exit(127);
}

Process::~Process() {
  if (ended_) return;
  kill(SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

std::vector<pid_t> Process::children() const {
  std::vector<pid_t> found;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator("/proc", error)) {
    const std::string name = entry.path().filename();
    pid_t pid = 0;
    const auto [end, bad] = std::from_chars(name.data(), name.data() + name.size(), pid);
    if (bad != std::errc() || end != name.data() + name.size()) continue;
    if (parent_of(entry.path()) == pid_) found.push_back(pid);
  }
  return found;
}

bool Process::runs(pid_t pid) {
  return parent_of(fs::path("/proc") / std::to_string(pid)).has_value();
}

void Process::kill(int signal) const {
  ::kill(pid_, signal);
}

Outcome Process::wait() {
  Outcome outcome;
  int status = 0;
  while (::waitpid(pid_, &status, WNOHANG) == 0) {
    if (!outcome.timed_out && now() - started_ > options_.patience) {
      outcome.timed_out = true;
      kill(SIGTERM);  // lets mpirun end its ranks
    }
    if (now() - started_ > options_.patience + 5) kill(SIGKILL);
    std::this_thread::sleep_for(kGlance);
  }
  ended_ = true;
  outcome.seconds = now() - started_;
  if (WIFEXITED(status)) outcome.code = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) outcome.signal = WTERMSIG(status);
  outcome.out = Scratch::read(out_);
  outcome.err = Scratch::read(err_);
  return outcome;
}

}  // namespace lomu
