// The production operations against the specification, over odd shapes, strides, precisions and thread counts.
// Tolerances are relative in norm. In f32 an element of a dot product of n terms errs by about sqrt(n) 2^-24 of its
// typical size; the shapes below have n < 1000, so 2e-6 leaves room for one more such factor. In bf16 one rounding errs
// by up to 2^-9 (root mean square 2^-9 / sqrt(3) = 1.1e-3) and an operation may round inputs, factors and intermediate
// results once each: 1e-2.
#include <gtest/gtest.h>

#include <cstring>

#include "kernels/error.h"
#include "kernels/ops.h"
#include "tests/kernels/host_tensor.h"
#include "tests/kernels/linear_case.h"

namespace lomu::test {
namespace {

struct Setting {
  Precision precision;
  int threads;
};

void PrintTo(const Setting& s, std::ostream* os) {
  *os << name_of(s.precision.activation) << " x " << s.threads;
}

class CpuOps : public testing::TestWithParam<Setting> {
 protected:
  void SetUp() override {
    if (precision() == kBF16Precision && !cpu_has_fast_bf16()) GTEST_SKIP() << "this CPU has no bf16 products";
    cpu_ = make_cpu_ops(precision(), GetParam().threads, memory_);
    reference_ = make_reference_ops(precision());
  }

  [[nodiscard]] Precision precision() const { return GetParam().precision; }
  [[nodiscard]] DType activation() const { return precision().activation; }
  [[nodiscard]] DType residual() const { return precision().residual; }
  [[nodiscard]] double tolerance() const { return activation() == DType::kBF16 ? 1e-2 : 2e-6; }

  void expect_close(const HostTensor& got, const HostTensor& expected, const char* what) const {
    EXPECT_LE(relative_error(got, expected), tolerance()) << what;
  }

  Memory memory_;
  std::unique_ptr<Ops> cpu_;
  std::unique_ptr<Ops> reference_;
};

constexpr std::int64_t kTokenCounts[] = {0, 1, 2, 7, 64, 65, 130};

const LinearShape kLinearShapes[] = {
    {64, {64}, {0}},
    {48, {40}, {8}},
    {37, {29}, {3}, true},
    {96, {72, 24, 24}, {16, 0, 5}, true},
    {65, {130, 130}, {1, 64}},
    {192, {64, 8, 8}, {4, 16, 2}, false, 0.3F},
    {100, {1, 257}, {2, 7}, true, 0.5F},
};

TEST_P(CpuOps, LinearForwardIsEquivalentToReference) {
  for (const LinearShape& shape : kLinearShapes) {
    LinearCase on_cpu(shape, *cpu_);
    LinearCase on_reference(shape, *reference_);
    const std::int64_t out = on_cpu.linear.frozen.out();
    const std::int64_t rank = on_cpu.linear.total_rank();
    for (const std::int64_t tokens : kTokenCounts) {
      SCOPED_TRACE(testing::Message() << tokens << " tokens, " << shape.in << " -> " << out);
      const HostTensor x = random_tensor(activation(), tokens, shape.in, 1, 3);
      HostTensor s(activation(), tokens, rank);
      HostTensor s_expected(activation(), tokens, rank);

      HostTensor y(activation(), tokens, out, 5);
      HostTensor expected(activation(), tokens, out);
      cpu_->linear_forward(on_cpu.linear, x, {}, y, s);
      reference_->linear_forward(on_reference.linear, x, {}, expected, s_expected);
      expect_close(y, expected, "y");
      expect_close(s, s_expected, "s");

      const HostTensor stream = random_tensor(residual(), tokens, out, 2);
      HostTensor sum(residual(), tokens, out);
      HostTensor sum_expected(residual(), tokens, out);
      HostTensor in_place = stream;
      cpu_->linear_forward(on_cpu.linear, x, stream, sum, s);
      cpu_->linear_forward(on_cpu.linear, x, in_place, in_place, s);
      reference_->linear_forward(on_reference.linear, x, stream, sum_expected, s_expected);
      expect_close(sum, sum_expected, "residual + y");
      EXPECT_EQ(relative_error(in_place, sum), 0) << "in place";

      HostTensor wide(residual(), tokens, out);
      HostTensor wide_expected(residual(), tokens, out);
      cpu_->linear_forward(on_cpu.linear, x, {}, wide, s);
      reference_->linear_forward(on_reference.linear, x, {}, wide_expected, s_expected);
      expect_close(wide, wide_expected, "y in the residual's type");
    }
  }
}

TEST_P(CpuOps, LinearBackwardIsEquivalentToReference) {
  for (const LinearShape& shape : kLinearShapes) {
    LinearCase on_cpu(shape, *cpu_);
    LinearCase on_reference(shape, *reference_);
    const std::int64_t out = on_cpu.linear.frozen.out();
    const std::int64_t rank = on_cpu.linear.total_rank();
    for (const std::int64_t tokens : kTokenCounts) {
      for (const DType dy_type : {activation(), residual()}) {
        SCOPED_TRACE(testing::Message() << tokens << " tokens, " << shape.in << " -> " << out << ", dy "
                                        << name_of(dy_type));
        const HostTensor x = random_tensor(activation(), tokens, shape.in, 1, 3);
        const HostTensor dy = random_tensor(dy_type, tokens, out, 2, 1);
        HostTensor y(activation(), tokens, out);
        HostTensor s(activation(), tokens, rank);
        reference_->linear_forward(on_reference.linear, x, {}, y, s);
        HostTensor dx(activation(), tokens, shape.in, 2);
        HostTensor dx_expected(activation(), tokens, shape.in);
        reference_->linear_backward(on_reference.linear, x, s, dy, dx_expected);
        const auto expect_gradients = [&](const char* when) {
          for (std::size_t part = 0; part < shape.outs.size(); ++part) {
            EXPECT_LE(relative_error(on_cpu.grad_a[part], on_reference.grad_a[part]), tolerance()) << "grad_a " << when;
            EXPECT_LE(relative_error(on_cpu.grad_b[part], on_reference.grad_b[part]), tolerance()) << "grad_b " << when;
          }
        };
        cpu_->linear_backward(on_cpu.linear, x, s, dy, dx);
        expect_close(dx, dx_expected, "dx");
        expect_gradients("with dx");
        cpu_->linear_backward(on_cpu.linear, x, s, dy, {});
        expect_gradients("without dx");
      }
    }
  }
}

TEST_P(CpuOps, RepackedFactorsAreUsed) {
  LinearCase on_cpu(kLinearShapes[1], *cpu_);
  LinearCase on_reference(kLinearShapes[1], *reference_);
  for (LinearCase* c : {&on_cpu, &on_reference}) {
    for (float& value : c->a[0]) value *= -3;
    for (float& value : c->b[0]) value += 1;
  }
  cpu_->pack_adapters(on_cpu.linear);
  reference_->pack_adapters(on_reference.linear);
  const HostTensor x = random_tensor(activation(), 5, 48, 1);
  HostTensor s(activation(), 5, 8);
  HostTensor y(activation(), 5, 40);
  HostTensor expected(activation(), 5, 40);
  cpu_->linear_forward(on_cpu.linear, x, {}, y, s);
  reference_->linear_forward(on_reference.linear, x, {}, expected, s);
  expect_close(y, expected, "y");
}

TEST_P(CpuOps, NormsAreEquivalentToReference) {
  for (const std::int64_t tokens : kTokenCounts) {
    for (const std::int64_t n : {1, 16, 37, 576}) {
      SCOPED_TRACE(testing::Message() << tokens << " x " << n);
      const auto weight = random_floats(n, 3, 0.5, 1);
      const HostTensor x = random_tensor(residual(), tokens, n, 1, 2);
      const HostTensor dy = random_tensor(activation(), tokens, n, 2, 1);
      HostTensor y(activation(), tokens, n);
      HostTensor expected(activation(), tokens, n);
      cpu_->rms_norm(x, weight.data(), 1e-5, y);
      reference_->rms_norm(x, weight.data(), 1e-5, expected);
      expect_close(y, expected, "rms_norm");
      HostTensor dx = random_tensor(residual(), tokens, n, 4);
      HostTensor dx_expected = dx;
      cpu_->rms_norm_backward(dy, x, weight.data(), 1e-5, dx);
      reference_->rms_norm_backward(dy, x, weight.data(), 1e-5, dx_expected);
      expect_close(dx, dx_expected, "rms_norm_backward");
    }
    for (const auto& [heads, size] : {std::pair<int, int>{1, 6}, {3, 64}, {5, 20}}) {
      SCOPED_TRACE(testing::Message() << tokens << " x " << heads << " heads of " << size);
      const auto weight = random_floats(size, 3, 0.5, 1);
      const HostTensor x = random_tensor(activation(), tokens, heads * size, 1, 7);
      HostTensor y = x;
      HostTensor expected(activation(), tokens, heads * size);
      cpu_->head_norm(y, weight.data(), 1e-6, heads, y);
      reference_->head_norm(x, weight.data(), 1e-6, heads, expected);
      expect_close(y, expected, "head_norm");
      HostTensor dx = random_tensor(activation(), tokens, heads * size, 2, 3);
      HostTensor dx_expected = dx;
      cpu_->head_norm_backward(x, weight.data(), 1e-6, heads, dx);
      reference_->head_norm_backward(x, weight.data(), 1e-6, heads, dx_expected);
      expect_close(dx, dx_expected, "head_norm_backward");
    }
  }
}

TEST_P(CpuOps, RopeIsEquivalentToReference) {
  for (const std::int64_t half : {1, 8, 13, 32}) {
    HostTensor cos(DType::kF32, 50, half);
    HostTensor sin(DType::kF32, 50, half);
    for (std::int64_t p = 0; p < 50; ++p) {
      for (std::int64_t i = 0; i < half; ++i) {
        cos.set(p, i, std::cos(static_cast<double>(p) / static_cast<double>(1 + i)));
        sin.set(p, i, std::sin(static_cast<double>(p) / static_cast<double>(1 + i)));
      }
    }
    for (const std::int64_t tokens : kTokenCounts) {
      std::vector<std::int32_t> positions;
      for (std::int64_t t = 0; t < tokens; ++t) positions.push_back(static_cast<std::int32_t>((t * 7) % 50));
      for (const bool inverse : {false, true}) {
        HostTensor x = random_tensor(activation(), tokens, 3 * 2 * half, 1, 4);
        HostTensor expected = x;
        cpu_->rope(x, positions, 3, cos, sin, inverse);
        reference_->rope(expected, positions, 3, cos, sin, inverse);
        expect_close(x, expected, "rope");
      }
    }
  }
}

struct AttentionCase {
  AttentionShape shape;
  std::vector<std::int64_t> lengths;
};

std::vector<AttentionCase> attention_cases() {
  std::vector<AttentionCase> cases;
  for (const std::int64_t window : {0, 1, 5, 64, 1000}) {
    cases.push_back({{3, 1, 16, 0.25, window}, {7}});
    cases.push_back({{4, 2, 64, 0.125, window}, {1, 65, 3, 130}});
    cases.push_back({{9, 3, 20, 0.3, window}, {64, 2, 200}});
    cases.push_back({{2, 2, 80, 0.11, window}, {33, 128}});
  }
  cases.push_back({{2, 1, 128, 0.09, 0}, {300}});
  cases.push_back({{2, 1, 8, 0.3, 0}, {}});
  return cases;
}

TEST_P(CpuOps, AttentionIsEquivalentToReferenceForwardAndBackward) {
  for (const auto& [shape, lengths] : attention_cases()) {
    std::vector<SequenceSpan> sequences;
    std::int64_t tokens = 0;
    for (const std::int64_t n : lengths) {
      sequences.push_back({tokens, n, tokens, n});
      tokens += n;
    }
    SCOPED_TRACE(testing::Message() << tokens << " tokens, " << shape.heads << "/" << shape.kv_heads << " heads of "
                                    << shape.head_dim << ", window " << shape.window);
    const std::int64_t q_size = shape.heads * shape.head_dim;
    const std::int64_t kv_size = shape.kv_heads * shape.head_dim;
    const HostTensor qkv = random_tensor(activation(), tokens, q_size + 2 * kv_size, 1);
    const Tensor q = qkv.view().columns(0, q_size);
    const Tensor k = qkv.view().columns(q_size, kv_size);
    const Tensor v = qkv.view().columns(q_size + kv_size, kv_size);
    HostTensor out(activation(), tokens, q_size, 3);
    HostTensor expected(activation(), tokens, q_size);
    HostTensor lse(DType::kF32, tokens, shape.heads);
    HostTensor lse_expected(DType::kF32, tokens, shape.heads);
    cpu_->attention(shape, sequences, q, k, v, out, lse);
    reference_->attention(shape, sequences, q, k, v, expected, lse_expected);
    expect_close(out, expected, "out");
    expect_close(lse, lse_expected, "lse");

    const HostTensor dout = random_tensor(activation(), tokens, q_size, 2);
    HostTensor dqkv(activation(), tokens, q_size + 2 * kv_size);
    HostTensor dqkv_expected(activation(), tokens, q_size + 2 * kv_size);
    for (const auto& [ops, d] : {std::pair{cpu_.get(), dqkv.view()}, {reference_.get(), dqkv_expected.view()}}) {
      ops->attention_backward(shape, sequences, q, k, v, out, lse, dout, d.columns(0, q_size),
                              d.columns(q_size, kv_size), d.columns(q_size + kv_size, kv_size));
    }
    expect_close(dqkv, dqkv_expected, "dq, dk, dv");
  }
}

TEST_P(CpuOps, AttentionOverACacheIsEquivalentToReference) {
  for (const std::int64_t window : {0, 3, 40}) {
    const AttentionShape shape{6, 2, 32, 0.17, window};
    const std::vector<SequenceSpan> sequences = {{0, 1, 0, 90}, {1, 4, 100, 4}, {5, 66, 200, 150}, {71, 1, 399, 1}};
    const HostTensor q = random_tensor(activation(), 72, 192, 1);
    const HostTensor k = random_tensor(activation(), 400, 64, 2, 64);
    const HostTensor v = random_tensor(activation(), 400, 64, 3, 64);
    HostTensor out(activation(), 72, 192);
    HostTensor expected(activation(), 72, 192);
    cpu_->attention(shape, sequences, q, k, v, out, {});
    reference_->attention(shape, sequences, q, k, v, expected, {});
    expect_close(out, expected, "out");
  }
}

TEST_P(CpuOps, SwigluIsEquivalentToReference) {
  for (const std::int64_t tokens : kTokenCounts) {
    for (const std::int64_t f : {1, 24, 37, 1536}) {
      SCOPED_TRACE(testing::Message() << tokens << " x " << f);
      HostTensor gate_up(activation(), tokens, 2 * f);
      for (std::int64_t t = 0; t < tokens; ++t) {
        for (std::int64_t j = 0; j < 2 * f; ++j) {
          gate_up.set(t, j, 12 * random_value(1, static_cast<std::uint64_t>(t * 2 * f + j)));
        }
      }
      HostTensor h(activation(), tokens, f, 1);
      HostTensor expected(activation(), tokens, f);
      cpu_->swiglu(gate_up, h);
      reference_->swiglu(gate_up, expected);
      expect_close(h, expected, "h");
      const HostTensor dh = random_tensor(activation(), tokens, f, 2);
      HostTensor dx = gate_up;
      HostTensor dx_expected = gate_up;
      cpu_->swiglu_backward(dh, dx, dx);
      reference_->swiglu_backward(dh, dx_expected, dx_expected);
      expect_close(dx, dx_expected, "d gate|up");
    }
  }
}

TEST_P(CpuOps, CrossEntropyIsEquivalentToReference) {
  for (const auto& [hidden, vocab] : {std::pair<int, int>{64, 300}, {37, 101}, {48, 5000}}) {
    const LinearShape shape{hidden, {vocab}, {0}};
    LinearCase on_cpu(shape, *cpu_);
    LinearCase on_reference(shape, *reference_);
    for (const std::int64_t rows : kTokenCounts) {
      SCOPED_TRACE(testing::Message() << rows << " x " << hidden << ", " << vocab << " words");
      const HostTensor x = random_tensor(activation(), rows, hidden, 1);
      std::vector<std::int32_t> targets;
      for (std::int64_t i = 0; i < rows; ++i) targets.push_back(static_cast<std::int32_t>((i * 31) % vocab));
      if (rows > 1) targets[1] = vocab - 1;
      HostTensor losses(DType::kF32, 1, rows);
      HostTensor expected(DType::kF32, 1, rows);
      HostTensor dx(activation(), rows, hidden);
      HostTensor dx_expected(activation(), rows, hidden);
      cpu_->cross_entropy(on_cpu.linear.frozen, x, targets, 0.01, losses, dx, {});
      reference_->cross_entropy(on_reference.linear.frozen, x, targets, 0.01, expected, dx_expected, {});
      expect_close(losses, expected, "losses");
      expect_close(dx, dx_expected, "dx");
      HostTensor again(DType::kF32, 1, rows);
      cpu_->cross_entropy(on_cpu.linear.frozen, x, targets, 0.01, again, {}, {});
      expect_close(again, expected, "losses without dx");
    }
  }
}

TEST_P(CpuOps, RowsAreCopiedExactly) {
  const HostTensor table = random_tensor(activation(), 9, 37, 1);
  const std::vector<std::int32_t> ids = {8, 0, 0, 5};
  HostTensor out(residual(), 4, 37);
  HostTensor expected(residual(), 4, 37);
  cpu_->embed(ids, table, out);
  reference_->embed(ids, table, expected);
  EXPECT_EQ(relative_error(out, expected), 0);
  for (const DType dtype : {activation(), residual()}) {
    const HostTensor x = random_tensor(dtype, 70, 37, 2, 3);
    const std::vector<std::int32_t> rows = {69, 3, 4, 0};
    HostTensor y(dtype, 4, 37, 1);
    HostTensor y_expected(dtype, 4, 37);
    cpu_->gather_rows(x, rows, y);
    reference_->gather_rows(x, rows, y_expected);
    EXPECT_EQ(relative_error(y, y_expected), 0);
    HostTensor back(dtype, 70, 37, 2);
    HostTensor back_expected(dtype, 70, 37);
    cpu_->scatter_rows(y, rows, back);
    reference_->scatter_rows(y, rows, back_expected);
    EXPECT_EQ(relative_error(back, back_expected), 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Settings, CpuOps,
                         testing::Values(Setting{kF32Precision, 1}, Setting{kF32Precision, 3},
                                         Setting{kBF16Precision, 1}, Setting{kBF16Precision, 3}));

}  // namespace
}  // namespace lomu::test
