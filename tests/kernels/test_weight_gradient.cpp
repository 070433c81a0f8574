// Gradients of weights trained in full, and layers without a base, against the specification; the same bits on any
// number of threads. Tolerances: as in test_cpu_ops.cpp.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "kernels/error.h"
#include "kernels/ops.h"
#include "tests/kernels/host_tensor.h"
#include "tests/kernels/linear_case.h"

namespace lomu::test {
namespace {

class WeightGradient : public testing::TestWithParam<Precision> {
 protected:
  void SetUp() override {
    if (GetParam() == kBF16Precision && !cpu_has_fast_bf16()) GTEST_SKIP() << "this CPU has no bf16 products";
    cpu_ = make_cpu_ops(GetParam(), 1, memory_);
    threaded_ = make_cpu_ops(GetParam(), 3, memory_);
    reference_ = make_reference_ops(GetParam());
  }
  [[nodiscard]] DType activation() const { return GetParam().activation; }
  [[nodiscard]] double tolerance() const { return activation() == DType::kBF16 ? 1e-2 : 2e-6; }

  /// Runs on all three backends; `run` returns what it computed.
  template <class Run>
  void compare(const Run& run) const {
    const HostTensor expected = run(*reference_);
    const HostTensor got = run(*cpu_);
    EXPECT_LE(relative_error(got, expected), tolerance());
    const HostTensor threaded = run(*threaded_);
    EXPECT_TRUE(std::ranges::equal(got.bytes(), threaded.bytes())) << "another number of threads";
  }

  Memory memory_;
  std::unique_ptr<Ops> cpu_, threaded_, reference_;
};

TEST_P(WeightGradient, OfAMatrixIsTheSumOverTokens) {
  for (const auto& [in, out] : {std::pair<int, int>{1, 1}, {37, 29}, {128, 64}, {300, 65}, {64, 200}}) {
    for (const std::int64_t tokens : {0, 1, 2, 7, 130}) {
      for (const DType dy_type : {activation(), GetParam().residual}) {
        SCOPED_TRACE(testing::Message() << tokens << " tokens, " << in << " -> " << out << ", dy " << name_of(dy_type));
        const HostTensor x = random_tensor(activation(), tokens, in, 1, 3);
        const HostTensor dy = random_tensor(dy_type, tokens, out, 2, 1);
        compare([&](const Ops& ops) {
          HostTensor grad = random_tensor(DType::kF32, out, in, 3);  // what lay there before does not count
          ops.weight_gradient(x, dy, grad);
          return grad;
        });
      }
    }
  }
}

TEST_P(WeightGradient, OfTheEmbeddingIsAddedToTheRowsOfItsTokens) {
  std::vector<std::int32_t> ids;
  for (std::int32_t t = 0; t < 90; ++t) ids.push_back(t * t % 17);
  for (const std::int64_t hidden : {1, 63, 130}) {
    const HostTensor dout = random_tensor(GetParam().residual, 90, hidden, 1, 2);
    compare([&](const Ops& ops) {
      HostTensor grad = random_tensor(DType::kF32, 19, hidden, 2);
      ops.embed_backward(ids, dout, grad);
      return grad;
    });
  }
}

TEST_P(WeightGradient, OfANormIsTheSumOverTokensAndHeads) {
  for (const std::int64_t heads : {1, 3}) {
    for (const std::int64_t tokens : {0, 1, 65}) {
      const std::int64_t n = heads * 70;
      const HostTensor x = random_tensor(heads == 1 ? GetParam().residual : activation(), tokens, n, 1, 1);
      const HostTensor dy = random_tensor(activation(), tokens, n, 2);
      compare([&](const Ops& ops) {
        HostTensor grad = random_tensor(DType::kF32, 1, 70, 3);
        ops.norm_weight_gradient(dy, x, 1e-5, heads, grad);
        return grad;
      });
    }
  }
}

// By finite differences of the loss itself, which knows nothing of the formula.
TEST(WeightGradientOfTheNorm, IsTheDerivativeOfTheNorm) {
  const auto ops = make_reference_ops(kF64Precision);
  const HostTensor x = random_tensor(DType::kF64, 5, 12, 1);
  const HostTensor dy = random_tensor(DType::kF64, 5, 12, 2);
  const auto loss = [&](const std::vector<float>& weight) {
    HostTensor y(DType::kF64, 5, 12);
    ops->rms_norm(x, weight.data(), 1e-5, y);
    double sum = 0;
    for (std::int64_t i = 0; i < 5; ++i) {
      for (std::int64_t j = 0; j < 12; ++j) sum += y.get(i, j) * dy.get(i, j);
    }
    return sum;
  };
  HostTensor grad(DType::kF64, 1, 12);
  ops->norm_weight_gradient(dy, x, 1e-5, 1, grad);
  for (std::size_t j = 0; j < 12; ++j) {
    std::vector<float> more(12, 1.0f), less(12, 1.0f);
    more[j] = 1.5f;
    less[j] = 0.5f;
    // The norm is linear in its weight: the difference is exact but for rounding.
    EXPECT_NEAR(grad.get(0, static_cast<std::int64_t>(j)), loss(more) - loss(less), 1e-12);
  }
}

TEST_P(WeightGradient, OfTheHeadComesFromTheGradientOfTheLogits) {
  for (const auto& [hidden, vocab] : {std::pair<int, int>{37, 65}, {64, 1000}}) {
    for (const std::int64_t rows : {1, 130}) {
      std::vector<std::int32_t> targets;
      for (std::int64_t i = 0; i < rows; ++i) targets.push_back(static_cast<std::int32_t>((i * 31) % vocab));
      const HostTensor x = random_tensor(activation(), rows, hidden, 1);
      compare([&, hidden = hidden, vocab = vocab](const Ops& ops) {
        LinearCase head({hidden, {vocab}, {0}}, ops);
        HostTensor losses(DType::kF32, 1, rows);
        HostTensor dx(activation(), rows, hidden);
        HostTensor d_logits(activation(), rows, vocab);
        ops.cross_entropy(head.linear.frozen, x, targets, 0.25, losses, dx, d_logits);
        HostTensor grad(DType::kF32, vocab, hidden);
        ops.weight_gradient(x, d_logits, grad);
        return grad;
      });
    }
  }
}

TEST_P(WeightGradient, ALayerWithoutABaseIsItsAdapter) {
  const LinearShape shape{48, {40, 65}, {8, 3}, true};
  const HostTensor x = random_tensor(activation(), 70, 48, 1);
  const HostTensor dy = random_tensor(activation(), 70, 105, 2);
  for (const int what : {0, 1, 2}) {
    SCOPED_TRACE(what);
    compare([&](const Ops& ops) {
      LinearCase c(shape, ops);
      c.linear.frozen.zero = true;
      EXPECT_EQ(ops.frozen_bytes(c.linear.frozen), 0u);
      c.linear.frozen.storage = nullptr;
      HostTensor y(activation(), 70, 105);
      HostTensor s(activation(), 70, 11);
      HostTensor dx(activation(), 70, 48);
      ops.linear_forward(c.linear, x, {}, y, s);
      ops.linear_backward(c.linear, x, s, dy, dx);
      return what == 0 ? y : what == 1 ? dx : c.grad_a[0];
    });
  }
}

INSTANTIATE_TEST_SUITE_P(Precisions, WeightGradient, testing::Values(kF32Precision, kBF16Precision),
                         [](const auto& setting) { return std::string(name_of(setting.param.activation)); });

}  // namespace
}  // namespace lomu::test
