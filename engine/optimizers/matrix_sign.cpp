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

/// What the composed polynomials, started from X / scale, make of a singular value, over that value: sigma^2 = lambda.
double polynomial_ratio(double lambda, std::span<const Quintic> steps, double scale) {
  double square = std::max(lambda, 0.0) / (scale * scale);
  double ratio = 1.0 / scale;
  for (const auto& [a, b, c] : steps) {
    const double w = a + square * (b + square * c);
    ratio *= w;
    square *= w * w;
  }
  return ratio;
}

}  // namespace

StepMatrix sign_matrix(const SmallMatrix& gram, Orthogonalizer orthogonalizer, std::string_view where) {
  StepMatrix step{SmallMatrix(gram.size()), 0.0, {}};
  const double norm_squared = gram.trace();
  if (norm_squared == 0.0) return step;
  const Eigensystem eigen = eigensystem(gram, where);
  const double norm = std::sqrt(norm_squared);
  const double floor = kZeroSingularValue * kZeroSingularValue * eigen.values.back();
  const auto ratio = [&](double lambda) {
    switch (orthogonalizer) {
      case Orthogonalizer::kExact: return lambda > floor ? 1.0 / std::sqrt(lambda) : 0.0;
      case Orthogonalizer::kNewtonSchulz: return polynomial_ratio(lambda, kNewtonSchulz, norm + kNormFloor);
      case Orthogonalizer::kPolarExpress: return polynomial_ratio(lambda, kPolarExpress, kSafety * norm + kNormFloor);
    }
    return 0.0;
  };
  step.k = function_of(eigen, ratio);
  for (const double lambda : eigen.values) {
    const double positive = std::max(lambda, 0.0);
    step.norm_squared += positive * ratio(lambda) * ratio(lambda);
    step.spectrum.push_back(std::sqrt(positive));
  }
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
