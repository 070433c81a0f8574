#include "engine/optimizers/optimizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>

#include "engine/optimizers/adamw.h"
#include "engine/optimizers/fixed_order_sum.h"
#include "engine/optimizers/grouped.h"
#include "engine/optimizers/lora_muon.h"
#include "engine/optimizers/lora_plus.h"
#include "engine/optimizers/lora_rite.h"
#include "engine/optimizers/lora_rite_core.h"
#include "engine/optimizers/muon.h"
#include "engine/optimizers/muon_factors.h"
#include "engine/optimizers/scaled_adamw.h"
#include "engine/optimizers/spectral_bound.h"
#include "engine/optimizers/spectron.h"
#include "kernels/error.h"

namespace lomu {
namespace {

std::int64_t slot_size(const StateSlot& slot, const ParameterShape& shape) {
  const auto [rows, columns] = dimensions(slot, shape);
  return rows * columns;
}

void require_option(bool ok, std::string_view key, double value, std::string_view rule) {
  if (ok) return;
  throw UsageError(fmt::format("{} = {:g} is out of range", key, value), fmt::format("optimizer.{}", key),
                   fmt::format("it must be {}", rule));
}

void check_options(const OptimizerOptions& o) {
  const auto in_unit = [](double x) { return x >= 0.0 && x < 1.0; };
  const auto not_negative = [](double x) { return std::isfinite(x) && x >= 0.0; };
  require_option(not_negative(o.lr), "lr", o.lr, "finite and not negative");
  require_option(not_negative(o.weight_decay), "weight_decay", o.weight_decay, "finite and not negative");
  require_option(o.weight_decay * o.lr < 1.0, "weight_decay", o.weight_decay, "less than 1 / lr");
  require_option(not_negative(o.max_grad_norm), "max_grad_norm", o.max_grad_norm, "positive, or 0 for no clipping");
  require_option(in_unit(o.momentum), "momentum", o.momentum, "at least 0 and less than 1");
  require_option(o.balance_every >= 0, "balance_every", static_cast<double>(o.balance_every),
                 "a number of steps, or 0 for never");
  if (o.damping) {
    require_option(std::isfinite(*o.damping) && *o.damping > 0.0, "damping", *o.damping,
                   "positive (a bound on the relative step, 0.05 to 0.2), or off");
  }
  require_option(std::isfinite(o.filter_tau) && o.filter_tau >= 0.0, "filter_tau", o.filter_tau,
                 "a share of the largest singular value, as 0.1");
  require_option(std::isfinite(o.filter_power) && o.filter_power >= 0.0, "filter_power", o.filter_power,
                 "an exponent, as 0.5; 0 is the plain sign");
  if (o.filter != SpectralFilter::kSign && o.orthogonalizer != Orthogonalizer::kExact) {
    throw UsageError("a spectral filter needs the singular values, which newton_schulz does not compute",
                     "optimizer.filter", "use orthogonalizer: exact");
  }
  if (o.name == OptimizerKind::kLoraMuon && o.orthogonalizer == Orthogonalizer::kPolarExpress) {
    throw UsageError("lora_muon has no polar_express: its metric needs an inverse root as well",
                     "optimizer.orthogonalizer", "use exact, or newton_schulz for the paper's recursions");
  }
  if (o.multiplier == StepMultiplier::kRmsOverWidth) {
    require_option(o.hidden_size > 0, "hidden_size", static_cast<double>(o.hidden_size), "that of the model");
  }
  require_option(in_unit(o.beta1), "beta1", o.beta1, "at least 0 and less than 1");
  require_option(in_unit(o.beta2), "beta2", o.beta2, "at least 0 and less than 1");
  require_option(std::isfinite(o.eps) && o.eps > 0.0, "eps", o.eps, "positive");
  require_option(std::isfinite(o.lr_ratio) && o.lr_ratio > 0.0, "lr_ratio", o.lr_ratio, "positive");
  if (o.spectral_bound) {
    require_option(std::isfinite(*o.spectral_bound) && *o.spectral_bound > 0.0, "spectral_bound", *o.spectral_bound,
                   "positive, or off");
  }
  require_option(std::isfinite(o.delta) && o.delta > 0.0, "delta", o.delta, "positive");
}

}  // namespace

std::array<std::int64_t, 2> dimensions(const StateSlot& slot, const ParameterShape& shape) {
  switch (slot.extent) {
    case Extent::kLeft: return {shape.m, shape.r};
    case Extent::kRight: return {shape.dense ? 0 : shape.r, shape.n};
    case Extent::kRankByRank: return {shape.r, shape.r};
    case Extent::kScalar: return {1, 1};
  }
  return {0, 0};
}

std::vector<double> grad_norm_squared(std::span<const PairView> pairs) {
  std::vector<double> norms(pairs.size());
#pragma omp parallel for schedule(dynamic)
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    const PairView& pair = pairs[i];
    norms[i] =
        sum_of_squares({pair.grad_left, pair.left_size()}) + sum_of_squares({pair.grad_right, pair.right_size()});
  }
  return norms;
}

std::int64_t Optimizer::state_size(const ParameterShape& shape) const {
  std::int64_t size = 0;
  for (const StateSlot& slot : state_slots(shape)) size += slot_size(slot, shape);
  return size;
}

std::span<float> state_slot(const PairView& pair, std::span<const StateSlot> slots, std::size_t index) {
  const ParameterShape shape = pair.shape();
  std::int64_t offset = 0;
  for (std::size_t i = 0; i < index; ++i) offset += slot_size(slots[i], shape);
  return pair.state.subspan(static_cast<std::size_t>(offset), static_cast<std::size_t>(slot_size(slots[index], shape)));
}

std::unique_ptr<Optimizer> make_optimizer(const OptimizerOptions& options) {
  check_options(options);
  if (options.spectral_bound) return std::make_unique<Bounded>(options);
  if (!options.groups.empty()) return std::make_unique<Grouped>(options);
  switch (options.name) {
    case OptimizerKind::kLoraMuon: return std::make_unique<LoraMuon>(options);
    case OptimizerKind::kAdamW: return std::make_unique<AdamW>(options);
    case OptimizerKind::kMuonFactors: return std::make_unique<MuonFactors>(options);
    case OptimizerKind::kSpectron: return std::make_unique<Spectron>(options);
    case OptimizerKind::kLoraRite: return std::make_unique<LoraRite>(options);
    case OptimizerKind::kLoraRiteCore: return std::make_unique<LoraRiteCore>(options);
    case OptimizerKind::kScaledAdamW: return std::make_unique<ScaledAdamW>(options);
    case OptimizerKind::kLoraPlus: return std::make_unique<LoraPlus>(options);
    case OptimizerKind::kMuon: return std::make_unique<Muon>(options);
  }
  throw UsageError("unknown optimizer", "optimizer.name");
}

double clip_factor(double max_grad_norm, const StepInfo& info) {
  if (max_grad_norm <= 0.0) return 1.0;
  if (!info.grad_norm) throw Error("gradient clipping needs the global gradient norm, and the step was given none");
  if (!std::isfinite(*info.grad_norm)) {
    throw NumericError("the norm of the gradient is not finite", fmt::format("step {}", info.step),
                       "lower the learning rate or look at the batch of this step");
  }
  return std::min(1.0, max_grad_norm / (*info.grad_norm + 1e-6));
}

void check_learning_rate(const StepInfo& info, double weight_decay) {
  if (std::isfinite(info.lr) && info.lr >= 0.0 && weight_decay * info.lr < 1.0) return;
  throw UsageError(fmt::format("learning rate {:g} with weight decay {:g} is out of range", info.lr, weight_decay),
                   fmt::format("step {}", info.step), "neither may be negative, and their product must be less than 1");
}

void check_pairs(std::span<const PairView> pairs, const Optimizer& optimizer) {
  for (const PairView& pair : pairs) {
    const std::string where(pair.name);
    if (pair.m < 1 || pair.n < 1 || pair.r < 1) {
      throw UsageError(fmt::format("a pair of {} x {} with rank {} has no entries", pair.m, pair.n, pair.r), where);
    }
    if (!std::isfinite(pair.scale) || pair.scale <= 0.0) {
      throw UsageError(fmt::format("scale {:g} is not a positive number", pair.scale), where, "alpha must be positive");
    }
    if (!pair.left || !pair.grad_left || (pair.right == nullptr) != (pair.grad_right == nullptr)) {
      throw UsageError("a factor or gradient of the pair is missing", where);
    }
    if (pair.dense() && (pair.r != pair.n || pair.scale != 1.0)) {
      throw UsageError(
          fmt::format("a dense {} x {} matrix was given rank {} and scale {:g}", pair.m, pair.n, pair.r, pair.scale),
          where, "it has rank = columns and scale = 1");
    }
    const std::int64_t needed = optimizer.state_size(pair.shape());
    if (static_cast<std::int64_t>(pair.state.size()) != needed) {
      throw UsageError(
          fmt::format("the pair has {} floats of optimizer state, {} are needed", pair.state.size(), needed), where,
          "the checkpoint may be from another optimizer");
    }
  }
}

double relative_step(double step_norm_squared, double factor_norm_squared) {
  return factor_norm_squared > 0.0 ? std::sqrt(step_norm_squared / factor_norm_squared) : 0.0;
}

void refuse_dense(std::span<const PairView> pairs, std::string_view optimizer) {
  for (const PairView& pair : pairs) {
    if (!pair.dense()) continue;
    const std::string_view what = pair.m == 1 ? "vector" : "matrix";
    throw UsageError(fmt::format("{} trains pairs of factors, and this is a dense {}", optimizer, what),
                     std::string(pair.name),
                     fmt::format("send it to {} with optimizer.groups", pair.m == 1 ? "adamw" : "adamw or muon"));
  }
}

}  // namespace lomu
