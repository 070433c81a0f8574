// Options that cannot work are refused by name before anything runs, and state is described for checkpoints.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <string>

#include "engine/optimizers/optimizer.h"
#include "kernels/error.h"
#include "tests/engine/optimizers/test_pairs.h"

namespace lomu::testing {
namespace {

template <class Change>
std::string refusal(Change change) {
  OptimizerOptions options;
  change(options);
  try {
    make_optimizer(options);
  } catch (const UsageError& error) {
    return error.where();
  }
  return "accepted";
}

TEST(OptimizerOptions, OutOfRangeAreNamed) {
  EXPECT_EQ(refusal([](auto&) {}), "accepted");
  EXPECT_EQ(refusal([](auto& o) { o.lr = -1.0; }), "optimizer.lr");
  EXPECT_EQ(refusal([](auto& o) { o.lr = std::nan(""); }), "optimizer.lr");
  EXPECT_EQ(refusal([](auto& o) { o.weight_decay = 50.0; }), "optimizer.weight_decay");  // lambda eta = 1
  EXPECT_EQ(refusal([](auto& o) { o.momentum = 1.0; }), "optimizer.momentum");
  EXPECT_EQ(refusal([](auto& o) { o.damping = 0.0; }), "optimizer.damping");
  EXPECT_EQ(refusal([](auto& o) { o.balance_every = -1; }), "optimizer.balance_every");
  EXPECT_EQ(refusal([](auto& o) { o.max_grad_norm = -1.0; }), "optimizer.max_grad_norm");
  EXPECT_EQ(refusal([](auto& o) { o.beta2 = 1.5; }), "optimizer.beta2");
  EXPECT_EQ(refusal([](auto& o) { o.eps = 0.0; }), "optimizer.eps");
}

TEST(OptimizerState, SlotsLieOneAfterTheOther) {
  OptimizerOptions options;
  options.name = OptimizerKind::kAdamW;
  const auto adamw = make_optimizer(options);
  EXPECT_EQ(adamw->state_size({{}, 5, 3, 2}), 2 * (10 + 6));
  OwnedPair pair(5, 3, 2);
  pair.give_state(*adamw);
  const PairView view = pair.view();
  EXPECT_EQ(state_slot(view, adamw->state_slots(view.shape()), 1).data(), pair.state.data() + 10);
  EXPECT_EQ(state_slot(view, adamw->state_slots(view.shape()), 1).size(), 6u);
  EXPECT_EQ(state_slot(view, adamw->state_slots(view.shape()), 3).data(), pair.state.data() + 26);
  EXPECT_EQ(adamw->state_slots(view.shape())[2].name, "exp_avg_sq_left");

  const auto muon = make_optimizer({});
  EXPECT_EQ(muon->state_size({{}, 5, 3, 2}), 16);
  EXPECT_EQ(muon->state_slots(view.shape())[1].name, "momentum_right");
}

TEST(OptimizerState, ADenseMatrixHasNothingOnTheRight) {
  const ParameterShape matrix{"lm_head", 5, 3, 3, true};
  using Dimensions = std::array<std::int64_t, 2>;
  EXPECT_EQ(dimensions({"a", Extent::kLeft}, matrix), (Dimensions{5, 3}));
  EXPECT_EQ(dimensions({"a", Extent::kRight}, matrix), (Dimensions{0, 3}));
  EXPECT_EQ(dimensions({"a", Extent::kScalar}, matrix), (Dimensions{1, 1}));
  EXPECT_EQ(dimensions({"a", Extent::kRankByRank}, {"q", 5, 3, 2}), (Dimensions{2, 2}));
  EXPECT_EQ(dimensions({"a", Extent::kRight}, {"q", 5, 3, 2}), (Dimensions{2, 3}));
}

TEST(DenseMatrix, CountsItsOneGradient) {
  std::mt19937_64 random(73);
  OwnedPair matrix = random_matrix(random, 7, 5);
  const PairView view = matrix.view();
  EXPECT_NEAR(grad_norm_squared({&view, 1})[0], std::pow(Dense(matrix.grad_left.data(), 7, 5).norm(), 2), 1e-20);
}

TEST(DenseMatrix, IsRefusedByLoraMuonWithAWayOut) {
  std::mt19937_64 random(74);
  for (const std::int64_t rows : {1, 7}) {
    OwnedPair matrix = random_matrix(random, rows, 5);
    try {
      step_once(*make_optimizer({}), matrix, {1, 0.02, {}});
      FAIL() << "a dense matrix was taken for a pair";
    } catch (const UsageError& error) {
      EXPECT_EQ(error.where(), matrix.name);
      EXPECT_NE(std::string(error.what()).find(rows == 1 ? "dense vector" : "dense matrix"), std::string::npos);
      EXPECT_NE(error.hint().find("optimizer.groups"), std::string::npos);
    }
  }
}

TEST(DenseMatrix, OfAWrongShapeOrHalfAPairIsRefused) {
  std::mt19937_64 random(75);
  OptimizerOptions options;
  options.name = OptimizerKind::kAdamW;
  const auto optimizer = make_optimizer(options);
  OwnedPair matrix = random_matrix(random, 7, 5);
  matrix.give_state(*optimizer);
  const auto refused = [&](auto change) {
    PairView view = matrix.view();
    change(view);
    EXPECT_THROW(optimizer->check({&view, 1}), UsageError);
  };
  refused([](PairView& view) { view.r = 4; });
  refused([](PairView& view) { view.scale = 2.0; });
  refused([](PairView& view) { view.right = view.left; });
  refused([](PairView& view) { view.grad_right = view.grad_left; });
  refused([](PairView& view) { view.grad_left = nullptr; });
}

TEST(OptimizerState, OfAnotherOptimizerIsRefused) {
  std::mt19937_64 random(71);
  OwnedPair pair = random_pair(random, 8, 6, 2);
  pair.state.pop_back();
  EXPECT_THROW(step_once(*make_optimizer({}), pair, {1, 0.02, {}}), UsageError);
}

TEST(StepInfo, WithAnImpossibleLearningRateIsRefused) {
  std::mt19937_64 random(72);
  for (const OptimizerKind kind : {OptimizerKind::kLoraMuon, OptimizerKind::kAdamW}) {
    OptimizerOptions options;
    options.name = kind;
    options.weight_decay = 0.1;
    const auto optimizer = make_optimizer(options);
    OwnedPair pair = random_pair(random, 8, 6, 2);
    pair.give_state(*optimizer);
    for (const double lr : {-0.1, 10.0, std::nan("")})
      EXPECT_THROW(step_once(*optimizer, pair, {1, lr, {}}), UsageError);
  }
}

}  // namespace
}  // namespace lomu::testing
