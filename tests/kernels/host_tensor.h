// Owned tensors with reproducible random content, for tests of operations.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "kernels/philox.h"
#include "kernels/tensor.h"

namespace lomu::test {

/// A tensor that owns its memory. `padding` extra elements separate its rows; they start as NaN, so that an operation
/// that reads them shows.
class HostTensor {
 public:
  HostTensor(DType dtype, std::int64_t rows, std::int64_t cols, std::int64_t padding = 0)
      : bytes_(static_cast<std::size_t>((rows * (cols + padding) + 1) * 8), std::byte{0xff}),
        tensor_(bytes_.data(), dtype, rows, cols, cols + padding) {}
  HostTensor(const HostTensor& other) : bytes_(other.bytes_), tensor_(other.tensor_) { tensor_.data = bytes_.data(); }
  HostTensor& operator=(const HostTensor&) = delete;

  operator const Tensor&() const { return tensor_; }  // NOLINT(google-explicit-constructor): a test's convenience
  [[nodiscard]] const Tensor& view() const { return tensor_; }
  [[nodiscard]] const std::vector<std::byte>& bytes() const { return bytes_; }

  [[nodiscard]] double get(std::int64_t i, std::int64_t j) const {
    switch (tensor_.dtype) {
      case DType::kF64: return tensor_.row<double>(i)[j];
      case DType::kF32: return tensor_.row<float>(i)[j];
      default: return static_cast<float>(tensor_.row<BF16>(i)[j]);
    }
  }
  void set(std::int64_t i, std::int64_t j, double value) {
    switch (tensor_.dtype) {
      case DType::kF64: tensor_.row<double>(i)[j] = value; return;
      case DType::kF32: tensor_.row<float>(i)[j] = static_cast<float>(value); return;
      default: tensor_.row<BF16>(i)[j] = BF16(static_cast<float>(value)); return;
    }
  }

 private:
  std::vector<std::byte> bytes_;
  Tensor tensor_;
};

/// Uniform in [-1, 1), multiples of 2^-10: exact in f32, and still exact after a finite-difference step of 2^-8.
inline double random_value(std::uint64_t stream, std::uint64_t index) {
  const auto bits = Philox(7, Purpose::kTest).bits(stream, index);
  return static_cast<double>(bits % 2048) / 1024.0 - 1.0;
}

inline HostTensor random_tensor(DType dtype, std::int64_t rows, std::int64_t cols, std::uint64_t stream,
                                std::int64_t padding = 0) {
  HostTensor t(dtype, rows, cols, padding);
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < cols; ++j) {
      t.set(i, j, random_value(stream, static_cast<std::uint64_t>(i * cols + j)));
    }
  }
  return t;
}

inline std::vector<float> random_floats(std::int64_t count, std::uint64_t stream, double scale = 1, double shift = 0) {
  std::vector<float> v(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < v.size(); ++i) v[i] = static_cast<float>(shift + scale * random_value(stream, i));
  return v;
}

/// norm(a - b) / norm(b), 0 if both are zero.
inline double relative_error(const HostTensor& a, const HostTensor& b) {
  double difference = 0;
  double norm = 0;
  for (std::int64_t i = 0; i < b.view().rows; ++i) {
    for (std::int64_t j = 0; j < b.view().cols; ++j) {
      difference += std::pow(a.get(i, j) - b.get(i, j), 2);
      norm += std::pow(b.get(i, j), 2);
    }
  }
  return difference == 0 ? 0 : std::sqrt(difference / norm);
}

/// sum of a_ij b_ij: the objective whose gradient with respect to `a` is `b`.
inline double inner(const HostTensor& a, const HostTensor& b) {
  double sum = 0;
  for (std::int64_t i = 0; i < a.view().rows; ++i) {
    for (std::int64_t j = 0; j < a.view().cols; ++j) sum += a.get(i, j) * b.get(i, j);
  }
  return sum;
}

}  // namespace lomu::test
