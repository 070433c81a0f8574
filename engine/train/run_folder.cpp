#include "engine/train/run_folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string>
#include <system_error>
#include <vector>

#include "kernels/error.h"
#include "models/files/atomic_file.h"

namespace lomu {
namespace {

namespace fs = std::filesystem;

constexpr std::array<std::string_view, 7> kEntries = {"config.yaml", "metrics.jsonl", "adapter", "model",
                                                      "checkpoints", "summary.json",  "events"};

constexpr std::string_view kProbe = ".lomu-probe";

/// `.NAME.tmp-XXXXXXXX`, as atomic_file.h calls what is not whole yet, gives NAME; another name itself.
std::string whole_name(const fs::path& entry) {
  std::string name = entry.filename().string();
  const std::size_t end = name.rfind(".tmp-");
  return name.starts_with('.') && end != std::string::npos ? name.substr(1, end - 1) : name;
}

bool is_unfinished(const fs::path& entry) {
  return whole_name(entry) != entry.filename() || entry.filename() == kProbe;
}

bool belongs_to_a_run(const fs::path& entry) {
  const std::string name = whole_name(entry);
  return name == kProbe || std::find(kEntries.begin(), kEntries.end(), name) != kEntries.end();
}

std::vector<fs::path> unfinished_in(const fs::path& folder) {
  std::vector<fs::path> found;
  std::error_code error;  // a folder that is not there holds nothing
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    if (is_unfinished(entry.path())) found.push_back(entry.path());
  }
  return found;
}

void take_away(const fs::path& entry) {
  std::error_code error;
  fs::remove_all(entry, error);
  if (error) throw FileError(fmt::format("cannot remove an earlier run: {}", error.message()), entry.string());
}

void probe(const fs::path& folder) {
  const fs::path file = folder / kProbe;
  write_file(file, "x");
  fs::remove(file);
}

}  // namespace

RunFolder::RunFolder(fs::path folder, Start start) : folder_(std::move(folder)), start_(start) {
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
  made_ = !exists;
  try {
    probe(folder_);
  } catch (...) {
    discard();
    throw;
  }
}

RunFolder::~RunFolder() {
  discard();
}

void RunFolder::discard() const {
  std::error_code error;  // the reason why there is no run has been told; an empty folder is no second one
  if (made_) fs::remove(folder_, error);
}

void RunFolder::begin() {
  made_ = false;
  if (start_ == Start::kOverwrite) {
    for (const std::string_view entry : kEntries) take_away(folder_ / entry);
  }
  for (const fs::path& place : {folder_, checkpoints()}) {
    for (const fs::path& entry : unfinished_in(place)) take_away(entry);
  }
}

}  // namespace lomu
