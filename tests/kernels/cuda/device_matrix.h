// Matrices for tests of device kernels: of exactly the size that their shape needs, with any distance between rows and
// any alignment of the first one, and NaN wherever nothing was written.
#pragma once

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include "kernels/cuda/device_rows.h"
#include "kernels/cuda/emulation/schedule.h"
#include "kernels/ops.h"
#include "tests/kernels/host_tensor.h"

namespace lomu::test {

/// Elements between the end of a row and the start of the next, and before the first one.
struct Layout {
  std::int64_t gap = 0, offset = 0;
};
/// Dense; rows that 16-byte accesses reach if the columns allow; rows that they never reach.
inline constexpr Layout kLayouts[] = {{0, 0}, {8, 8}, {3, 1}};

template <class T>
inline constexpr DType kTypeOf = std::is_same_v<T, BF16> ? DType::kBF16 : DType::kF32;
template <class T>
inline constexpr Precision kPrecisionOf = std::is_same_v<T, BF16> ? kBF16Precision : kF32Precision;
/// Of one operation, relative in norm. Its result is rounded once: by up to 2^-9 in bf16 (root mean square 1.1e-3), and
/// the reference rounds its own. In f32 sums of n < 10,000 terms err by less than sqrt(n) 2^-24.
template <class T>
inline constexpr double kTolerance = std::is_same_v<T, BF16> ? 3e-3 : 2e-6;

inline bool is_untouched(float x) {
  return std::bit_cast<std::uint32_t>(x) == 0xffffffffu;
}
inline bool is_untouched(BF16 x) {
  return x.bits == 0xffffu;
}

template <class T>
class DeviceMatrix {
 public:
  DeviceMatrix(std::int64_t rows, std::int64_t cols, Layout layout = {})
      : rows_(rows), cols_(cols), ld_(cols + layout.gap), offset_(layout.offset) {
    T unset;
    std::memset(static_cast<void*>(&unset), 0xff, sizeof(T));
    values_.assign(static_cast<std::size_t>(rows > 0 ? offset_ + (rows - 1) * ld_ + cols : 0), unset);
  }
  static DeviceMatrix random(std::int64_t rows, std::int64_t cols, std::uint64_t stream, Layout layout = {},
                             double scale = 1, double shift = 0) {
    DeviceMatrix m(rows, cols, layout);
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t j = 0; j < cols; ++j) {
        const double x = random_value(stream, static_cast<std::uint64_t>(i * cols + j));
        m(i, j) = T(static_cast<float>(scale * x + shift));
      }
    }
    return m;
  }

  T& operator()(std::int64_t i, std::int64_t j) { return values_[static_cast<std::size_t>(offset_ + i * ld_ + j)]; }
  double get(std::int64_t i, std::int64_t j) { return static_cast<float>((*this)(i, j)); }
  T* data() { return values_.empty() ? values_.data() : values_.data() + offset_; }
  [[nodiscard]] std::int64_t rows() const { return rows_; }
  [[nodiscard]] std::int64_t cols() const { return cols_; }
  [[nodiscard]] const std::vector<T>& values() const { return values_; }

  operator cuda::DeviceRows<T>() { return {data(), ld_}; }               // NOLINT(google-explicit-constructor)
  operator cuda::DeviceRows<const T>() { return {data(), ld_}; }         // NOLINT(google-explicit-constructor)
  operator Tensor() { return {data(), kTypeOf<T>, rows_, cols_, ld_}; }  // NOLINT(google-explicit-constructor)

  /// Nothing outside the rows was written.
  void expect_gaps_untouched() const {
    std::vector<bool> inside(values_.size());
    for (std::int64_t i = 0; i < rows_; ++i) {
      for (std::int64_t j = 0; j < cols_; ++j) inside[static_cast<std::size_t>(offset_ + i * ld_ + j)] = true;
    }
    for (std::size_t i = 0; i < values_.size(); ++i) {
      ASSERT_TRUE(inside[i] || is_untouched(values_[i])) << "element " << i << " lies between the rows";
    }
  }

 private:
  std::int64_t rows_, cols_, ld_, offset_;
  std::vector<T> values_;
};

/// norm(got - want) / norm(want), 0 if both are zero; NaN if anything is.
template <class T, class U>
double relative_error(DeviceMatrix<T>& got, DeviceMatrix<U>& want) {
  double difference = 0, norm = 0;
  for (std::int64_t i = 0; i < want.rows(); ++i) {
    for (std::int64_t j = 0; j < want.cols(); ++j) {
      difference += std::pow(got.get(i, j) - want.get(i, j), 2);
      norm += std::pow(want.get(i, j), 2);
    }
  }
  return difference == 0 ? 0 : std::sqrt(difference / norm);
}

/// Close to the specification, and nothing else written.
template <class T>
void expect_equivalent(DeviceMatrix<T>& got, DeviceMatrix<T>& want) {
  EXPECT_LE(relative_error(got, want), kTolerance<T>);
  got.expect_gaps_untouched();
}

template <class T>
void expect_same_bits(const DeviceMatrix<T>& a, const DeviceMatrix<T>& b) {
  ASSERT_EQ(a.values().size(), b.values().size());
  if (a.values().empty()) return;
  EXPECT_EQ(std::memcmp(a.values().data(), b.values().data(), a.values().size() * sizeof(T)), 0);
}

/// Runs `kernel`, which returns its output, under every schedule; all must give the same bits. Returns one of them.
template <class Kernel>
auto under_every_schedule(Kernel kernel) {
  auto first = kernel();
  emu::for_each_schedule([&](unsigned seed) {
    SCOPED_TRACE(testing::Message() << "schedule " << seed);
    if (seed > 0) expect_same_bits(kernel(), first);
  });
  return first;
}

using ActivationTypes = testing::Types<BF16, float>;

}  // namespace lomu::test
