#include <fmt/format.h>

#include <cmath>

#include "kernels/cuda/adamw.h"
#include "kernels/error.h"

namespace lomu::cuda {

void check_adamw(std::span<const PairDesc> pairs, const AdamwOptions& o) {
  const auto require = [](bool ok, const char* name, double value) {
    if (!ok) throw UsageError(fmt::format("{} = {:g} is out of range", name, value), fmt::format("optimizer.{}", name));
  };
  require(o.beta1 >= 0.0 && o.beta1 < 1.0, "beta1", o.beta1);
  require(o.beta2 >= 0.0 && o.beta2 < 1.0, "beta2", o.beta2);
  require(std::isfinite(o.eps) && o.eps > 0.0, "eps", o.eps);
  require(std::isfinite(o.weight_decay) && o.weight_decay >= 0.0, "weight_decay", o.weight_decay);
  require(std::isfinite(o.max_grad_norm) && o.max_grad_norm >= 0.0, "max_grad_norm", o.max_grad_norm);
  check_pairs(pairs, true);
}

AdamwStep adamw_step(const AdamwOptions& options, double lr, std::int64_t t) {
  if (t < 1) throw UsageError(fmt::format("step {} is before the first", t), "adamw");
  const auto exponent = static_cast<double>(t);
  return {lr, 1.0 - std::pow(options.beta1, exponent), std::sqrt(1.0 - std::pow(options.beta2, exponent))};
}

}  // namespace lomu::cuda
