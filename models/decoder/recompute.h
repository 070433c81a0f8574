// How much of the forward pass is computed again in the backward pass instead of kept: time for memory, as a ladder.
// The gradients are the same bits at every level, because what is computed again is computed by the same operations
// from the same inputs. Which level a run takes is decided above; sizes are Decoder::plan's.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace lomu {

/// Each level keeps less than the one before. "Kept" is what a block holds from its forward to its backward pass; the
/// rest lies in buffers that all blocks share.
enum class Recompute : std::uint8_t {
  kNone,   ///< all that backward reads is kept
  kNorms,  ///< the normed inputs and the hidden of the MLP are computed again
  kMlp,    ///< gate|up as well
  kBlock,  ///< all but the residual stream between blocks, and the low-rank activation of down
};
inline constexpr std::array kRecomputeLadder{Recompute::kNone, Recompute::kNorms, Recompute::kMlp, Recompute::kBlock};

/// "none", "norms", "mlp", "block".
constexpr std::string_view name_of(Recompute level) {
  constexpr std::array<std::string_view, kRecomputeLadder.size()> kNames{"none", "norms", "mlp", "block"};
  return kNames[static_cast<std::size_t>(level)];
}

}  // namespace lomu
