// Attention by the library (cuDNN) against Lomu's own kernels on the device, over odd batches: the two have nothing in
// common but their contract. Run by launch/gpu-check. Every kind of group takes cuDNN a good part of a second to
// prepare, so shapes and batches are paired rather than crossed.
//
// Tolerances are relative in norm, of two results in bf16: each is rounded once to 2^-9, and so are the weights and the
// gradients of scores on the way; our own are within 3e-3 of the specification. The log-sum-exp is float32, by
// approximate exponentials of sums in another order.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/cudnn_attention.h"
#include "kernels/philox.h"

namespace lomu::cuda {
namespace {

constexpr double kTolerance = 8e-3;
constexpr double kLseTolerance = 1e-4;

/// A matrix on the device.
struct Matrix {
  Buffer buffer;
  Tensor tensor;

  Matrix(Memory& memory, DType dtype, std::int64_t rows, std::int64_t cols)
      : buffer(memory.allocate(Scope::kActivations, static_cast<std::size_t>(rows * cols) * size_of(dtype), "matrix")),
        tensor(buffer.data(), dtype, rows, cols) {}

  /// NaN in every type: what an operation leaves out shows.
  void unset(Storage& storage) {
    const std::vector<std::byte> bytes(buffer.size(), std::byte{0xff});
    storage.upload(buffer.data(), bytes.data(), bytes.size());
  }
  [[nodiscard]] std::vector<std::byte> bytes(Storage& storage) const {
    std::vector<std::byte> result(buffer.size());
    storage.download(result.data(), buffer.data(), result.size());
    return result;
  }
  [[nodiscard]] std::vector<float> values(Storage& storage) const {
    const std::vector<std::byte> raw = bytes(storage);
    const auto count = static_cast<std::size_t>(tensor.rows * tensor.cols);
    if (tensor.dtype == DType::kF32) {
      const auto* numbers = reinterpret_cast<const float*>(raw.data());
      return {numbers, numbers + count};
    }
    const auto* numbers = reinterpret_cast<const BF16*>(raw.data());
    std::vector<float> result;
    for (std::size_t i = 0; i < count; ++i) result.push_back(static_cast<float>(numbers[i]));
    return result;
  }
};

Matrix random_matrix(Memory& memory, std::int64_t rows, std::int64_t cols, std::uint64_t stream) {
  Matrix matrix(memory, DType::kBF16, rows, cols);
  const Philox random(3, Purpose::kTest);
  std::vector<BF16> numbers;
  for (std::int64_t i = 0; i < rows * cols; ++i) {
    const auto bits = random.bits(stream, static_cast<std::uint64_t>(i)) % 4096;
    numbers.push_back(BF16(static_cast<float>(bits) / 1024.0f - 2.0f));
  }
  memory.storage().upload(matrix.buffer.data(), numbers.data(), numbers.size() * sizeof(BF16));
  return matrix;
}

/// norm(a - b) / norm(b); NaN if anything is.
double relative_error(std::span<const float> a, std::span<const float> b) {
  double difference = 0;
  double norm = 0;
  for (std::size_t i = 0; i < b.size(); ++i) {
    difference += std::pow(static_cast<double>(a[i]) - b[i], 2);
    norm += std::pow(static_cast<double>(b[i]), 2);
  }
  return std::sqrt(difference / std::max(norm, 1e-300));
}

struct Shape {
  std::int64_t heads, kv_heads, head_dim, window;
};

/// Inputs, and the results of one implementation.
class Batch {
 public:
  Batch(Memory& memory, const Shape& s, const std::vector<std::int64_t>& lengths)
      : shape_{s.heads, s.kv_heads, s.head_dim, 1 / std::sqrt(static_cast<double>(s.head_dim)), s.window},
        rows_(std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0})),
        qkv_(random_matrix(memory, rows_, (s.heads + 2 * s.kv_heads) * s.head_dim, 1)),
        dout_(random_matrix(memory, rows_, s.heads * s.head_dim, 2)),
        out(memory, DType::kBF16, rows_, s.heads * s.head_dim),
        lse(memory, DType::kF32, rows_, s.heads),
        dqkv(memory, DType::kBF16, rows_, qkv_.tensor.cols) {
    std::int64_t at = 0;
    for (const std::int64_t n : lengths) {
      spans_.push_back({at, n, at, n});
      at += n;
    }
  }

  void forward(const Ops& ops) {
    out.unset(ops.storage());
    lse.unset(ops.storage());
    ops.attention(shape_, spans_, part(qkv_, 0), part(qkv_, 1), part(qkv_, 2), out.tensor, lse.tensor);
  }
  void backward(const Ops& ops) {
    dqkv.unset(ops.storage());
    ops.attention_backward(shape_, spans_, part(qkv_, 0), part(qkv_, 1), part(qkv_, 2), out.tensor, lse.tensor,
                           dout_.tensor, part(dqkv, 0), part(dqkv, 1), part(dqkv, 2));
  }

 private:
  [[nodiscard]] Tensor part(const Matrix& m, int index) const {
    const std::int64_t q = shape_.heads * shape_.head_dim;
    const std::int64_t kv = shape_.kv_heads * shape_.head_dim;
    return index == 0 ? m.tensor.columns(0, q) : m.tensor.columns(q + (index - 1) * kv, kv);
  }

  AttentionShape shape_;
  std::int64_t rows_;
  std::vector<SequenceSpan> spans_;
  Matrix qkv_, dout_;

 public:
  Matrix out, lse, dqkv;
};

class DeviceLibraryAttention : public testing::Test {
 protected:
  void SetUp() override {
    if (device_buses().empty()) GTEST_SKIP() << "there is no GPU";
    if (const CudnnFacts facts = cudnn_facts(); !facts.refusal.empty()) GTEST_SKIP() << "cuDNN: " << facts.refusal;
    own_ = make_backend(kBF16Precision, 0, {true, AttentionChoice::kOwn});
    library_ = make_backend(kBF16Precision, 0, {false, AttentionChoice::kLibrary});
  }

  void expect_equal_results(const Shape& shape, const std::vector<std::int64_t>& lengths) {
    SCOPED_TRACE(testing::Message() << shape.heads << "/" << shape.kv_heads << " heads of " << shape.head_dim
                                    << ", window " << shape.window << ", " << lengths.size() << " documents, first "
                                    << lengths.front());
    Storage& storage = own_.ops->storage();
    Batch batch(*own_.memory, shape, lengths);
    batch.forward(*own_.ops);
    batch.backward(*own_.ops);
    const auto out = batch.out.values(storage), lse = batch.lse.values(storage), dqkv = batch.dqkv.values(storage);

    // The library's backward pass after our own forward pass, and the other way round, and it alone.
    batch.backward(*library_.ops);
    EXPECT_LE(relative_error(batch.dqkv.values(library_.ops->storage()), dqkv), kTolerance) << "backward after own";
    batch.forward(*library_.ops);
    EXPECT_LE(relative_error(batch.out.values(library_.ops->storage()), out), kTolerance) << "out";
    EXPECT_LE(relative_error(batch.lse.values(library_.ops->storage()), lse), kLseTolerance) << "lse";
    batch.backward(*library_.ops);
    EXPECT_LE(relative_error(batch.dqkv.values(library_.ops->storage()), dqkv), kTolerance) << "backward";
    batch.backward(*own_.ops);
    EXPECT_LE(relative_error(batch.dqkv.values(storage), dqkv), kTolerance) << "own backward after it";
  }

  Backend own_, library_;
};

TEST_F(DeviceLibraryAttention, EqualsOurOwnOverOddBatches) {
  const std::vector<std::int64_t> one = {1};
  const std::vector<std::int64_t> odd = {1, 2, 31, 64, 65, 100, 127, 128, 129};
  const std::vector<std::int64_t> uneven = {1000, 1, 1, 7};
  const std::vector<std::int64_t> many = {300, 20, 41, 5, 77, 256, 1, 1, 90, 33, 8, 64, 12};
  expect_equal_results({9, 3, 64, 0}, odd);
  expect_equal_results({9, 3, 64, 0}, many);  // rows of 36 bytes: groups begin anywhere
  expect_equal_results({14, 2, 64, 40}, odd);
  expect_equal_results({4, 4, 80, 0}, uneven);
  expect_equal_results({4, 1, 96, 200}, many);
  expect_equal_results({16, 8, 128, 0}, odd);
  expect_equal_results({16, 8, 128, 0}, one);
  expect_equal_results({16, 8, 128, 300}, uneven);
}

TEST_F(DeviceLibraryAttention, EqualsOurOwnOverLongOnes) {
  expect_equal_results({8, 2, 128, 0}, {4096});
  expect_equal_results({8, 2, 128, 1000}, {4097, 1, 3000});
  expect_equal_results({8, 2, 64, 0}, std::vector<std::int64_t>(70, 100));
}

TEST_F(DeviceLibraryAttention, GivesTheSameBitsInEveryRunWhereItPromisesTo) {
  const Backend promised = make_backend(kBF16Precision, 0, {true, AttentionChoice::kAuto});
  Batch batch(*promised.memory, {32, 8, 128, 0}, {2000, 1, 700, 512, 883});
  batch.forward(*promised.ops);
  batch.backward(*promised.ops);
  Storage& storage = promised.ops->storage();
  const auto out = batch.out.bytes(storage), lse = batch.lse.bytes(storage), dqkv = batch.dqkv.bytes(storage);
  for (int run = 0; run < 5; ++run) {
    batch.forward(*promised.ops);
    batch.backward(*promised.ops);
    EXPECT_EQ(batch.out.bytes(storage), out);
    EXPECT_EQ(batch.lse.bytes(storage), lse);
    EXPECT_EQ(batch.dqkv.bytes(storage), dqkv);
  }
}

// A document's results must not depend on what else is in the batch: not in bits, for groups and tiles differ, but no
// further than rounding goes.
TEST_F(DeviceLibraryAttention, KeepsDocumentsApart) {
  Batch together(*own_.memory, {8, 2, 128, 0}, {333, 500, 20});
  Batch alone(*own_.memory, {8, 2, 128, 0}, {333});
  for (Batch* batch : {&together, &alone}) {
    batch->forward(*library_.ops);
    batch->backward(*library_.ops);
  }
  const auto few = alone.dqkv.values(library_.ops->storage());
  auto many = together.dqkv.values(library_.ops->storage());
  many.resize(few.size());
  EXPECT_LE(relative_error(many, few), kTolerance);
}

}  // namespace
}  // namespace lomu::cuda
