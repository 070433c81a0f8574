#include "engine/optimizers/matrix_sign.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <span>

namespace lomu {
namespace {

struct Quintic {
  double a, b, c;
};

constexpr double kNormFloor = 1e-7;

constexpr Quintic kJordan{3.4445, -4.7750, 2.0315};
constexpr std::array<Quintic, 5> kNewtonSchulz{kJordan, kJordan, kJordan, kJordan, kJordan};

// The paper's first five for a smallest singular value of 1e-3. Dividing by powers of 1.01 keeps singular values that
// rounding has pushed past 1 inside the interval on which the polynomials are bounded.
constexpr double kSafety = 1.01;
constexpr Quintic safe(double a, double b, double c) {
  return {a / kSafety, b / (kSafety * kSafety * kSafety), c / (kSafety * kSafety * kSafety * kSafety * kSafety)};
}
constexpr std::array<Quintic, 5> kPolarExpress{safe(8.28721201814563, -23.595886519098837, 17.300387312530933),
                                               safe(4.107059111542203, -2.9478499167379106, 0.5448431082926601),
                                               safe(3.9486908534822946, -2.908902115962949, 0.5518191394370137),
                                               safe(3.3184196573706015, -2.488488024314874, 0.51004894012372),
                                               safe(2.300652019954817, -1.6689039845747493, 0.4188073119525673)};

/// K of the composed polynomials, starting from X / scale.
SmallMatrix polynomial_sign(const SmallMatrix& gram, std::span<const Quintic> steps, double scale) {
  SmallMatrix g = scaled(1.0 / (scale * scale), gram);
  SmallMatrix total(gram.size());
  for (std::size_t s = 0; s < steps.size(); ++s) {
    const auto [a, b, c] = steps[s];
    SmallMatrix w = product(g, g);  // becomes a I + b G + c G^2
    for (std::int64_t i = 0; i < w.size(); ++i) {
      for (std::int64_t j = 0; j < w.size(); ++j) w(i, j) = b * g(i, j) + c * w(i, j) + (i == j ? a : 0.0);
    }
    total = s == 0 ? scaled(1.0 / scale, w) : product(total, w);
    if (s + 1 < steps.size()) g = congruence(w, g);
  }
  return symmetrised(total);
}

StepMatrix exact_sign(const SmallMatrix& gram, std::string_view where) {
  const Eigensystem eigen = eigensystem(gram, where);
  const double floor = kZeroSingularValue * kZeroSingularValue * eigen.values.back();
  StepMatrix step{SmallMatrix(gram.size()), 0.0, {}};
  step.k = function_of(eigen, [floor](double lambda) { return lambda > floor ? 1.0 / std::sqrt(lambda) : 0.0; });
  for (const double lambda : eigen.values) {
    step.norm_squared += lambda > floor ? 1.0 : 0.0;
    step.spectrum.push_back(std::sqrt(std::max(lambda, 0.0)));
  }
  return step;
}

}  // namespace

StepMatrix sign_matrix(const SmallMatrix& gram, Orthogonalizer orthogonalizer, std::string_view where) {
  const double norm_squared = gram.trace();
  if (norm_squared == 0.0) return {SmallMatrix(gram.size()), 0.0, {}};
  if (orthogonalizer == Orthogonalizer::kExact) return exact_sign(gram, where);
  const double norm = std::sqrt(norm_squared);
  StepMatrix step{orthogonalizer == Orthogonalizer::kNewtonSchulz
                      ? polynomial_sign(gram, kNewtonSchulz, norm + kNormFloor)
                      : polynomial_sign(gram, kPolarExpress, kSafety * norm + kNormFloor),
                  0.0,
                  {}};
  step.norm_squared = trace_of_product(product(step.k, gram), step.k);
  return step;
}

double muon_scale(MuonScaling scaling, std::int64_t rows, std::int64_t columns) {
  const auto m = static_cast<double>(rows);
  const auto n = static_cast<double>(columns);
  switch (scaling) {
    case MuonScaling::kOriginal: return std::sqrt(std::max(1.0, m / n));
    case MuonScaling::kRms: return 0.2 * std::sqrt(std::max(m, n));
    case MuonScaling::kNone: return 1.0;
  }
  return 1.0;
}

}  // namespace lomu
