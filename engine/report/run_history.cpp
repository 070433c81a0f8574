#include "engine/report/run_history.h"

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <charconv>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <system_error>

#include "kernels/error.h"

namespace lomu {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

void flatten(const YAML::Node& node, const std::string& key, std::map<std::string, std::string>& out) {
  if (node.IsMap()) {
    for (const auto& entry : node) {
      const auto name = entry.first.as<std::string>();
      flatten(entry.second, key.empty() ? name : key + "." + name, out);
    }
  } else if (node.IsScalar()) {
    out[key] = node.Scalar();
  } else {
    YAML::Emitter text;
    text << YAML::Flow << node;
    out[key] = text.c_str();
  }
}

std::map<std::string, std::string> read_config(const fs::path& file) {
  std::map<std::string, std::string> config;
  try {
    flatten(YAML::LoadFile(file.string()), "", config);
  } catch (const YAML::Exception& error) {
    throw FormatError(error.what(), file.string());
  }
  return config;
}

Numbers numbers_of(const json& object) {
  Numbers numbers;
  for (const auto& [key, value] : object.items()) {
    if (value.is_number()) numbers[key] = value.get<double>();
  }
  return numbers;
}

/// Nothing for what is no step.
std::optional<HistoryStep> step_of(const json& object) {
  if (!object.is_object() || !object.contains("step") || !object["step"].is_number_integer()) return std::nullopt;
  HistoryStep step{object["step"].get<std::int64_t>(), numbers_of(object), {}};
  const auto pairs = object.find("pairs");
  if (pairs == object.end()) return step;
  if (!pairs->is_array()) return std::nullopt;
  for (const json& pair : *pairs) {
    if (!pair.is_object() || !pair.contains("name") || !pair["name"].is_string()) return std::nullopt;
    step.pairs.push_back({pair["name"].get<std::string>(), numbers_of(pair)});
  }
  return step;
}

std::vector<HistoryStep> read_steps(const fs::path& file) {
  std::ifstream in(file);
  if (!in) throw FileError("cannot read the metrics", file.string());
  std::vector<HistoryStep> steps;
  std::size_t number = 0;
  for (std::string line; std::getline(in, line);) {
    ++number;
    std::optional<HistoryStep> step = step_of(json::parse(line, nullptr, false));
    if (!step && in.eof()) break;  // cut
    if (!step) throw FormatError("this line is no step of a run", fmt::format("{}:{}", file.string(), number));
    steps.push_back(std::move(*step));
  }
  return steps;
}

std::map<std::string, std::string> read_summary(const fs::path& file) {
  std::map<std::string, std::string> summary;
  std::ifstream in(file);
  if (!in) return summary;
  const json object = json::parse(in, nullptr, false);
  if (!object.is_object()) throw FormatError("not a JSON object", file.string());
  for (const auto& [key, value] : object.items()) {
    summary[key] = value.is_string() ? value.get<std::string>() : value.dump();
  }
  return summary;
}

}  // namespace

std::optional<int> layer_of(std::string_view name) {
  constexpr std::string_view kBefore = "layers.";
  const std::size_t at = name.find(kBefore);
  if (at == std::string_view::npos) return std::nullopt;
  const std::string_view rest = name.substr(at + kBefore.size());
  int layer = 0;
  const auto read = std::from_chars(rest.data(), rest.data() + rest.size(), layer);
  return read.ec == std::errc() ? std::optional(layer) : std::nullopt;
}

RunHistory read_run(const fs::path& folder) {
  std::error_code error;
  if (!fs::is_directory(folder, error)) {
    throw UsageError("there is no such run folder", folder.string(), "give the output.dir of a run");
  }
  for (const char* name : {"config.yaml", "metrics.jsonl"}) {
    if (fs::is_regular_file(folder / name, error)) continue;
    throw UsageError(fmt::format("the folder holds no run: it has no {}", name), folder.string(),
                     "give the output.dir of a run");
  }
  RunHistory run{folder, read_config(folder / "config.yaml"), read_steps(folder / "metrics.jsonl"),
                 read_summary(folder / "summary.json")};
  if (run.steps.empty()) throw UsageError("the run has not done a step yet", folder.string(), "try again later");
  return run;
}

}  // namespace lomu
