// The specification against finite differences, in f64. Central differences with step h err by h^2/6 f''' plus
// epsilon |f| / h; at h = epsilon^(1/3) both are about epsilon^(2/3) = 4e-11 times the size of f and its derivatives,
// which the shapes below keep under a hundred.
#include <gtest/gtest.h>

#include <functional>

#include "kernels/ops.h"
#include "tests/kernels/host_tensor.h"
#include "tests/kernels/linear_case.h"

namespace lomu::test {
namespace {

constexpr double kStep = 6e-6;
constexpr double kTolerance = 100 * 4e-11;
constexpr DType kF64 = DType::kF64;

const std::unique_ptr<Ops> ops = make_reference_ops(kF64Precision);

/// Compares every element of `gradient` with the central difference of `objective` in the same element of `x`.
void expect_gradient(HostTensor& x, const HostTensor& gradient, const std::function<double()>& objective) {
  for (std::int64_t i = 0; i < x.view().rows; ++i) {
    for (std::int64_t j = 0; j < x.view().cols; ++j) {
      const double value = x.get(i, j);
      x.set(i, j, value + kStep);
      const double above = objective();
      x.set(i, j, value - kStep);
      const double below = objective();
      x.set(i, j, value);
      const double expected = (above - below) / (2 * kStep);
      ASSERT_NEAR(gradient.get(i, j), expected, kTolerance * (1 + std::abs(expected))) << "element " << i << ", " << j;
    }
  }
}

TEST(ReferenceRmsNorm, BackwardIsTheGradientAndAdds) {
  HostTensor x = random_tensor(kF64, 3, 10, 1, 2);
  const HostTensor dy = random_tensor(kF64, 3, 10, 2);
  const auto weight = random_floats(10, 3, 0.5, 1);
  const HostTensor start = random_tensor(kF64, 3, 10, 4);
  HostTensor dx = start;
  ops->rms_norm_backward(dy, x, weight.data(), 1e-5, dx);
  for (std::int64_t i = 0; i < 3; ++i) {
    for (std::int64_t j = 0; j < 10; ++j) dx.set(i, j, dx.get(i, j) - start.get(i, j));
  }
  expect_gradient(x, dx, [&] {
    HostTensor y(kF64, 3, 10);
    ops->rms_norm(x, weight.data(), 1e-5, y);
    return inner(y, dy);
  });
}

TEST(ReferenceHeadNorm, BackwardIsTheGradientOfEachHead) {
  HostTensor x = random_tensor(kF64, 2, 12, 1, 3);
  const HostTensor dy = random_tensor(kF64, 2, 12, 2);
  const auto weight = random_floats(4, 3, 0.5, 1);
  HostTensor dx = dy;
  ops->head_norm_backward(x, weight.data(), 1e-6, 3, dx);
  expect_gradient(x, dx, [&] {
    HostTensor y(kF64, 2, 12);
    ops->head_norm(x, weight.data(), 1e-6, 3, y);
    return inner(y, dy);
  });
}

TEST(ReferenceRope, InverseIsTheGradientAndUndoesTheRotation) {
  HostTensor x = random_tensor(kF64, 3, 8, 1);
  const HostTensor dy = random_tensor(kF64, 3, 8, 2);
  HostTensor cos(kF64, 6, 2);
  HostTensor sin(kF64, 6, 2);
  for (std::int64_t p = 0; p < 6; ++p) {
    for (std::int64_t i = 0; i < 2; ++i) {
      cos.set(p, i, std::cos(static_cast<double>(p) / static_cast<double>(i + 1)));
      sin.set(p, i, std::sin(static_cast<double>(p) / static_cast<double>(i + 1)));
    }
  }
  const std::vector<std::int32_t> positions = {0, 5, 2};
  HostTensor dx = dy;
  ops->rope(dx, positions, 2, cos, sin, true);
  expect_gradient(x, dx, [&] {
    HostTensor y = x;
    ops->rope(y, positions, 2, cos, sin, false);
    return inner(y, dy);
  });
  HostTensor back = x;
  ops->rope(back, positions, 2, cos, sin, false);
  ops->rope(back, positions, 2, cos, sin, true);
  EXPECT_LT(relative_error(back, x), 1e-15);
}

class ReferenceAttention : public testing::TestWithParam<std::int64_t> {};

TEST_P(ReferenceAttention, BackwardIsTheGradient) {
  const AttentionShape shape{4, 2, 3, 0.5, GetParam()};
  const std::vector<SequenceSpan> sequences = {{0, 5, 0, 5}, {5, 1, 5, 1}, {6, 3, 6, 3}};
  HostTensor q = random_tensor(kF64, 9, 12, 1, 1);
  HostTensor k = random_tensor(kF64, 9, 6, 2, 4);
  HostTensor v = random_tensor(kF64, 9, 6, 3);
  const HostTensor dout = random_tensor(kF64, 9, 12, 4);
  HostTensor dq(kF64, 9, 12);
  HostTensor dk(kF64, 9, 6, 2);
  HostTensor dv(kF64, 9, 6);
  HostTensor out(kF64, 9, 12);
  HostTensor lse(kF64, 9, 4);
  const auto objective = [&] {
    ops->attention(shape, sequences, q, k, v, out, lse);
    return inner(out, dout);
  };
  objective();
  ops->attention_backward(shape, sequences, q, k, v, out, lse, dout, dq, dk, dv);
  expect_gradient(q, dq, objective);
  expect_gradient(k, dk, objective);
  expect_gradient(v, dv, objective);
}

INSTANTIATE_TEST_SUITE_P(Windows, ReferenceAttention, testing::Values(0, 1, 2, 4, 100));

TEST(ReferenceAttention, CachedKeysGiveTheSameRows) {
  const AttentionShape shape{2, 1, 4, 0.5, 3};
  const HostTensor q = random_tensor(kF64, 7, 8, 1);
  const HostTensor k = random_tensor(kF64, 7, 4, 2);
  const HostTensor v = random_tensor(kF64, 7, 4, 3);
  HostTensor whole(kF64, 7, 8);
  HostTensor last(kF64, 7, 8);
  ops->attention(shape, std::vector<SequenceSpan>{{0, 7, 0, 7}}, q, k, v, whole, {});
  ops->attention(shape, std::vector<SequenceSpan>{{0, 2, 0, 7}}, q.view().row_range(5, 2), k, v,
                 last.view().row_range(0, 2), {});
  for (std::int64_t j = 0; j < 8; ++j) {
    EXPECT_EQ(last.get(0, j), whole.get(5, j));
    EXPECT_EQ(last.get(1, j), whole.get(6, j));
  }
}

TEST(ReferenceSwiglu, BackwardIsTheGradientAndMayOverwriteItsInput) {
  HostTensor gate_up = random_tensor(kF64, 3, 10, 1);
  const HostTensor dh = random_tensor(kF64, 3, 5, 2);
  HostTensor dx = gate_up;
  ops->swiglu_backward(dh, dx, dx);
  expect_gradient(gate_up, dx, [&] {
    HostTensor h(kF64, 3, 5);
    ops->swiglu(gate_up, h);
    return inner(h, dh);
  });
}

TEST(ReferenceCrossEntropy, BackwardIsTheScaledGradientOfTheSum) {
  LinearCase head({6, {11}, {0}}, *ops);
  HostTensor x = random_tensor(kF64, 4, 6, 1);
  const std::vector<std::int32_t> targets = {0, 10, 3, 3};
  HostTensor losses(kF64, 1, 4);
  HostTensor dx(kF64, 4, 6);
  ops->cross_entropy(head.linear.frozen, x, targets, 0.25, losses, dx, {});
  expect_gradient(x, dx, [&] {
    ops->cross_entropy(head.linear.frozen, x, targets, 0.25, losses, {}, {});
    double sum = 0;
    for (std::int64_t i = 0; i < 4; ++i) sum += losses.get(0, i);
    return 0.25 * sum;
  });
}

class ReferenceLinear : public testing::TestWithParam<LinearShape> {};

TEST_P(ReferenceLinear, BackwardIsTheGradientOfInputAndFactors) {
  const LinearShape& shape = GetParam();
  LinearCase c(shape, *ops);
  const std::int64_t tokens = 5;
  const std::int64_t out = c.linear.frozen.out();
  HostTensor x = random_tensor(kF64, tokens, shape.in, 1, 2);
  const HostTensor residual = random_tensor(kF64, tokens, out, 2);
  const HostTensor dy = random_tensor(kF64, tokens, out, 3);
  HostTensor s(kF64, tokens, c.linear.total_rank());
  HostTensor y(kF64, tokens, out);
  HostTensor dx(kF64, tokens, shape.in);
  const auto objective = [&] {
    ops->linear_forward(c.linear, x, residual, y, s);
    return inner(y, dy);
  };
  objective();
  ops->linear_backward(c.linear, x, s, dy, dx);
  expect_gradient(x, dx, objective);
  // The objective is linear in each factor: a difference over any step is exact but for rounding, so a step that f32
  // holds exactly will do.
  constexpr float kExactStep = 0x1p-8f;
  const auto expect_factor = [&](std::vector<float>& factor, const HostTensor& gradient) {
    for (std::size_t i = 0; i < factor.size(); ++i) {
      const float value = factor[i];
      factor[i] = value + kExactStep;
      const double above = objective();
      factor[i] = value - kExactStep;
      const double below = objective();
      factor[i] = value;
      const auto cols = gradient.view().cols;
      const auto at = static_cast<std::int64_t>(i);
      EXPECT_NEAR(gradient.get(at / cols, at % cols), (above - below) / (2.0 * kExactStep), 1e-11);
    }
  };
  for (std::size_t part = 0; part < shape.outs.size(); ++part) {
    expect_factor(c.a[part], c.grad_a[part]);
    expect_factor(c.b[part], c.grad_b[part]);
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, ReferenceLinear,
                         testing::Values(LinearShape{6, {7}, {0}}, LinearShape{6, {7}, {3}, true},
                                         LinearShape{5, {4, 2, 2}, {2, 0, 5}},
                                         LinearShape{5, {4, 2, 3}, {1, 2, 3}, true, 0.4F}));

TEST(ReferenceLinear, ReadsTheFactorsAndTheFrozenRowsInPeftOrientation) {
  LinearCase c({2, {1}, {1}, true, 0}, *ops);
  const std::vector<float> w = {2, 3};
  ops->pack_frozen(c.linear.frozen, 0, 0, encoded(w.data(), 1, 2));
  c.a[0] = {10, 100};
  c.b[0] = {4};
  c.biases[0] = {0.5F};
  c.linear.adapters[0] = {1, 2.0, c.a[0].data(), c.b[0].data(), nullptr, nullptr, {}};
  c.linear.bias[0] = c.biases[0].data();
  HostTensor x(kF64, 1, 2);
  x.set(0, 0, 1);
  x.set(0, 1, -1);
  HostTensor y(kF64, 1, 1);
  HostTensor s(kF64, 1, 1);
  ops->linear_forward(c.linear, x, {}, y, s);
  EXPECT_EQ(s.get(0, 0), 10 - 100);
  EXPECT_EQ(y.get(0, 0), (2 - 3) + 0.5 + 2.0 * 4 * (10 - 100));
}

TEST(ReferenceRows, ScatterUndoesGatherAndClearsTheRest) {
  const HostTensor x = random_tensor(kF64, 5, 3, 1, 1);
  const std::vector<std::int32_t> rows = {4, 0, 2};
  HostTensor y(kF64, 3, 3);
  ops->gather_rows(x, rows, y);
  HostTensor back(kF64, 5, 3);
  ops->scatter_rows(y, rows, back);
  for (std::int64_t j = 0; j < 3; ++j) {
    for (const std::int64_t i : {0, 2, 4}) EXPECT_EQ(back.get(i, j), x.get(i, j));
    for (const std::int64_t i : {1, 3}) EXPECT_EQ(back.get(i, j), 0);
  }
}

TEST(ReferenceRows, EmbedWidensTheTable) {
  const HostTensor table = random_tensor(DType::kBF16, 4, 3, 1);
  HostTensor out(kF64, 2, 3);
  ops->embed(std::vector<std::int32_t>{3, 1}, table, out);
  for (std::int64_t j = 0; j < 3; ++j) {
    EXPECT_EQ(out.get(0, j), table.get(3, j));
    EXPECT_EQ(out.get(1, j), table.get(1, j));
  }
}

TEST(ReferenceOps, RefuseElementTypesOutsideTheContract) {
  const HostTensor x = random_tensor(DType::kF32, 1, 4, 1);
  const HostTensor y(kF64, 1, 4);
  const auto weight = random_floats(4, 2);
  EXPECT_ANY_THROW(ops->rms_norm(x, weight.data(), 1e-5, y));
}

}  // namespace
}  // namespace lomu::test
