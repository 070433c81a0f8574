#include "models/files/random_weights.h"

#include <algorithm>
#include <numbers>

#include "kernels/philox.h"

namespace lomu {
namespace {

constexpr double kDeviation = 0.02;

bool is_norm(WeightKind kind) {
  switch (kind) {
    case WeightKind::kFinalNorm:
    case WeightKind::kAttnNorm:
    case WeightKind::kQNorm:
    case WeightKind::kKNorm:
    case WeightKind::kMlpNorm: return true;
    default: return false;
  }
}

}  // namespace

void random_weight(WeightId id, std::int64_t first, std::span<float> out) {
  if (is_norm(id.kind)) {
    std::fill(out.begin(), out.end(), 1.0f);
    return;
  }
  // A uniform distribution over [-1, 1) has deviation 1 / sqrt(3). One draw gives four numbers of 16 bits.
  constexpr auto kScale = static_cast<float>(kDeviation * std::numbers::sqrt3 / 32768);
  const Philox random(1, Purpose::kTest);
  const std::uint64_t stream = (static_cast<std::uint64_t>(id.kind) << 32) + static_cast<std::uint64_t>(id.layer);
  std::uint64_t bits = 0;
  for (std::size_t i = 0; i < out.size(); ++i) {
    const std::uint64_t at = static_cast<std::uint64_t>(first) + i;
    if (i == 0 || at % 4 == 0) bits = random.bits(stream, at / 4) >> (at % 4 * 16);
    out[i] = (static_cast<float>(bits & 0xffff) - 32767.5f) * kScale;
    bits >>= 16;
  }
}

}  // namespace lomu
