// What world-size-free determinism needs of the production operations: the same bits from any number of threads, and a
// token's result whoever shares its batch.
#include <gtest/gtest.h>

#include <functional>

#include "kernels/ops.h"
#include "tests/kernels/host_tensor.h"
#include "tests/kernels/linear_case.h"

namespace lomu::test {
namespace {

class CpuOpsDeterminism : public testing::TestWithParam<Precision> {
 protected:
  void SetUp() override {
    if (GetParam() == kBF16Precision && !cpu_has_fast_bf16()) GTEST_SKIP() << "this CPU has no bf16 products";
    for (const int threads : {1, 2, 3, 5}) ops_.push_back(make_cpu_ops(GetParam(), threads, memory_));
  }
  [[nodiscard]] DType activation() const { return GetParam().activation; }

  /// Runs on every thread count and expects the bytes of each result to be those of the first run.
  void expect_same_bytes(const std::function<std::vector<std::byte>(const Ops&)>& run) {
    const auto expected = run(*ops_.front());
    for (std::size_t i = 1; i < ops_.size(); ++i) EXPECT_EQ(run(*ops_[i]), expected) << "thread count " << i;
  }

  Memory memory_;
  std::vector<std::unique_ptr<Ops>> ops_;
};

void append(std::vector<std::byte>& all, const HostTensor& t) {
  all.insert(all.end(), t.bytes().begin(), t.bytes().end());
}

TEST_P(CpuOpsDeterminism, LinearHasTheSameBitsOnAnyNumberOfThreads) {
  expect_same_bytes([&](const Ops& ops) {
    LinearCase c({96, {200, 64}, {16, 3}, true, 0.1F}, ops);
    const HostTensor x = random_tensor(activation(), 301, 96, 1);
    const HostTensor dy = random_tensor(activation(), 301, 264, 2);
    HostTensor y(activation(), 301, 264);
    HostTensor s(activation(), 301, 19);
    HostTensor dx(activation(), 301, 96);
    ops.linear_forward(c.linear, x, {}, y, s);
    ops.linear_backward(c.linear, x, s, dy, dx);
    std::vector<std::byte> all;
    for (const HostTensor* t : {&y, &s, &dx, &c.grad_a[0], &c.grad_a[1], &c.grad_b[0], &c.grad_b[1]}) append(all, *t);
    return all;
  });
}

TEST_P(CpuOpsDeterminism, AttentionHasTheSameBitsOnAnyNumberOfThreads) {
  const AttentionShape shape{6, 2, 32, 0.2, 50};
  const std::vector<SequenceSpan> sequences = {{0, 130, 0, 130}, {130, 1, 130, 1}, {131, 70, 131, 70}};
  expect_same_bytes([&](const Ops& ops) {
    const HostTensor q = random_tensor(activation(), 201, 192, 1);
    const HostTensor k = random_tensor(activation(), 201, 64, 2);
    const HostTensor v = random_tensor(activation(), 201, 64, 3);
    const HostTensor dout = random_tensor(activation(), 201, 192, 4);
    HostTensor out(activation(), 201, 192);
    HostTensor lse(DType::kF32, 201, 6);
    HostTensor dq(activation(), 201, 192);
    HostTensor dk(activation(), 201, 64);
    HostTensor dv(activation(), 201, 64);
    ops.attention(shape, sequences, q, k, v, out, lse);
    ops.attention_backward(shape, sequences, q, k, v, out, lse, dout, dq, dk, dv);
    std::vector<std::byte> all;
    for (const HostTensor* t : {&out, &lse, &dq, &dk, &dv}) append(all, *t);
    return all;
  });
}

TEST_P(CpuOpsDeterminism, CrossEntropyHasTheSameBitsOnAnyNumberOfThreads) {
  expect_same_bytes([&](const Ops& ops) {
    LinearCase head({64, {3000}, {0}}, ops);
    const HostTensor x = random_tensor(activation(), 77, 64, 1);
    std::vector<std::int32_t> targets;
    for (std::int32_t i = 0; i < 77; ++i) targets.push_back((i * 97) % 3000);
    HostTensor losses(DType::kF32, 1, 77);
    HostTensor dx(activation(), 77, 64);
    ops.cross_entropy(head.linear.frozen, x, targets, 0.1, losses, dx, {});
    std::vector<std::byte> all;
    append(all, losses);
    append(all, dx);
    return all;
  });
}

TEST_P(CpuOpsDeterminism, ATokensResultIsTheSameInAnyBatch) {
  const Ops& ops = *ops_[1];
  LinearCase c({96, {200}, {8}}, ops);
  const HostTensor x = random_tensor(activation(), 150, 96, 1);
  HostTensor s(activation(), 150, 8);
  HostTensor together(activation(), 150, 200);
  ops.linear_forward(c.linear, x, {}, together, s);
  for (const auto& [first, count] : {std::pair<int, int>{0, 1}, {17, 5}, {64, 64}, {149, 1}}) {
    HostTensor alone(activation(), count, 200);
    ops.linear_forward(c.linear, x.view().row_range(first, count), {}, alone, s);
    for (std::int64_t i = 0; i < count; ++i) {
      for (std::int64_t j = 0; j < 200; ++j) ASSERT_EQ(alone.get(i, j), together.get(first + i, j)) << first + i;
    }
  }
}

TEST_P(CpuOpsDeterminism, ASequencesAttentionIsTheSameInAnyBatch) {
  const Ops& ops = *ops_[1];
  const AttentionShape shape{4, 2, 16, 0.25, 0};
  const HostTensor q = random_tensor(activation(), 140, 64, 1);
  const HostTensor k = random_tensor(activation(), 140, 32, 2);
  const HostTensor v = random_tensor(activation(), 140, 32, 3);
  HostTensor together(activation(), 140, 64);
  HostTensor alone(activation(), 140, 64);
  const std::vector<SequenceSpan> sequences = {{0, 3, 0, 3}, {3, 70, 3, 70}, {73, 67, 73, 67}};
  ops.attention(shape, sequences, q, k, v, together, {});
  for (const SequenceSpan& sequence : sequences) ops.attention(shape, std::span(&sequence, 1), q, k, v, alone, {});
  EXPECT_EQ(alone.bytes(), together.bytes());
}

INSTANTIATE_TEST_SUITE_P(Precisions, CpuOpsDeterminism, testing::Values(kF32Precision, kBF16Precision));

}  // namespace
}  // namespace lomu::test
