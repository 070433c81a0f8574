// The polynomial recursions of the LoRA-Muon paper (arXiv 2606.12921), kept for fidelity: a step as its authors compute
// it. They are less exact than the eigen-decomposition of small_matrix.h (docs/lora_muon.md has the measured table)
// and, here, not faster. Every iterate is a polynomial in the r x r Gram, so like the exact path they need no long
// product.
#pragma once

#include "engine/optimizers/small_matrix.h"

namespace lomu {

/// C^(-1/2) by the paper's seven coupled steps, which start from C / ||C||_F + 1e-5 I. C: symmetric positive
/// semidefinite, not zero.
SmallMatrix newton_schulz_inverse_root(const SmallMatrix& c);

/// W with msign(Y) ~ Y W for a Y of Gram G = Y^T Y: eight quintic steps from Y / (||Y||_F + 1e-20).
SmallMatrix newton_schulz_sign(const SmallMatrix& gram);

/// K with msign(m R) R ~ m K for R ~ C^(-1/2), both by the recursions. S = m^T m. S = 0 gives K = 0.
StepMatrix newton_schulz_step_matrix(const SmallMatrix& momentum_gram, const SmallMatrix& metric);

}  // namespace lomu
