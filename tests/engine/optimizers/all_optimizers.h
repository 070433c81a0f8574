// Every optimizer with its name, for the tests of what they have in common.
#pragma once

#include <array>
#include <ostream>
#include <string>

#include "engine/optimizers/optimizer.h"
#include "tests/engine/optimizers/test_pairs.h"

namespace lomu::testing {

struct NamedOptimizer {
  std::string name;
  OptimizerKind kind;
  bool dense_alone = false;  ///< trains matrices and no pairs

  /// Options with something in every term of the step.
  [[nodiscard]] OptimizerOptions options() const {
    OptimizerOptions o;
    o.name = kind;
    o.lr = 0.01;
    o.weight_decay = 0.05;
    o.balance_every = 2;
    o.max_grad_norm = 0.5;
    return o;
  }

  /// A pair of this shape, or where it trains no pairs a matrix.
  OwnedPair parameter(std::mt19937_64& random, std::int64_t m, std::int64_t n, std::int64_t r) const {
    return dense_alone ? random_matrix(random, m, r) : random_pair(random, m, n, r);
  }
};

inline const std::array<NamedOptimizer, 9> kAllOptimizers{{{"LoraMuon", OptimizerKind::kLoraMuon},
                                                           {"AdamW", OptimizerKind::kAdamW},
                                                           {"MuonFactors", OptimizerKind::kMuonFactors},
                                                           {"Spectron", OptimizerKind::kSpectron},
                                                           {"LoraRite", OptimizerKind::kLoraRite},
                                                           {"LoraRiteCore", OptimizerKind::kLoraRiteCore},
                                                           {"ScaledAdamW", OptimizerKind::kScaledAdamW},
                                                           {"LoraPlus", OptimizerKind::kLoraPlus},
                                                           {"Muon", OptimizerKind::kMuon, true}}};

inline void PrintTo(const NamedOptimizer& optimizer, std::ostream* out) {
  *out << optimizer.name;
}

}  // namespace lomu::testing
