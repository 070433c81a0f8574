#include "engine/config/checks.h"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>

namespace lomu::config {
namespace {

using Broken = std::optional<BadValue>;

Broken record_fits_micro_batch(const TrainConfig& c) {
  if (c.data.max_length <= c.training.micro_batch_tokens) return {};
  return BadValue(fmt::format("a record of up to {} tokens does not fit into a micro-batch of {}", c.data.max_length,
                              c.training.micro_batch_tokens),
                  "raise training.micro_batch_tokens or lower data.max_length");
}

Broken warmup_ends(const TrainConfig& c) {
  const auto& [steps, warmup] = std::tie(c.training.steps, c.training.schedule.warmup_steps);
  if (!steps || !warmup || *warmup <= *steps) return {};
  return BadValue(fmt::format("the warm-up of {} steps is longer than the run of {}", *warmup, *steps),
                  fmt::format("at most {}", *steps));
}

Broken schedule_fits(const TrainConfig& c) {
  const ScheduleConfig& s = c.training.schedule;
  if (s.name != ScheduleName::kWsd) return {};
  double warmup = s.warmup_ratio.value_or(0);
  if (s.warmup_steps && c.training.steps) {
    warmup = static_cast<double>(*s.warmup_steps) / static_cast<double>(*c.training.steps);
  }
  if (warmup + s.decay_ratio <= 1 + 1e-12) return {};
  return BadValue(fmt::format("warm-up and decay take more than the whole run ({} + {} > 1)", warmup, s.decay_ratio),
                  "lower one of them");
}

Broken decay_keeps_sign(const TrainConfig& c) {
  const OptimizerConfig& o = c.optimizer;
  const double fastest = o.name == OptimizerName::kLoraPlus ? std::max(1.0, o.lr_ratio) : 1.0;
  if (o.weight_decay * o.lr * fastest < 1) return {};
  return BadValue(
      fmt::format("weight_decay x lr = {} shrinks the factors to nothing in one step", o.weight_decay * o.lr * fastest),
      "their product must be below 1");
}

Broken filter_has_singular_values(const TrainConfig& c) {
  const OptimizerConfig& o = c.optimizer;
  if (o.filter == SpectralFilter::kSign || o.orthogonalizer == Orthogonalizer::kExact) return {};
  return BadValue("a spectral filter needs the singular values, which only the exact orthogonalizer computes",
                  "remove optimizer.orthogonalizer, or optimizer.filter");
}

Broken orthogonalizer_knows_metrics(const TrainConfig& c) {
  const OptimizerConfig& o = c.optimizer;
  if (o.name != OptimizerName::kLoraMuon || o.orthogonalizer != Orthogonalizer::kPolarExpress) return {};
  return BadValue("lora_muon has no polar_express: its metric needs an inverse root as well",
                  "use exact, or newton_schulz for the paper's recursions");
}

Broken zero_start_is_damped(const TrainConfig& c) {
  const OptimizerName name = c.optimizer.name;
  const bool uses_metric =
      name == OptimizerName::kLoraMuon || name == OptimizerName::kLoraRite || name == OptimizerName::kLoraRiteCore;
  const bool undamped = uses_metric && !c.optimizer.damping;
  if (!undamped || c.adapter.init != AdapterInit::kZero || !c.adapter.from.empty()) return {};
  return BadValue(
      "without damping this optimizer cannot start from a zero factor: the second step would throw the other factor "
      "away",
      "remove optimizer.damping: off, or set adapter.init: balanced");
}

Broken ranks_have_work(const TrainConfig& c) {
  if (c.runtime.ranks_in_process <= c.training.micro_batches) return {};
  return BadValue(fmt::format("{} ranks for {} micro-batches: some would have nothing to do",
                              c.runtime.ranks_in_process, c.training.micro_batches),
                  "raise training.micro_batches or lower runtime.ranks_in_process");
}

Broken backend_runs_there(const TrainConfig& c) {
  if (c.runtime.device != DeviceName::kCuda || c.runtime.backend == BackendName::kAuto) return {};
  return BadValue("this backend runs on the CPU, and runtime.device is cuda", "remove runtime.backend");
}

Broken output_spares_model(const TrainConfig& c) {
  if (c.output.dir.lexically_normal() != c.model.path.lexically_normal()) return {};
  return BadValue("the output folder is the model itself", "choose another folder");
}

}  // namespace

const std::vector<Rule>& rules() {
  static const std::vector<Rule> all = {
      {{"data.max_length", "training.micro_batch_tokens"}, record_fits_micro_batch},
      {{"training.schedule.warmup_steps", "training.steps"}, warmup_ends},
      {{"training.schedule.decay_ratio", "training.schedule.warmup_ratio", "training.schedule.warmup_steps",
        "training.steps", "training.schedule.name"},
       schedule_fits},
      {{"optimizer.weight_decay", "optimizer.lr", "optimizer.lr_ratio", "optimizer.name"}, decay_keeps_sign},
      {{"optimizer.filter", "optimizer.orthogonalizer", "optimizer.name"}, filter_has_singular_values},
      {{"optimizer.orthogonalizer", "optimizer.name"}, orthogonalizer_knows_metrics},
      {{"optimizer.damping", "adapter.init", "optimizer.name", "adapter.from"}, zero_start_is_damped},
      {{"runtime.ranks_in_process", "training.micro_batches"}, ranks_have_work},
      {{"runtime.backend", "runtime.device"}, backend_runs_there},
      {{"output.dir", "model.path"}, output_spares_model},
  };
  return all;
}

}  // namespace lomu::config
