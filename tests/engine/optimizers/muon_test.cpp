// Muon, Muon on factors and Spectron against their definitions: singular value decompositions of the matrices
// themselves, and the iterations written out on the matrices.
#include "engine/optimizers/muon.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>

#include "engine/optimizers/matrix_sign.h"
#include "kernels/error.h"
#include "tests/engine/optimizers/test_pairs.h"

namespace lomu::testing {
namespace {

struct Step {
  double a, b, c;
};

/// The iteration as published: on the matrix, its short side first.
Dense iterated(const Dense& x, double scale, std::span<const Step> steps) {
  Dense y = 1.0 / scale * (x.rows() <= x.columns() ? x : x.transpose());
  for (const auto& [a, b, c] : steps) {
    const Dense gram = y * y.transpose();
    y = a * y + (b * gram + c * (gram * gram)) * y;
  }
  return x.rows() <= x.columns() ? y : y.transpose();
}

Dense signed_by(Orthogonalizer orthogonalizer, const Dense& x) {
  constexpr Step kJordan{3.4445, -4.7750, 2.0315};
  constexpr std::array<Step, 5> kNewtonSchulz{kJordan, kJordan, kJordan, kJordan, kJordan};
  std::array<Step, 5> polar{{{8.28721201814563, -23.595886519098837, 17.300387312530933},
                             {4.107059111542203, -2.9478499167379106, 0.5448431082926601},
                             {3.9486908534822946, -2.908902115962949, 0.5518191394370137},
                             {3.3184196573706015, -2.488488024314874, 0.51004894012372},
                             {2.300652019954817, -1.6689039845747493, 0.4188073119525673}}};
  for (auto& [a, b, c] : polar) {
    a /= 1.01;
    b /= std::pow(1.01, 3);
    c /= std::pow(1.01, 5);
  }
  switch (orthogonalizer) {
    case Orthogonalizer::kExact: return x.norm() > 0.0 ? matrix_sign(x) : x;
    case Orthogonalizer::kNewtonSchulz: return iterated(x, x.norm() + 1e-7, kNewtonSchulz);
    case Orthogonalizer::kPolarExpress: return iterated(x, 1.01 * x.norm() + 1e-7, polar);
  }
  return x;
}

double scale_of(MuonScaling scaling, double rows, double columns) {
  if (scaling == MuonScaling::kOriginal) return std::sqrt(std::max(1.0, rows / columns));
  return scaling == MuonScaling::kRms ? 0.2 * std::sqrt(std::max(rows, columns)) : 1.0;
}

/// Muon of one matrix in double; W and momentum between steps are rounded as they are stored.
struct PlainMuon {
  Dense w, m;
  explicit PlainMuon(const Dense& start) : w(start), m(start.rows(), start.columns()) {}

  void step(const Dense& g, double size, const OptimizerOptions& o) {
    m = o.momentum * m + (1.0 - o.momentum) * g;
    const Dense x = o.nesterov ? o.momentum * m + (1.0 - o.momentum) * g : m;
    w = (1.0 - o.lr * o.weight_decay) * w - size * signed_by(o.orthogonalizer, x);
  }
  void round() {
    const auto to_float = [](double value) { return static_cast<double>(static_cast<float>(value)); };
    w = w.map(to_float);
    m = m.map(to_float);
  }
};

struct Variant {
  Orthogonalizer orthogonalizer;
  MuonScaling scaling;
  bool nesterov;
};
constexpr std::array<Variant, 4> kVariants{{{Orthogonalizer::kExact, MuonScaling::kOriginal, true},
                                            {Orthogonalizer::kExact, MuonScaling::kRms, false},
                                            {Orthogonalizer::kNewtonSchulz, MuonScaling::kNone, true},
                                            {Orthogonalizer::kPolarExpress, MuonScaling::kRms, true}}};

OptimizerOptions options_of(OptimizerKind name, const Variant& variant) {
  OptimizerOptions o;
  o.name = name;
  o.lr = 0.02;
  o.weight_decay = 0.3;
  o.momentum = 0.95;
  o.orthogonalizer = variant.orthogonalizer;
  o.scaling = variant.scaling;
  o.nesterov = variant.nesterov;
  return o;
}

struct Size {
  std::int64_t m, n;
};

TEST(Muon, FollowsItsDefinition) {
  std::mt19937_64 random(81);
  for (const auto& [m, n] : {Size{2, 1}, Size{33, 17}, Size{17, 33}, Size{24, 24}, Size{70, 9}, Size{5, 1100}}) {
    for (const Variant& variant : kVariants) {
      const OptimizerOptions o = options_of(OptimizerKind::kMuon, variant);
      const auto optimizer = make_optimizer(o);
      OwnedPair matrix = random_matrix(random, m, n);
      matrix.give_state(*optimizer);
      EXPECT_EQ(matrix.state.size(), static_cast<std::size_t>(m * n));
      PlainMuon plain(Dense(matrix.left.data(), m, n));
      for (std::int64_t t = 1; t <= 4; ++t) {
        matrix.grad_left = random_matrix(random, m, n).grad_left;
        const Dense before = plain.w;
        plain.step(Dense(matrix.grad_left.data(), m, n), o.lr * scale_of(o.scaling, m, n), o);
        const StepReport report = step_once(*optimizer, matrix, {t, o.lr, {}});
        EXPECT_LT(step_error(Dense(matrix.left.data(), m, n), plain.w, before), 1e-6) << m << " x " << n << ", " << t;
        const double change = (plain.w - (1.0 - o.lr * o.weight_decay) * before).norm();
        EXPECT_NEAR(std::sqrt(report.pairs[0].update_norm_squared), change, 1e-6 * change);
        plain.round();
      }
    }
  }
}

TEST(Muon, RefusesVectorsAndPairsWithAWayOut) {
  std::mt19937_64 random(82);
  const auto optimizer = make_optimizer(options_of(OptimizerKind::kMuon, kVariants[0]));
  for (OwnedPair pair : {random_matrix(random, 1, 8), random_pair(random, 8, 6, 2)}) {
    pair.give_state(*optimizer);
    try {
      step_once(*optimizer, pair, {1, 0.02, {}});
      FAIL() << "accepted";
    } catch (const UsageError& error) {
      EXPECT_EQ(error.where(), pair.name);
      EXPECT_NE(error.hint().find(pair.dense ? "adamw" : "muon_factors"), std::string::npos);
    }
  }
}

TEST(Muon, AZeroGradientOnlyDecays) {
  OwnedPair matrix(6, 4);
  std::fill(matrix.left.begin(), matrix.left.end(), 2.0f);
  for (const Variant& variant : kVariants) {
    OwnedPair moved = matrix;
    const OptimizerOptions o = options_of(OptimizerKind::kMuon, variant);
    const auto optimizer = make_optimizer(o);
    moved.give_state(*optimizer);
    step_once(*optimizer, moved, {1, o.lr, {}});
    for (const float x : moved.left) EXPECT_FLOAT_EQ(x, static_cast<float>(2.0 * (1.0 - 0.3 * 0.02)));
  }
}

TEST(MatrixSign, PublishedIterationsStayWithinTheirBands) {
  std::mt19937_64 random(83);
  const Dense x = random_with_condition(random, 40, 24, 30.0);
  SmallMatrix gram(24);
  const Dense dense_gram = x.transpose() * x;
  for (std::int64_t i = 0; i < 24; ++i) {
    for (std::int64_t j = 0; j < 24; ++j) gram(i, j) = dense_gram(i, j);
  }
  const auto range = [&](Orthogonalizer orthogonalizer) {
    const StepMatrix step = sign_matrix(gram, orthogonalizer, "test");
    const std::vector<double> sigma = singular_values(x * Dense(step.k.values().data(), 24, 24));
    EXPECT_NEAR(step.norm_squared, std::pow((x * Dense(step.k.values().data(), 24, 24)).norm(), 2), 1e-9);
    return std::pair(sigma.back(), sigma.front());
  };
  EXPECT_NEAR(range(Orthogonalizer::kExact).first, 1.0, 1e-12);
  EXPECT_NEAR(range(Orthogonalizer::kExact).second, 1.0, 1e-12);
  EXPECT_GT(range(Orthogonalizer::kNewtonSchulz).first, 0.65);
  EXPECT_LT(range(Orthogonalizer::kNewtonSchulz).second, 1.25);
  EXPECT_GT(range(Orthogonalizer::kPolarExpress).first, 0.85);
  EXPECT_LT(range(Orthogonalizer::kPolarExpress).second, 1.15);
}

struct Shape {
  std::int64_t m, n, r;
};
constexpr std::array<Shape, 6> kShapes{{{1, 1, 1}, {33, 17, 1}, {40, 7, 7}, {31, 1100, 16}, {5, 3, 2}, {4, 6, 9}}};

TEST(MuonFactors, StepsEachMatrixAsMuonWould) {
  std::mt19937_64 random(84);
  for (const auto& [m, n, r] : kShapes) {
    for (const Variant& variant : kVariants) {
      const OptimizerOptions o = options_of(OptimizerKind::kMuonFactors, variant);
      const auto optimizer = make_optimizer(o);
      OwnedPair pair = random_pair(random, m, n, r);
      pair.give_state(*optimizer);
      PlainMuon left(left_of(pair));
      PlainMuon right(right_of(pair).transpose());  // lora_A as it is stored: [r, n]
      for (std::int64_t t = 1; t <= 3; ++t) {
        const Dense grad_left = random_dense(random, m, r, 1e-3).map([](double x) { return static_cast<float>(x); });
        const Dense grad_right = random_dense(random, n, r, 1e-3).map([](double x) { return static_cast<float>(x); });
        set_gradients(pair, grad_left, grad_right);
        const Dense before_left = left.w, before_right = right.w;
        left.step(grad_left, o.lr * scale_of(o.scaling, m, r), o);
        right.step(grad_right.transpose(), o.lr * scale_of(o.scaling, r, n), o);
        step_once(*optimizer, pair, {t, o.lr, {}});
        // A direction of condition 100 at most: rounding of the stored momentum is amplified that far.
        EXPECT_LT(step_error(left_of(pair), left.w, before_left), 3e-6) << m << " " << n << " " << r;
        EXPECT_LT(step_error(right_of(pair).transpose(), right.w, before_right), 3e-6) << m << " " << n << " " << r;
        left.round();
        right.round();
      }
    }
  }
}

TEST(Spectron, FollowsItsDefinition) {
  std::mt19937_64 random(85);
  for (const auto& [m, n, r] : kShapes) {
    for (const Variant& variant : kVariants) {
      const OptimizerOptions o = options_of(OptimizerKind::kSpectron, variant);
      const auto optimizer = make_optimizer(o);
      OwnedPair pair = random_pair(random, m, n, r);
      pair.give_state(*optimizer);
      PlainMuon left(left_of(pair));
      PlainMuon right(right_of(pair));
      for (std::int64_t t = 1; t <= 3; ++t) {
        const Dense grad_left = random_dense(random, m, r, 1e-3).map([](double x) { return static_cast<float>(x); });
        const Dense grad_right = random_dense(random, n, r, 1e-3).map([](double x) { return static_cast<float>(x); });
        set_gradients(pair, grad_left, grad_right);
        const Dense before_left = left.w, before_right = right.w;
        const double size = o.lr / (spectral_norm_of(left.w) + spectral_norm_of(right.w) + 1.0);
        left.step(grad_left, size, o);
        right.step(grad_right, size, o);
        step_once(*optimizer, pair, {t, o.lr, {}});
        EXPECT_LT(step_error(left_of(pair), left.w, before_left), 3e-6) << m << " " << n << " " << r;
        EXPECT_LT(step_error(right_of(pair), right.w, before_right), 3e-6) << m << " " << n << " " << r;
        left.round();
        right.round();
      }
    }
  }
}

TEST(Spectron, BoundsTheStepOfTheProduct) {
  std::mt19937_64 random(86);
  for (const double size : {0.01, 1.0, 10.0}) {
    OwnedPair pair = random_pair(random, 30, 20, 4);
    set_left(pair, random_dense(random, 30, 4, size));
    OptimizerOptions o;
    o.name = OptimizerKind::kSpectron;
    o.lr = 0.5;
    const auto optimizer = make_optimizer(o);
    pair.give_state(*optimizer);
    const Dense before = left_of(pair) * right_of(pair).transpose();
    step_once(*optimizer, pair, {1, o.lr, {}});
    EXPECT_LE(spectral_norm_of(left_of(pair) * right_of(pair).transpose() - before), o.lr * (1 + 1e-6)) << size;
  }
}

}  // namespace
}  // namespace lomu::testing
