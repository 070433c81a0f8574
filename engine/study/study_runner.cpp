#include "engine/study/study_runner.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <map>

#include "engine/study/child.h"
#include "kernels/error.h"
#include "models/files/atomic_file.h"

namespace lomu {
namespace {

volatile std::sig_atomic_t interrupted = 0;

void make_folder(const std::filesystem::path& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (!error) return;
  throw FileError(fmt::format("cannot make the folder of the runs: {}", error.message()), folder.string(),
                  "choose another --out");
}

/// While one of these lives, the usual signals of an end are noted, and wait calls return.
class StopWatch {
 public:
  StopWatch() {
    interrupted = 0;
    struct sigaction action {};
    action.sa_handler = [](int) { interrupted = 1; };
    for (std::size_t i = 0; i < std::size(kSignals); ++i) sigaction(kSignals[i], &action, &before_[i]);
  }
  StopWatch(const StopWatch&) = delete;
  StopWatch& operator=(const StopWatch&) = delete;
  ~StopWatch() {
    for (std::size_t i = 0; i < std::size(kSignals); ++i) sigaction(kSignals[i], &before_[i], nullptr);
  }

 private:
  static constexpr int kSignals[] = {SIGINT, SIGTERM, SIGHUP};
  struct sigaction before_[std::size(kSignals)]{};
};

/// The processes under way; those that still are when it goes are ended.
class Children {
 public:
  Children() = default;
  Children(const Children&) = delete;
  Children& operator=(const Children&) = delete;
  ~Children() {
    for (const auto& [pid, run] : runs_) end_child(pid);
  }

  void start(const StudyRun& run, int threads) {
    write_file(config_of(run), run.config);
    // No part of the configuration: it changes no result.
    const std::string setting = fmt::format("runtime.threads={}", threads);
    runs_.emplace(start_child({"train", config_of(run).string(), setting}, log_of(run)), &run);
  }
  [[nodiscard]] std::size_t size() const { return runs_.size(); }
  [[nodiscard]] std::vector<const StudyRun*> all() const {
    std::vector<const StudyRun*> runs;
    for (const auto& [pid, run] : runs_) runs.push_back(run);
    return runs;
  }
  /// The run that a process was; null for a process that is none of ours.
  const StudyRun* take(pid_t pid) {
    const auto found = runs_.find(pid);
    if (found == runs_.end()) return nullptr;
    const StudyRun* run = found->second;
    runs_.erase(found);
    return run;
  }

 private:
  std::map<pid_t, const StudyRun*> runs_;
};

}  // namespace

bool run_all(std::span<const StudyRun> runs, std::size_t first, std::size_t stride, RunsAtOnce at_once,
             const RunDone& done, const RunsUnderWay& under_way) {
  const auto start = std::chrono::steady_clock::now();
  const auto seconds = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(); };
  if (!runs.empty()) make_folder(runs.front().folder.parent_path());
  std::vector<const StudyRun*> missing;
  std::size_t finished = 0;
  for (std::size_t i = first; i < runs.size(); i += stride) {
    if (const auto record = read_record(runs[i])) {
      done(*record, true, ++finished, seconds());
    } else {
      missing.push_back(&runs[i]);
    }
  }
  const StopWatch watch;
  Children children;
  std::size_t next = 0;
  while (interrupted == 0 && (next < missing.size() || children.size() > 0)) {
    while (next < missing.size() && children.size() < static_cast<std::size_t>(at_once.runs)) {
      children.start(*missing[next++], at_once.threads);
    }
    const auto ended = wait_for_child(std::chrono::seconds(1));
    if (!ended && interrupted == 0) under_way(children.all());
    const StudyRun* const run = ended ? children.take(ended->pid) : nullptr;
    // A child that the same keystroke ended has no result.
    if (run == nullptr || interrupted != 0) continue;
    done(finish_record(*run, ended->exit_code), false, ++finished, seconds());
  }
  return interrupted == 0;
}

}  // namespace lomu
