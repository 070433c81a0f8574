#include "engine/optimizers/optimizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>

#include "engine/optimizers/adamw.h"
#include "engine/optimizers/fixed_order_sum.h"
#include "engine/optimizers/lora_muon.h"
#include "kernels/error.h"

namespace lomu {
namespace {

std::int64_t slot_size(const StateSlot& slot, std::int64_t m, std::int64_t n, std::int64_t r) {
  return (slot.side == Side::kLeft ? m : n) * r;
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
  require_option(in_unit(o.beta1), "beta1", o.beta1, "at least 0 and less than 1");
  require_option(in_unit(o.beta2), "beta2", o.beta2, "at least 0 and less than 1");
  require_option(std::isfinite(o.eps) && o.eps > 0.0, "eps", o.eps, "positive");
}

}  // namespace

std::vector<double> grad_norm_squared(std::span<const PairView> pairs) {
  std::vector<double> norms(pairs.size());
#pragma omp parallel for schedule(dynamic)
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    const PairView& pair = pairs[i];
    norms[i] = sum_of_squares({pair.grad_left, static_cast<std::size_t>(pair.m * pair.r)}) +
               sum_of_squares({pair.grad_right, static_cast<std::size_t>(pair.n * pair.r)});
  }
  return norms;
}

std::int64_t Optimizer::state_size(std::int64_t m, std::int64_t n, std::int64_t r) const {
  std::int64_t size = 0;
  for (const StateSlot& slot : state_slots()) size += slot_size(slot, m, n, r);
  return size;
}

std::span<float> state_slot(const PairView& pair, std::span<const StateSlot> slots, std::size_t index) {
  std::int64_t offset = 0;
  for (std::size_t i = 0; i < index; ++i) offset += slot_size(slots[i], pair.m, pair.n, pair.r);
  return pair.state.subspan(static_cast<std::size_t>(offset),
                            static_cast<std::size_t>(slot_size(slots[index], pair.m, pair.n, pair.r)));
}

std::unique_ptr<Optimizer> make_optimizer(const OptimizerOptions& options) {
  check_options(options);
  switch (options.name) {
    case OptimizerKind::kLoraMuon: return std::make_unique<LoraMuon>(options);
    case OptimizerKind::kAdamW: return std::make_unique<AdamW>(options);
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
    if (!pair.left || !pair.right || !pair.grad_left || !pair.grad_right) {
      throw UsageError("a factor or gradient of the pair is missing", where);
    }
    const std::int64_t needed = optimizer.state_size(pair.m, pair.n, pair.r);
    if (static_cast<std::int64_t>(pair.state.size()) != needed) {
      throw UsageError(
          fmt::format("the pair has {} floats of optimizer state, {} are needed", pair.state.size(), needed), where,
          "the checkpoint may be from another optimizer");
    }
  }
}

}  // namespace lomu
