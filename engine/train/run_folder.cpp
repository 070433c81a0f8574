#include "engine/train/run_folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <system_error>

#include "kernels/error.h"
#include "models/files/atomic_file.h"

namespace lomu {
namespace {

namespace fs = std::filesystem;

constexpr std::array<std::string_view, 5> kEntries = {"config.yaml", "metrics.jsonl", "adapter", "checkpoints",
                                                      "summary.json"};

bool belongs_to_a_run(const fs::path& entry) {
  return std::find(kEntries.begin(), kEntries.end(), entry.filename().string()) != kEntries.end();
}

void probe(const fs::path& folder) {
  const fs::path file = folder / ".lomu-probe";
  write_file(file, "x");
  fs::remove(file);
}

}  // namespace

RunFolder::RunFolder(fs::path folder, Start start) : folder_(std::move(folder)) {
  std::error_code error;
  const bool exists = fs::exists(folder_, error);
  if (exists && !fs::is_directory(folder_, error)) {
    throw UsageError("output.dir is not a folder", folder_.string(), "give the name of a folder");
  }
  bool empty = true;
  bool foreign = false;
  if (exists) {
    fs::directory_iterator entries(folder_, error);
    if (error) throw FileError(fmt::format("cannot read the output folder: {}", error.message()), folder_.string());
    for (const auto& entry : entries) {
      empty = false;
      foreign = foreign || !belongs_to_a_run(entry.path());
    }
  }
  if (start == Start::kResume && (empty || !fs::exists(config(), error))) {
    throw UsageError("there is no run to resume", folder_.string(), "check output.dir, or leave out --resume");
  }
  if (start == Start::kNew && !empty) {
    throw UsageError("the output folder exists and is not empty", folder_.string(),
                     "choose another output.dir, set output.overwrite=true, or go on with --resume");
  }
  if (start == Start::kOverwrite && foreign) {
    throw UsageError("the output folder holds files that are no run of lomu; it is not overwritten", folder_.string(),
                     "choose another output.dir");
  }
  fs::create_directories(folder_, error);
  if (error) {
    throw FileError(fmt::format("cannot make the output folder: {}", error.message()), folder_.string(),
                    "check the path and its permissions, or set output.dir");
  }
  probe(folder_);
  if (start == Start::kOverwrite) remove_earlier_run();
}

void RunFolder::remove_earlier_run() const {
  for (const std::string_view entry : kEntries) {
    std::error_code error;
    fs::remove_all(folder_ / entry, error);
    if (error)
      throw FileError(fmt::format("cannot remove an earlier run: {}", error.message()), (folder_ / entry).string());
  }
}

}  // namespace lomu
