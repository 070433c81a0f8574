// Runs the device's optimizers on the pairs of the tests of engine/optimizers, in emulation: memory of the exact size,
// and workspaces full of NaN.
#pragma once

#include <vector>

#include "kernels/cuda/adamw.h"
#include "kernels/cuda/gradient_norms.h"
#include "kernels/cuda/lora_muon.h"
#include "tests/engine/optimizers/test_pairs.h"

namespace lomu::testing {

using PairRefs = std::vector<OwnedPair*>;

/// A pair as the device's LoRA-Muon sees it; its state holds the momenta.
cuda::PairDesc lora_muon_pair(OwnedPair& pair);
/// A pair as the device's AdamW sees it; its state holds the moments in the order of engine/optimizers/adamw.h.
cuda::PairDesc adamw_pair(OwnedPair& pair);

/// One step of all pairs together; two reports a pair. balance: balances as well.
std::vector<cuda::LoraMuonHalfReport> lora_muon_on_device(const PairRefs& pairs, const cuda::LoraMuonOptions& options,
                                                          double lr, bool balance = false);
std::vector<cuda::LoraMuonHalfReport> lora_muon_on_device(const std::vector<cuda::PairDesc>& pairs,
                                                          const cuda::LoraMuonOptions& options, double lr,
                                                          bool balance = false);

/// Step number t of all pairs together; two reports a pair.
std::vector<cuda::AdamwHalfReport> adamw_on_device(const std::vector<cuda::PairDesc>& pairs,
                                                   const cuda::AdamwOptions& options, double lr, int t);

/// Squared norm of each pair's gradients, and their sum.
std::vector<double> gradient_norms_on_device(const std::vector<cuda::PairDesc>& pairs);

/// The options of the device that are those of the CPU.
cuda::LoraMuonOptions device_options(const OptimizerOptions& options);

}  // namespace lomu::testing
