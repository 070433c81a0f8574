#include "engine/optimizers/newton_schulz.h"

#include <array>
#include <cmath>

namespace lomu {
namespace {

struct Quintic {
  double a, b, c;
};

// Both tables are the paper's. The first drives singular values of a matrix of unit Frobenius norm to 1.
constexpr std::array<Quintic, 8> kSignSteps{{{7.2086, -15.5131, 9.0178},
                                             {3.9623, -2.5813, 0.4542},
                                             {3.9466, -2.5765, 0.4544},
                                             {3.8991, -2.5671, 0.4566},
                                             {3.7186, -2.5308, 0.4653},
                                             {3.1390, -2.3073, 0.4733},
                                             {2.1715, -1.5246, 0.3885},
                                             {1.8648, -1.2224, 0.3577}}};

constexpr std::array<Quintic, 7> kInverseRootSteps{{{7.424865680309214, -18.39581635618996, 12.896720413604342},
                                                    {3.4877256051546017, -2.3300436563986993, 0.4404692168431095},
                                                    {2.7766085124882527, -2.070643152532662, 0.46302261050004967},
                                                    {1.9913142104341506, -1.373936700681269, 0.3875934979568538},
                                                    {1.8754637749479246, -1.2505152090010534, 0.37505152463617264},
                                                    {1.874999066623701, -1.2499981332141676, 0.37499906659046633},
                                                    {1.875, -1.25, 0.375}}};
constexpr double kInverseRootShift = 1e-5;
constexpr double kInverseRootMargin = 1.001;
constexpr double kNormFloor = 1e-20;

/// a I + b G + c G^2.
SmallMatrix polynomial(const Quintic& q, const SmallMatrix& g) {
  SmallMatrix w = product(g, g);
  for (std::int64_t i = 0; i < g.size(); ++i) {
    for (std::int64_t j = 0; j < g.size(); ++j) w(i, j) = q.b * g(i, j) + q.c * w(i, j) + (i == j ? q.a : 0.0);
  }
  return w;
}

}  // namespace

SmallMatrix newton_schulz_inverse_root(const SmallMatrix& c) {
  const double t = std::sqrt(trace_of_product(c, c));
  constexpr double kG = kInverseRootMargin;
  SmallMatrix p = scaled(1.0 / t, c);
  for (std::int64_t i = 0; i < c.size(); ++i) p(i, i) += kInverseRootShift;
  SmallMatrix x = scaled(1.0 / std::sqrt(t), identity(c.size()));
  for (const Quintic& q : kInverseRootSteps) {
    const SmallMatrix w = polynomial({q.a / kG, q.b / (kG * kG * kG), q.c / (kG * kG * kG * kG * kG)}, p);
    x = product(x, w);
    p = congruence(w, p);  // sym(P W^2), as W is a polynomial in P
  }
  return x;
}

SmallMatrix newton_schulz_sign(const SmallMatrix& gram) {
  const double norm = std::sqrt(gram.trace()) + kNormFloor;
  SmallMatrix g = scaled(1.0 / (norm * norm), gram);
  SmallMatrix total = scaled(1.0 / norm, identity(g.size()));
  for (const Quintic& q : kSignSteps) {
    const SmallMatrix w = polynomial(q, g);
    total = product(total, w);
    g = congruence(w, g);  // the Gram of X W
  }
  return total;
}

StepMatrix newton_schulz_step_matrix(const SmallMatrix& momentum_gram, const SmallMatrix& metric) {
  StepMatrix step{SmallMatrix(momentum_gram.size()), 0.0, {}};
  if (momentum_gram.trace() == 0.0) return step;
  const SmallMatrix root = newton_schulz_inverse_root(metric);
  step.k = congruence(root, newton_schulz_sign(congruence(root, momentum_gram)));
  step.norm_squared = trace_of_product(product(step.k, momentum_gram), step.k);
  return step;
}

}  // namespace lomu
