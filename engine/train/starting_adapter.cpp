#include "engine/train/starting_adapter.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "engine/session/adapter_source.h"
#include "engine/train/job_options.h"
#include "kernels/error.h"

namespace lomu {
namespace {

// Configurations keep alpha as decimal text: equal up to what printing may lose.
bool same(double a, double b) {
  return std::abs(a - b) <= 1e-9 * std::max(std::abs(a), std::abs(b));
}

/// What the adapter is where the job says otherwise, as "KEY: the adapter has ..., the job ..."; empty if they agree.
std::string difference(const std::vector<PairInfo>& found, const std::vector<PairInfo>& wanted) {
  const auto has = [](const std::vector<PairInfo>& pairs, const PairInfo& p) {
    return std::any_of(pairs.begin(), pairs.end(), [&](const PairInfo& other) { return other.name == p.name; });
  };
  for (const PairInfo& p : found) {
    if (!has(wanted, p)) return fmt::format("it has a pair at {}, the job has none there", p.name);
  }
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    const PairInfo& job = wanted[i];
    if (!has(found, job)) return fmt::format("the job has a pair at {}, it has none there", job.name);
    const PairInfo& it = found[i];  // both are in the same order
    if (it.rank != job.rank) return fmt::format("its rank at {} is {}, the job's {}", job.name, it.rank, job.rank);
    if (!same(it.alpha, job.alpha)) {
      return fmt::format("its alpha at {} is {}, the job's {}", job.name, it.alpha, job.alpha);
    }
    if (!same(it.scale, job.scale)) {
      return fmt::format("its scale at {} is {}, the job's {} (rslora)", job.name, it.scale, job.scale);
    }
  }
  return {};
}

}  // namespace

AdapterSet starting_adapter(const config::TrainConfig& config, const ModelSession& session) {
  const ModelConfig& model = session.config();
  const DType gradient = session.ops().precision().gradient;
  const AdapterOptions options = adapter_options(config, model);
  if (config.adapter.from.empty()) return {model, options, session.files(), gradient, session.host_memory()};

  AdapterFile earlier = load_adapter(config.adapter.from, model);
  const std::string differs = difference(plan_pairs(model, earlier), plan_pairs(model, options));
  if (!differs.empty()) {
    throw UsageError(fmt::format("the adapter to go on from is not the job's: {}", differs),
                     fmt::format("adapter.from, {}", config.adapter.from.string()),
                     "give adapter.rank, alpha, rslora, targets and layers as they are there");
  }
  earlier.dropout = options.dropout;
  return {model, earlier, gradient, session.host_memory()};
}

}  // namespace lomu
