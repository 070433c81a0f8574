#include "engine/study/study_file.h"

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <array>
#include <set>
#include <sstream>
#include <string_view>

#include "engine/config/config_file.h"
#include "engine/config/nearest.h"
#include "kernels/error.h"

namespace lomu {
namespace {

constexpr std::string_view kSection = "study:";
const std::vector<std::string> kKeys = {"claim",  "question", "metric",   "x",    "lines",
                                        "repeat", "axes",     "variants", "quick"};
const std::vector<std::string> kQuestions = {"transfer", "invariance", "spectra"};
const std::vector<std::string> kMetrics = {"validation_loss", "training_loss"};

/// The text in two, each with empty lines where the other has its own: line numbers stay what they are.
struct Parts {
  std::string study;
  std::string job;
};

Parts split(const std::string& text) {
  Parts parts;
  bool inside = false;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) {
    const bool starts_key = !line.empty() && line.front() != ' ' && line.front() != '#' && line.front() != '\t';
    if (starts_key) inside = line.starts_with(kSection);
    (inside ? parts.study : parts.job) += line;
    parts.study += '\n';
    parts.job += '\n';
  }
  return parts;
}

StudyQuestion question_of(const std::string& word) {
  if (word == "invariance") return StudyQuestion::kInvariance;
  return word == "spectra" ? StudyQuestion::kSpectra : StudyQuestion::kTransfer;
}

class Reader {
 public:
  Reader(std::string file, bool quick) : file_(std::move(file)), quick_(quick) {}

  void read(const YAML::Node& root, Study& study) {
    const YAML::Node section = root["study"];
    if (!section || !section.IsMap()) {
      throw UsageError("the file has no section `study`", file_, "see docs/studies.md, or a file of configs/studies/");
    }
    for (const auto& item : section) known(item.first, kKeys, "study");
    study.claim = text(section, "claim", "");
    study.question = question_of(choice(section, "question", kQuestions));
    study.metric = choice(section, "metric", kMetrics);
    study.axes = axes_of(section["axes"], "study.axes");
    study.variants = variants_of(section["variants"]);
    if (quick_) make_quick(section["quick"], study);
    study.lines = text(section, "lines", "");
    study.repeat = text(section, "repeat", "");
    study.x = text(section, "x", "");
    if (study.x.empty()) fail(section, "study.x", "`study.x` is missing", "the key of the axis that plots go along");
    for (const auto& [key, what] : {std::pair{study.x, "x"}, {study.lines, "lines"}, {study.repeat, "repeat"}}) {
      if (!key.empty()) axis_must_exist(section, study, key, fmt::format("study.{}", what));
    }
  }

 private:
  [[noreturn]] void fail(const YAML::Node& node, std::string_view path, std::string what, std::string hint) const {
    const YAML::Mark mark = node.Mark();
    throw UsageError(
        std::move(what),
        mark.is_null() ? fmt::format("{} ({})", file_, path) : fmt::format("{}:{} ({})", file_, mark.line + 1, path),
        std::move(hint));
  }

  void known(const YAML::Node& key, const std::vector<std::string>& keys, std::string_view section) const {
    const std::string name = key.IsScalar() ? key.Scalar() : "";
    if (std::find(keys.begin(), keys.end(), name) != keys.end()) return;
    const auto close = nearest(name, keys);
    fail(key, fmt::format("{}.{}", section, name), fmt::format("unknown key `{}.{}`", section, name),
         close ? fmt::format("did you mean `{}.{}`?", section, *close)
               : fmt::format("its keys are {}", fmt::join(keys, ", ")));
  }

  std::string text(const YAML::Node& section, const char* key, const std::string& otherwise) const {
    const YAML::Node node = section[key];
    if (!node) return otherwise;
    if (!node.IsScalar()) fail(node, fmt::format("study.{}", key), "a word or text is expected here", "");
    return node.Scalar();
  }

  std::string choice(const YAML::Node& section, const char* key, const std::vector<std::string>& words) const {
    const std::string word = text(section, key, words.front());
    if (std::find(words.begin(), words.end(), word) != words.end()) return word;
    fail(section[key], fmt::format("study.{}", key), fmt::format("`{}` is none of its values", word),
         fmt::format("allowed: {}", fmt::join(words, ", ")));
  }

  std::string scalar(const YAML::Node& node, std::string_view path) const {
    if (!node.IsScalar()) fail(node, path, "a single value is expected here", "for example 0.03");
    return node.Scalar();
  }

  StudyAxis axis(const YAML::Node& key, const YAML::Node& value, std::string_view section) const {
    StudyAxis axis{key.Scalar(), {}};
    const std::string path = fmt::format("{}.{}", section, axis.key);
    if (!value.IsSequence() || value.size() == 0) {
      fail(value, path, "a list of values is expected here", "for example [0.01, 0.03, 0.1]");
    }
    for (const YAML::Node& item : value) axis.values.push_back(scalar(item, path));
    const std::set<std::string> different(axis.values.begin(), axis.values.end());
    if (different.size() != axis.values.size()) fail(value, path, "a value is given twice", "remove one of them");
    return axis;
  }

  std::vector<StudyAxis> axes_of(const YAML::Node& node, std::string_view section) const {
    std::vector<StudyAxis> axes;
    if (!node || !node.IsMap() || node.size() == 0) {
      fail(node, section, "the study has no axes", "write `study.axes:` with keys of the job and lists of values");
    }
    for (const auto& item : node) axes.push_back(axis(item.first, item.second, section));
    return axes;
  }

  std::vector<StudyVariant> variants_of(const YAML::Node& node) const {
    if (!node) return {StudyVariant{"run", {}, {}}};
    if (!node.IsMap())
      fail(node, "study.variants", "a group of names is expected here", "a name, and settings below it");
    std::vector<StudyVariant> variants;
    for (const auto& item : node) {
      StudyVariant variant{item.first.Scalar(), {}, {}};
      const std::string path = fmt::format("study.variants.{}", variant.name);
      const bool plain = std::all_of(variant.name.begin(), variant.name.end(),
                                     [](unsigned char c) { return std::isalnum(c) != 0 || c == '_' || c == '-'; });
      if (!plain || variant.name.empty()) {
        fail(item.first, path, "a name of letters, digits, _ and - is expected here", "it names folders and curves");
      }
      if (!item.second.IsMap() && !item.second.IsNull()) fail(item.second, path, "settings are expected here", "");
      for (const auto& setting : item.second) {
        if (setting.second.IsSequence()) {
          variant.axes.push_back(axis(setting.first, setting.second, path));
        } else {
          variant.settings.emplace_back(setting.first.Scalar(), scalar(setting.second, path));
        }
      }
      variants.push_back(std::move(variant));
    }
    return variants;
  }

  /// Lists replace those of axes wherever they stand, single values are settings of every variant; a list for
  /// `variants` keeps the variants that it names.
  void make_quick(const YAML::Node& node, Study& study) const {
    if (!node || !node.IsMap()) {
      throw UsageError("the study has no quick form", fmt::format("{} (study.quick)", file_), "run it without --quick");
    }
    for (const auto& item : node) {
      const std::string key = item.first.Scalar();
      if (key == "variants") {
        std::vector<StudyVariant> kept;
        for (const YAML::Node& name : item.second) {
          const auto found = std::find_if(study.variants.begin(), study.variants.end(),
                                          [&](const StudyVariant& v) { return v.name == name.Scalar(); });
          if (found == study.variants.end()) fail(name, "study.quick.variants", "there is no such variant", "");
          kept.push_back(*found);
        }
        study.variants = std::move(kept);
      } else if (item.second.IsSequence()) {
        const StudyAxis quick = axis(item.first, item.second, "study.quick");
        for (StudyAxis& axis : study.axes) {
          if (axis.key == key) axis = quick;
        }
        for (StudyVariant& variant : study.variants) {
          std::erase_if(variant.axes, [&](const StudyAxis& axis) { return axis.key == key; });
        }
      } else {
        for (StudyVariant& variant : study.variants) {
          variant.settings.emplace_back(key, scalar(item.second, "study.quick"));
        }
      }
    }
  }

  void axis_must_exist(const YAML::Node& node, const Study& study, const std::string& key,
                       std::string_view path) const {
    const bool found =
        std::any_of(study.axes.begin(), study.axes.end(), [&](const StudyAxis& a) { return a.key == key; });
    if (found) return;
    std::vector<std::string> keys;
    for (const StudyAxis& axis : study.axes) keys.push_back(axis.key);
    fail(node, path, fmt::format("`{}` is no axis of the study", key),
         fmt::format("its axes are {}", fmt::join(keys, ", ")));
  }

  std::string file_;
  bool quick_;
};

}  // namespace

std::string short_name(const std::string& key) {
  return key.substr(key.rfind('.') + 1);
}

Study read_study(const std::filesystem::path& file, bool quick) {
  const Parts parts = split(config::read_config_file(file));
  Study study;
  study.file = file;
  study.job = parts.job;
  try {
    Reader(file.string(), quick).read(YAML::Load(parts.study), study);
  } catch (const YAML::Exception& error) {
    throw UsageError(fmt::format("not valid YAML: {}", error.msg),
                     fmt::format("{}:{}", file.string(), error.mark.line + 1), "look at the section `study`");
  }
  return study;
}

}  // namespace lomu
