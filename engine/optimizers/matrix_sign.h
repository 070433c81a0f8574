// msign(X) = X (X^T X)^(-1/2), the heart of Muon, as X K with a K of the short side, from the Gram of X alone: exactly,
// or as the polynomial iterations in use would have it. Those are odd polynomials of X, so they act on each singular
// value by itself: with the eigenvalues of the Gram at hand a polynomial costs nothing more, is free of the rounding
// that Muon has in bfloat16, and is not faster than the exact sign. LoRA-Muon's own recursion, with the metric in it,
// is in newton_schulz.h.
#pragma once

#include <cstdint>
#include <string_view>

#include "engine/optimizers/optimizer.h"
#include "engine/optimizers/small_matrix.h"

namespace lomu {

/// K, and ||X K||_F^2, for an X with this Gram.
///   exact          by eigenvalues; those under kZeroSingularValue^2 of the largest count as zero and stay zero
///   newton_schulz  X / (||X||_F + 1e-7), then five times a X + b X X^T X + c X (X^T X)^2 with (a, b, c) = (3.4445,
///                  -4.7750, 2.0315) (Jordan and others): singular values end between about 0.68 and 1.13, not at 1
///   polar_express  X / (1.01 ||X||_F + 1e-7), then five steps with coefficients of their own (Amsel and others, arXiv
///                  2505.16932), for singular values down to 1e-3 of ||X||_F, with the paper's safety factor 1.01
/// X = 0 gives K = 0. NumericError (at `where`) when eigenvalues do not converge.
StepMatrix sign_matrix(const SmallMatrix& gram, Orthogonalizer orthogonalizer, std::string_view where);

/// What multiplies lr for a matrix of this shape: sqrt(max(1, rows / columns)), 0.2 sqrt(max(rows, columns)), or 1.
double muon_scale(MuonScaling scaling, std::int64_t rows, std::int64_t columns);

}  // namespace lomu
