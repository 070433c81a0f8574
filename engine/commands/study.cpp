#include "engine/commands/study.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <fstream>
#include <sstream>
#include <thread>
#include <utility>

#include "comm/bootstrap.h"
#include "engine/commands/commit.h"
#include "engine/commands/doctor_machine.h"
#include "engine/config/terminal.h"
#include "engine/session/cores.h"
#include "engine/study/study_page.h"
#include "engine/study/study_runner.h"
#include "models/files/atomic_file.h"

namespace lomu {
namespace {

namespace fs = std::filesystem;

std::string processor() {
  std::ifstream in("/proc/cpuinfo");
  std::ostringstream text;
  text << in.rdbuf();
  return parse_cpuinfo(text.str()).model;
}

/// Cores of one of `ranks` on this machine: its share of what the machine or the container has, within its own binding.
int cores_of_rank(int ranks) {
  const double machine = static_cast<double>(std::max(1u, std::thread::hardware_concurrency()));
  const double share = std::min(machine, container_quota().value_or(machine)) / ranks;
  return std::max(1, std::min(static_cast<int>(share), static_cast<int>(allowed_cores().size())));
}

void show(const StudyRecord& record, const Study& study, bool was_done, std::size_t done, std::size_t all, double eta) {
  const auto value = record.value(study.metric);
  const std::string result = value ? fmt::format("{:.4f}", *value) : record.diverged ? "diverged" : record.failure;
  fmt::print(
      stderr, "[{:>4}/{}] {}  {}{}\n", done, all, record.id, result,
      was_done ? "  (done before)" : fmt::format("  {}  ETA {}", human_duration(record.seconds), human_duration(eta)));
}

/// The runs under way: on a terminal one line that stays the last, elsewhere a line a minute.
class UnderWay {
 public:
  void show(std::span<const StudyRun* const> runs) {
    const auto now = std::chrono::steady_clock::now();
    if (!terminal_ && now - shown_ < std::chrono::minutes(1)) return;
    shown_ = now;
    std::string text;
    for (const StudyRun* run : runs)
      text += fmt::format("{}{}  {}", text.empty() ? "" : " | ", run->id, progress_of(*run));
    if (!terminal_) {
      fmt::print(stderr, "running    {}\n", text);
      return;
    }
    const std::size_t width = terminal_width(stderr);
    if (text.size() >= width) text.resize(width - 1);
    fmt::print(stderr, "\r\033[K{}", text);
    std::fflush(stderr);
    on_line_ = true;
  }
  void clear() {
    if (std::exchange(on_line_, false)) fmt::print(stderr, "\r\033[K");
  }

 private:
  bool terminal_ = is_terminal(stderr);
  bool on_line_ = false;
  std::chrono::steady_clock::time_point shown_ = std::chrono::steady_clock::now();
};

/// Writes results.jsonl and the page from the records of all runs. Returns how many are missing.
std::size_t write_results(const Study& study, const std::vector<StudyRun>& runs, const fs::path& out,
                          const std::string& provenance) {
  std::vector<StudyRecord> records;
  std::string lines;
  for (const StudyRun& run : runs) {
    auto record = read_record(run);
    if (!record) continue;
    lines += to_json(*record) + "\n";
    records.push_back(std::move(*record));
  }
  const std::string name = study.file.stem().string();
  write_file(out / "results.jsonl", lines);
  write_file(out / (name + ".html"), page_of(study, records, provenance));
  fmt::print(stderr, "{}", verdict_of(study, records));
  fmt::print(stderr, "results    {}\npage       {}\n", (out / "results.jsonl").string(),
             (out / (name + ".html")).string());
  return runs.size() - records.size();
}

std::string provenance_of(const StudyOptions& options) {
  std::string command = fmt::format("lomu study {}", options.file.string());
  if (options.quick) command += " --quick";
  for (const std::string& setting : options.settings) command += " " + setting;
  return fmt::format("{}; commit {}; {}, {} cores; {:%Y-%m-%d}", command, commit(), processor(), cores_of_rank(1),
                     fmt::gmtime(std::time(nullptr)));
}

}  // namespace

Exit run_study(const StudyOptions& options) {
  const Study study = read_study(options.file, options.quick);
  const fs::path out = options.out.empty() ? fs::path("runs") / ("study-" + study.file.stem().string()) : options.out;
  JobRanks ranks(CommOptions::from_environment());
  Communicator& world = ranks.world();
  const int cores = cores_of_rank(world.local_size());
  const int at_once = options.jobs > 0 ? options.jobs : cores;
  const int threads = std::max(1, cores / at_once);
  const std::vector<StudyRun> runs = runs_of(study, out, options.settings);
  if (options.list) {
    std::string text;
    for (const StudyRun& run : runs) text += run.id + "\n";
    write_out(text);
    return Exit::kDone;
  }
  const auto first = static_cast<std::size_t>(world.rank());
  const auto stride = static_cast<std::size_t>(world.size());
  const std::size_t mine = (runs.size() + stride - 1 - first) / stride;
  if (world.rank() == 0) {
    fmt::print(stderr, "study      {}: {} runs, {} at once{}\n", study.file.string(), runs.size(), at_once,
               world.size() > 1 ? fmt::format(" on each of {} ranks", world.size()) : "");
    fmt::print(stderr, "watch      tail -f {}/*.log\n", (out / "runs").string());
  }
  std::size_t before = 0;
  UnderWay under_way;
  const auto on_done = [&](const StudyRecord& record, bool was_done, std::size_t done, double seconds) {
    before += was_done ? 1 : 0;
    const auto made = static_cast<double>(std::max<std::size_t>(1, done - before));
    const double eta = seconds / made * static_cast<double>(mine - done);
    if (world.rank() != 0) return;
    under_way.clear();
    show(record, study, was_done, done, mine, eta);
  };
  const auto on_second = [&](std::span<const StudyRun* const> now) {
    if (world.rank() == 0) under_way.show(now);
  };
  const bool whole = run_all(runs, first, stride, {at_once, threads}, on_done, on_second);
  under_way.clear();
  if (!whole) {
    fmt::print(stderr, "stopped    what has finished is kept: the same command goes on from there\n");
    return Exit::kFailed;
  }
  const ScopedDeadline patient(world, std::chrono::hours(24 * 30));
  world.barrier("end of the study");
  if (world.rank() != 0) return Exit::kDone;
  const std::size_t missing = write_results(study, runs, out, provenance_of(options));
  if (missing == 0) return Exit::kDone;
  fmt::print(stderr, "{} runs have no result: see their logs in {}\n", missing, (out / "runs").string());
  return Exit::kFailed;
}

}  // namespace lomu
