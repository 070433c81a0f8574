#include "engine/train/metrics.h"

#include <fmt/format.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string>

#include "kernels/error.h"
#include "models/files/atomic_file.h"

namespace lomu {
namespace {

struct Kept {
  std::string lines;
  std::optional<MetricsFile::Losses> losses;
};

/// The lines of steps up to `last_step`.
Kept kept_of(const std::filesystem::path& path, std::int64_t last_step) {
  Kept kept;
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) {
    const auto object = nlohmann::json::parse(line, nullptr, false);
    if (!object.is_object() || !object.contains("step") || !object["step"].is_number_integer()) break;
    if (object["step"].get<std::int64_t>() > last_step) break;
    kept.lines += line + "\n";
    if (!object.contains("loss") || !object["loss"].is_number()) continue;
    const auto loss = object["loss"].get<double>();
    kept.losses = {kept.losses ? kept.losses->first : loss, loss};
  }
  return kept;
}

/// Without the figures that do not apply.
nlohmann::ordered_json json_of(const NamedFigures& pair) {
  nlohmann::ordered_json object = {{"name", pair.name}};
  const auto values = pair.figures.values();
  for (std::size_t i = 0; i < kFigures; ++i) {
    if (std::isfinite(values[i])) object[std::string(name_of(static_cast<Figure>(i)))] = values[i];
  }
  return object;
}

}  // namespace

MetricsFile::MetricsFile(const std::filesystem::path& path, std::int64_t last_step) : path_(path) {
  const Kept kept = kept_of(path, last_step);
  write_file(path, kept.lines);
  earlier_ = kept.losses;
  out_.open(path, std::ios::app);
  if (!out_) throw FileError(fmt::format("cannot write: {}", std::strerror(errno)), path.string());
}

void MetricsFile::append(const StepMetrics& m) {
  nlohmann::ordered_json object = {{"step", m.step},
                                   {"epoch", m.epoch},
                                   {"loss", m.loss},
                                   {"lr", m.lr},
                                   {"tokens", m.tokens},
                                   {"supervised", m.supervised},
                                   {"tokens_per_second", m.tokens_per_second},
                                   {"seconds", m.seconds},
                                   {"optimizer_seconds", m.optimizer_seconds},
                                   {"grad_norm", m.grad_norm},
                                   {"update_norm", m.update_norm},
                                   {"max_relative_step", m.max_relative_step},
                                   {"cholesky_raises", m.cholesky_raises}};
  if (m.validation_loss) object["validation_loss"] = *m.validation_loss;
  for (const NamedFigures& pair : m.pairs) object["pairs"].push_back(json_of(pair));
  out_ << object.dump() << '\n' << std::flush;
  if (!out_) {
    throw FileError("cannot write the metrics: is the disk full?", path_.string(),
                    "free some space; --resume goes on from the last checkpoint");
  }
}

}  // namespace lomu
