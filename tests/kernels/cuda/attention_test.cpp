// Both paths of the attention kernels against the reference, in emulation.
//
// Tolerances are relative in norm. bf16: results are rounded once, 2^-9 of an element, and the weights and score
// gradients on the way as well: 3e-3 was seen. float32: sums of up to 140 terms and 250 features; 5e-7 was seen.
#include "kernels/cuda/attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "kernels/cuda/emulation/schedule.h"
#include "kernels/error.h"
#include "tests/kernels/host_tensor.h"

namespace lomu::cuda {
namespace {

using test::HostTensor;
using test::random_tensor;
using test::relative_error;

template <class T>
constexpr DType kType = std::is_same_v<T, BF16> ? DType::kBF16 : DType::kF32;
template <class T>
constexpr double kTolerance = std::is_same_v<T, BF16> ? 5e-3 : 2e-6;

template <class T>
DeviceRows<T> rows_of(const Tensor& t) {
  return {t.as<T>(), t.ld};
}

/// A training batch: q, k, v beside each other in one matrix, and everything that comes out of it.
template <class T>
struct Batch {
  AttentionShape shape;
  std::vector<SequenceSpan> sequences;
  std::int64_t tokens;
  HostTensor qkv, dout, out, lse, dqkv;

  Batch(const AttentionShape& s, std::vector<SequenceSpan> spans, std::int64_t token_count)
      : shape(s),
        sequences(std::move(spans)),
        tokens(token_count),
        qkv(random_tensor(kType<T>, tokens, (s.heads + 2 * s.kv_heads) * s.head_dim, 1, 8)),
        dout(random_tensor(kType<T>, tokens, s.heads * s.head_dim, 2)),
        out(kType<T>, tokens, s.heads * s.head_dim, 16),
        lse(DType::kF32, tokens, s.heads, 3),
        dqkv(kType<T>, tokens, (s.heads + 2 * s.kv_heads) * s.head_dim, 8) {}

  [[nodiscard]] Tensor q(const HostTensor& m) const { return m.view().columns(0, shape.heads * shape.head_dim); }
  [[nodiscard]] Tensor k(const HostTensor& m) const {
    return m.view().columns(shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
  }
  [[nodiscard]] Tensor v(const HostTensor& m) const {
    return m.view().columns((shape.heads + shape.kv_heads) * shape.head_dim, shape.kv_heads * shape.head_dim);
  }

  void run() {
    const AttentionPath path = attention_path(kType<T>, shape.head_dim);
    const AttentionPlan plan = plan_attention(path, sequences, tokens, tokens, shape.window, true);
    const DeviceRows<const T> queries = rows_of<T>(q(qkv)), keys = rows_of<T>(k(qkv)), values = rows_of<T>(v(qkv));
    attention<T>(shape, plan, plan.tiles.data(), queries, keys, values, rows_of<T>(out), rows_of<float>(lse), nullptr);
    std::vector<float> workspace(attention_backward_bytes(shape.heads, tokens) / sizeof(float),
                                 std::numeric_limits<float>::quiet_NaN());
    attention_backward<T>(shape, plan, plan.tiles.data(), queries, keys, values, rows_of<T>(out), rows_of<float>(lse),
                          rows_of<T>(dout), rows_of<T>(q(dqkv)), rows_of<T>(k(dqkv)), rows_of<T>(v(dqkv)),
                          workspace.data(), nullptr);
  }

  void expect_equivalent_to_reference() {
    const auto ops = make_reference_ops(std::is_same_v<T, BF16> ? kBF16Precision : kF32Precision);
    HostTensor want_out(kType<T>, tokens, shape.heads * shape.head_dim);
    HostTensor want_lse(DType::kF32, tokens, shape.heads);
    HostTensor want(kType<T>, tokens, (shape.heads + 2 * shape.kv_heads) * shape.head_dim);
    ops->attention(shape, sequences, q(qkv), k(qkv), v(qkv), want_out, want_lse);
    ops->attention_backward(shape, sequences, q(qkv), k(qkv), v(qkv), want_out, want_lse, dout, q(want), k(want),
                            v(want));
    EXPECT_LE(relative_error(out, want_out), kTolerance<T>) << "out";
    EXPECT_LE(relative_error(lse, want_lse), 2e-6) << "lse";
    const auto expect_part = [&](const char* name, const Tensor& got, const Tensor& expected) {
      HostTensor a(DType::kF64, got.rows, got.cols), b(DType::kF64, got.rows, got.cols);
      for (std::int64_t i = 0; i < got.rows; ++i) {
        for (std::int64_t j = 0; j < got.cols; ++j) {
          a.set(i, j, static_cast<double>(static_cast<float>(got.row<T>(i)[j])));
          b.set(i, j, static_cast<double>(static_cast<float>(expected.row<T>(i)[j])));
        }
      }
      EXPECT_LE(relative_error(a, b), kTolerance<T>) << name;
    };
    expect_part("dq", q(dqkv), q(want));
    expect_part("dk", k(dqkv), k(want));
    expect_part("dv", v(dqkv), v(want));
  }
};

/// Documents one after another, as in packed training.
std::vector<SequenceSpan> packed(const std::vector<std::int64_t>& lengths) {
  std::vector<SequenceSpan> spans;
  std::int64_t at = 0;
  for (const std::int64_t n : lengths) {
    spans.push_back({at, n, at, n});
    at += n;
  }
  return spans;
}
template <class T>
Batch<T> packed_batch(const AttentionShape& shape, const std::vector<std::int64_t>& lengths) {
  std::int64_t tokens = 0;
  for (const std::int64_t n : lengths) tokens += n;
  return Batch<T>(shape, packed(lengths), tokens);
}
AttentionShape shape_of(std::int64_t heads, std::int64_t kv_heads, std::int64_t head_dim, std::int64_t window = 0) {
  return {heads, kv_heads, head_dim, 1.5 / std::sqrt(static_cast<double>(head_dim)), window};
}

template <class T>
class CudaAttention : public testing::Test {};
using Types = testing::Types<BF16, float>;
class TypeNames {
 public:
  template <class T>
  static std::string GetName(int) {
    return std::string(name_of(kType<T>));
  }
};
TYPED_TEST_SUITE(CudaAttention, Types, TypeNames);

TYPED_TEST(CudaAttention, IsEquivalentToReferenceForwardAndBackward) {
  const auto check = [](const AttentionShape& shape, const std::vector<std::int64_t>& lengths) {
    SCOPED_TRACE(testing::Message() << shape.heads << "/" << shape.kv_heads << " heads of " << shape.head_dim
                                    << ", window " << shape.window);
    auto batch = packed_batch<TypeParam>(shape, lengths);
    batch.run();
    batch.expect_equivalent_to_reference();
  };
  check(shape_of(3, 1, 64), {1, 2, 31, 64, 65, 100});
  check(shape_of(2, 2, 80), {33, 70});
  check(shape_of(2, 1, 96), {1, 97});
  check(shape_of(2, 1, 128), {130, 3});
  check(shape_of(2, 2, 8), {40});    // padded to a compiled size
  check(shape_of(1, 1, 72), {65});   // also
  check(shape_of(2, 1, 12), {35});   // no multiple of 8: the plain path
  check(shape_of(1, 1, 250), {34});  // beyond the tensor-core path
}

TYPED_TEST(CudaAttention, SeesNoFurtherThanTheWindow) {
  for (const std::int64_t window : {1, 5, 64, 100, 1000}) {
    SCOPED_TRACE(window);
    auto batch = packed_batch<TypeParam>(shape_of(2, 1, 64, window), {140, 3});
    batch.run();
    batch.expect_equivalent_to_reference();
  }
}

TYPED_TEST(CudaAttention, LeavesZerosInRowsWithoutASequence) {
  Batch<TypeParam> batch(shape_of(2, 1, 64), {{70, 9, 70, 9}, {2, 31, 2, 31}, {33, 0, 33, 0}}, 220);
  batch.run();
  batch.expect_equivalent_to_reference();
}

TYPED_TEST(CudaAttention, OverACacheIsEquivalentToReference) {
  using T = TypeParam;
  const std::vector<SequenceSpan> sequences = {{0, 1, 0, 90}, {1, 4, 100, 4}, {5, 66, 200, 150}, {71, 1, 399, 1}};
  for (const std::int64_t window : {0, 3, 40}) {
    SCOPED_TRACE(window);
    const AttentionShape shape = shape_of(2, 1, 64, window);
    const HostTensor q = random_tensor(kType<T>, 72, 128, 1);
    const HostTensor k = random_tensor(kType<T>, 400, 64, 2, 64);
    const HostTensor v = random_tensor(kType<T>, 400, 64, 3, 64);
    HostTensor out(kType<T>, 72, 128), want(kType<T>, 72, 128);
    const AttentionPath path = attention_path(kType<T>, 64);
    const AttentionPlan plan = plan_attention(path, sequences, 72, 400, window, false);
    attention<T>(shape, plan, plan.tiles.data(), rows_of<const T>(q), rows_of<const T>(k), rows_of<const T>(v),
                 rows_of<T>(out), {}, nullptr);
    make_reference_ops(std::is_same_v<T, BF16> ? kBF16Precision : kF32Precision)
        ->attention(shape, sequences, q, k, v, want, {});
    EXPECT_LE(relative_error(out, want), kTolerance<T>);
  }
}

// The backward kernels add over query heads and tiles in a fixed order, and a batch's other sequences change nothing.
TYPED_TEST(CudaAttention, GivesTheSameBitsUnderEveryScheduleAndInEveryBatch) {
  const AttentionShape shape = shape_of(3, 1, 64, 50);  // an odd number of steps ends in the other buffer
  auto first = packed_batch<TypeParam>(shape, {67, 2});
  first.run();
  emu::for_each_schedule([&](unsigned seed) {
    SCOPED_TRACE(seed);
    auto again = packed_batch<TypeParam>(shape, {67, 2});
    again.run();
    EXPECT_EQ(first.out.bytes(), again.out.bytes());
    EXPECT_EQ(first.lse.bytes(), again.lse.bytes());
    EXPECT_EQ(first.dqkv.bytes(), again.dqkv.bytes());
  });
  auto alone = packed_batch<TypeParam>(shape, {67});
  alone.run();
  for (std::int64_t i = 0; i < 67; ++i) {
    for (std::int64_t j = 0; j < 5 * 64; ++j) {
      ASSERT_EQ(first.dqkv.get(i, j), alone.dqkv.get(i, j)) << "row " << i << ", column " << j;
    }
  }
}

// Scores in the thousands: weights are 0 or 1 and the gradients of scores vanish, so only the result has digits.
TEST(CudaAttention, KeepsLargeScoresFinite) {
  auto batch = packed_batch<BF16>({1, 1, 64, 500.0, 0}, {66});
  batch.run();
  HostTensor out(DType::kBF16, 66, 64), lse(DType::kF32, 66, 1);
  make_reference_ops(kBF16Precision)
      ->attention(batch.shape, batch.sequences, batch.q(batch.qkv), batch.k(batch.qkv), batch.v(batch.qkv), out, lse);
  EXPECT_LE(relative_error(batch.out, out), kTolerance<BF16>);
  EXPECT_LE(relative_error(batch.lse, lse), 2e-6);
  for (std::int64_t i = 0; i < 66; ++i) {
    for (std::int64_t j = 0; j < 3 * 64; ++j) ASSERT_TRUE(std::isfinite(batch.dqkv.get(i, j)));
  }
}

TEST(CudaAttention, NaNStaysNaN) {
  auto batch = packed_batch<BF16>(shape_of(1, 1, 64), {20, 20});
  batch.qkv.set(7, 3, std::numeric_limits<double>::quiet_NaN());
  batch.run();
  EXPECT_TRUE(std::isnan(batch.out.get(7, 0)));
  EXPECT_TRUE(std::isnan(batch.lse.get(7, 0)));
  EXPECT_FALSE(std::isnan(batch.out.get(6, 0))) << "an earlier token";
  EXPECT_FALSE(std::isnan(batch.dqkv.get(20, 0))) << "another document";
}

TEST(CudaAttention, AnEmptyBatchLaunchesNothing) {
  auto batch = packed_batch<BF16>(shape_of(1, 1, 64), {});
  batch.run();
}

TEST(CudaAttention, PlansTheLongestTilesFirst) {
  const AttentionPlan plan = plan_attention(AttentionPath::kTensorCores, packed({70, 300, 1}), 371, 371, 0, true);
  EXPECT_EQ(plan.forward, 1u + 3u + 1u);
  EXPECT_EQ(plan.queries, 2u + 5u + 1u);
  EXPECT_EQ(plan.keys, 2u + 5u + 1u);
  ASSERT_EQ(plan.tiles.size(), plan.forward + plan.queries + plan.keys);
  EXPECT_EQ(plan.tiles[0].query_begin, 70);
  EXPECT_EQ(plan.tiles[0].first, 256);
  EXPECT_EQ(plan.tiles[0].positions, 300);
  EXPECT_EQ(plan.tiles[plan.forward + plan.queries].first, 0);
  EXPECT_EQ(plan.tiles[plan.forward + plan.queries].positions, 300);
}

TEST(CudaAttention, RefusesWhatItCannotDo) {
  EXPECT_THROW(attention_path(DType::kBF16, 257), UnsupportedError);
  EXPECT_THROW(attention_path(DType::kF64, 64), UnsupportedError);
  const auto plan = [](SequenceSpan a, SequenceSpan b, bool backward) {
    const std::vector<SequenceSpan> spans = {a, b};
    return plan_attention(AttentionPath::kPlain, spans, 10, 20, 0, backward);
  };
  EXPECT_NO_THROW(plan({0, 5, 0, 5}, {5, 5, 5, 15}, false));
  EXPECT_THROW(plan({0, 5, 0, 5}, {4, 5, 5, 5}, false), Error) << "query rows twice";
  EXPECT_THROW(plan({0, 5, 0, 4}, {5, 5, 5, 5}, false), Error) << "more queries than keys";
  EXPECT_THROW(plan({0, 5, 0, 5}, {5, 6, 5, 6}, false), Error) << "beyond the queries";
  EXPECT_THROW(plan({0, 5, 16, 5}, {5, 5, 5, 5}, false), Error) << "beyond the keys";
  EXPECT_THROW(plan({0, 5, 0, 5}, {5, 5, 5, 15}, true), Error) << "a cache has no backward pass";
  EXPECT_THROW(plan({-1, 5, 0, 5}, {5, 5, 5, 5}, false), Error);

  const AttentionShape shape = shape_of(1, 1, 64);
  const std::vector<SequenceSpan> one = packed({4});
  const AttentionPlan good = plan_attention(AttentionPath::kTensorCores, one, 4, 4, 0, false);
  HostTensor x(DType::kBF16, 4, 64, 8);
  const DeviceRows<BF16> rows = rows_of<BF16>(x), shifted = {rows.data + 1, rows.ld};
  const auto run = [&](const AttentionShape& s, DeviceRows<BF16> q, const AttentionPlan& p) {
    attention<BF16>(s, p, p.tiles.data(), q, rows, rows, rows, {}, nullptr);
  };
  EXPECT_THROW(run(shape, shifted, good), Error) << "alignment";
  EXPECT_THROW(run(shape_of(1, 1, 64, 3), rows, good), Error) << "another window";
  EXPECT_THROW(run(shape_of(1, 1, 20), rows, good), Error) << "another path";
  EXPECT_THROW(run(shape_of(3, 2, 64), rows, good), Error) << "heads";
  EXPECT_THROW(run(AttentionShape{1, 1, 64, 0, 0}, rows, good), Error) << "scale";
}

}  // namespace
}  // namespace lomu::cuda
