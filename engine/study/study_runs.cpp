#include "engine/study/study_runs.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/config/load.h"
#include "engine/config/resolved.h"

namespace lomu {
namespace {

/// Settings of which a later one takes the place of an earlier one of the same key.
class Settings {
 public:
  void set(const std::string& key, const std::string& value) { values_[key] = value; }
  void set(const std::string& setting) {
    const std::size_t equals = setting.find('=');
    if (equals == std::string::npos) {
      others_.push_back(setting);  // it is refused by its name where it is read
    } else {
      set(setting.substr(0, equals), setting.substr(equals + 1));
    }
  }
  [[nodiscard]] std::vector<std::string> as_overrides() const {
    std::vector<std::string> all = others_;
    for (const auto& [key, value] : values_) all.push_back(fmt::format("{}={}", key, value));
    return all;
  }

 private:
  std::map<std::string, std::string> values_;
  std::vector<std::string> others_;
};

/// A value as part of a file's name.
std::string as_name(std::string value) {
  std::replace_if(
      value.begin(), value.end(),
      [](unsigned char c) { return std::isalnum(c) == 0 && c != '.' && c != '-' && c != '_'; }, '_');
  return value;
}

std::vector<StudyAxis> axes_of(const Study& study, const StudyVariant& variant) {
  std::vector<StudyAxis> axes = study.axes;
  for (const StudyAxis& own : variant.axes) {
    const auto found =
        std::find_if(axes.begin(), axes.end(), [&](const StudyAxis& axis) { return axis.key == own.key; });
    if (found == axes.end()) {
      axes.push_back(own);
    } else {
      *found = own;
    }
  }
  return axes;
}

}  // namespace

std::vector<StudyRun> runs_of(const Study& study, const std::filesystem::path& out,
                              std::span<const std::string> settings) {
  std::vector<StudyRun> runs;
  for (const StudyVariant& variant : study.variants) {
    const std::vector<StudyAxis> axes = axes_of(study, variant);
    std::size_t count = 1;
    for (const StudyAxis& axis : axes) count *= axis.values.size();
    for (std::size_t i = 0; i < count; ++i) {
      StudyRun run;
      run.variant = variant.name;
      run.id = variant.name;
      Settings chosen;
      for (const auto& [key, value] : variant.settings) chosen.set(key, value);
      std::size_t rest = i;
      std::size_t block = count;
      for (const StudyAxis& axis : axes) {
        block /= axis.values.size();
        const std::string& value = axis.values[rest / block];
        rest %= block;
        run.at[axis.key] = value;
        run.id += fmt::format(",{}={}", short_name(axis.key), as_name(value));
        chosen.set(axis.key, value);
      }
      run.folder = out / "runs" / run.id;
      for (const std::string& setting : settings) chosen.set(setting);
      chosen.set("training.save_every", "0");
      chosen.set("output.dir", run.folder.string());
      chosen.set("output.overwrite", "true");
      try {
        run.config = config::resolved_yaml(config::parse_config(study.job, study.file.string(), chosen.as_overrides()));
      } catch (const config::ConfigError& error) {
        std::vector<config::Problem> problems = error.problems();
        for (config::Problem& problem : problems) problem.where += fmt::format(", run {}", run.id);
        throw config::ConfigError(std::move(problems));
      }
      runs.push_back(std::move(run));
    }
  }
  return runs;
}

}  // namespace lomu
