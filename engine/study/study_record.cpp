#include "engine/study/study_record.h"

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "kernels/error.h"
#include "models/files/atomic_file.h"

namespace lomu {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

fs::path beside(const StudyRun& run, const char* suffix) {
  return run.folder.parent_path() / (run.id + suffix);
}

std::string content_of(const fs::path& file) {
  std::ifstream in(file);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

double mean_of_last_tenth(std::span<const HistoryStep> steps) {
  const std::size_t count = std::max<std::size_t>(1, steps.size() / 10);
  double sum = 0;
  for (const HistoryStep& step : steps.last(count)) sum += step.numbers.at("loss");
  return sum / static_cast<double>(count);
}

/// The error message at the end of a log.
std::string failure_in(const fs::path& log) {
  std::istringstream in(content_of(log));
  std::string failure;
  for (std::string line; std::getline(in, line);) {
    if (line.find("error:") != std::string::npos) failure = line;
  }
  return failure.empty() ? fmt::format("it ended without a word: see {}", log.string()) : failure;
}

/// A resolved configuration without what it says about its keys, which may change from one version to the next. Empty
/// for what is none.
std::string values_in(const std::string& config) {
  try {
    YAML::Emitter values;
    values << YAML::Load(config);
    return values.c_str();
  } catch (const YAML::Exception&) {
    return "";
  }
}

StudyRecord empty_record(const StudyRun& run) {
  StudyRecord record;
  record.id = run.id;
  record.variant = run.variant;
  record.at = run.at;
  return record;
}

/// Throws Error for what a finished run cannot have left.
void take_result(const StudyRun& run, StudyRecord& record) {
  const RunHistory history = read_run(run.folder);
  const fs::path file = run.folder / "summary.json";
  const auto summary = Json::parse(content_of(file), nullptr, false);
  if (!summary.is_object()) throw FormatError("not a JSON object", file.string());
  if (summary.contains("validation_after")) record.validation_loss = summary["validation_after"].get<double>();
  record.training_loss = mean_of_last_tenth(history.steps);
  record.telemetry = layer_figures_of(history);
  record.seconds = summary.value("seconds", 0.0);
  record.tokens_per_second = summary.value("tokens_per_second", 0.0);
  record.tokens = summary.value("tokens", std::uint64_t{0});
}

Json object_of(const StudyRecord& r) {
  Json object = {{"run", r.id}, {"variant", r.variant}, {"at", r.at}};
  if (r.validation_loss) object["validation_loss"] = *r.validation_loss;
  if (r.failure.empty()) {
    object["training_loss"] = r.training_loss;
    object["tokens"] = r.tokens;
    object["tokens_per_second"] = r.tokens_per_second;
    if (!r.telemetry.empty()) object["telemetry"] = Json::parse(to_json(r.telemetry));
  } else {
    object["failure"] = r.failure;
    object["diverged"] = r.diverged;
  }
  object["seconds"] = r.seconds;
  return object;
}

}  // namespace

std::string StudyRecord::place(const std::string& key) const {
  const auto found = at.find(key);
  return found == at.end() ? std::string() : found->second;
}

std::optional<double> StudyRecord::value(const std::string& metric) const {
  if (!failure.empty()) return std::nullopt;
  return metric == "validation_loss" ? validation_loss : std::optional(training_loss);
}

fs::path log_of(const StudyRun& run) {
  return beside(run, ".log");
}

fs::path config_of(const StudyRun& run) {
  return beside(run, ".yaml");
}

std::optional<StudyRecord> read_record(const StudyRun& run) {
  const auto object = Json::parse(content_of(beside(run, ".json")), nullptr, false);
  if (!object.is_object() || values_in(content_of(config_of(run))) != values_in(run.config)) return std::nullopt;
  try {
    StudyRecord record = empty_record(run);
    record.failure = object.value("failure", "");
    record.diverged = object.value("diverged", false);
    // A run that failed for another reason than its numbers gets another try.
    if (!record.failure.empty() && !record.diverged) return std::nullopt;
    if (object.contains("validation_loss")) record.validation_loss = object["validation_loss"].get<double>();
    record.training_loss = object.value("training_loss", 0.0);
    record.seconds = object.at("seconds").get<double>();
    record.tokens_per_second = object.value("tokens_per_second", 0.0);
    record.tokens = object.value("tokens", std::uint64_t{0});
    if (object.contains("telemetry")) {
      auto telemetry = layer_figures_from(object["telemetry"].dump());
      if (!telemetry) return std::nullopt;
      record.telemetry = std::move(*telemetry);
    }
    return record;
  } catch (const nlohmann::json::exception&) {
    return std::nullopt;
  }
}

StudyRecord finish_record(const StudyRun& run, int exit_code) {
  StudyRecord record = empty_record(run);
  if (exit_code == 0) {
    try {
      take_result(run, record);
    } catch (const Error& error) {
      record.failure = fmt::format("{} ({})", error.what(), error.where());
    }
  } else {
    record.failure = failure_in(log_of(run));
    record.diverged = exit_code == static_cast<int>(Exit::kDiverged);
  }
  write_file(beside(run, ".json"), to_json(record) + "\n");
  std::error_code ignored;  // what stays is in nobody's way
  fs::remove_all(run.folder, ignored);
  return record;
}

std::string progress_of(const StudyRun& run) {
  std::istringstream in(content_of(log_of(run)));
  std::string last;
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with("step ") && line.find("loss ") != std::string::npos) last = line;
  }
  return last.empty() ? "starting" : last.substr(0, last.find(' ', last.find("loss ") + 5));
}

std::string to_json(const StudyRecord& record) {
  return object_of(record).dump();
}

}  // namespace lomu
