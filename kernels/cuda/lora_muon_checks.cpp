#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "kernels/cuda/lora_muon.h"
#include "kernels/error.h"

namespace lomu::cuda {
namespace {

void check_options(const LoraMuonOptions& o) {
  const auto require = [](bool ok, const char* name, double value) {
    if (!ok) throw UsageError(fmt::format("{} = {:g} is out of range", name, value), fmt::format("optimizer.{}", name));
  };
  require(o.momentum >= 0.0 && o.momentum < 1.0, "momentum", o.momentum);
  require(std::isfinite(o.weight_decay) && o.weight_decay >= 0.0, "weight_decay", o.weight_decay);
  require(std::isfinite(o.max_grad_norm) && o.max_grad_norm >= 0.0, "max_grad_norm", o.max_grad_norm);
  if (o.damping) require(std::isfinite(*o.damping) && *o.damping > 0.0, "damping", *o.damping);
}

void check_starts(std::span<const PairDesc> pairs, bool damps) {
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    const PairDesc& p = pairs[i];
    const std::string where = fmt::format("pair {}", i);
    if (p.r > std::min(p.m, p.n)) {
      throw UsageError(fmt::format("rank {} is larger than the smaller side of a {} x {} weight", p.r, p.m, p.n), where,
                       "lora_muon needs rank <= min(in, out): lower the rank, leave the site out, or use adamw");
    }
    if (p.left_started_zero && p.right_started_zero) {
      throw UsageError("both factors start at zero, so both gradients stay zero", where,
                       "start one of them away from zero");
    }
    if (!damps && (p.left_started_zero || p.right_started_zero)) {
      throw UsageError("a factor starts at zero and damping is off", where,
                       "set optimizer.damping (0.1 is a good value), or start from balanced non-zero factors");
    }
  }
}

}  // namespace

void check_lora_muon(std::span<const PairDesc> pairs, const LoraMuonOptions& options) {
  check_options(options);
  check_pairs(pairs, false);
  check_starts(pairs, options.damping.has_value());
}

}  // namespace lomu::cuda
