// The numbers an adapter starts from. Each is a function of seed, pair name and position alone: the same on every rank,
// and the same whichever other sites have adapters.
#pragma once

#include <cstdint>
#include <span>

namespace lomu {

class ModelFiles;
struct PairInfo;

/// PEFT's default, kaiming_uniform with a = sqrt(5): lora_A uniform in +-1/sqrt(in), lora_B zero.
void init_zero(const PairInfo& pair, std::uint64_t seed, std::span<float> a, std::span<float> b);

/// Both factors random and orthonormal along their shorter side (the rank, unless it is larger than the matrix), each
/// times sqrt(tau / s), so that all singular values of s B A are tau.
///
/// tau = 1/32 of rms(W0) (sqrt(out) + sqrt(in)), which is the spectral norm of a random matrix with entries of that
/// size (Marchenko-Pastur edge) and a lower estimate of a trained W0's. The change of the model is then noise of |s B
/// A|_F / |W0|_F = (sqrt(out) + sqrt(in)) sqrt(r) / (32 sqrt(out in)) of each weight: 1 % for 576 x 576 at rank 16,
/// less than the rounding of a 4-bit file. It is not smaller because LoRA-Muon's first step moves a factor by
/// eta / (2 tau) of its norm, which has to stay well below 1. Taking the product out of W0 instead (PiSSA) would keep
/// the model exactly but change the frozen weights, which ranks share and other adapters use.
void init_balanced(const PairInfo& pair, std::uint64_t seed, const ModelFiles& files, std::span<float> a,
                   std::span<float> b);

/// For a pair that is the whole layer (ModelConfig::without_base): as init_balanced with tau = sqrt(out / in), the size
/// at which a layer takes inputs of unit entries to outputs of unit entries (Yang, Simon, Bernstein, arXiv 2310.17813,
/// condition 1), whatever the rank.
void init_alone(const PairInfo& pair, std::uint64_t seed, std::span<float> a, std::span<float> b);

}  // namespace lomu
