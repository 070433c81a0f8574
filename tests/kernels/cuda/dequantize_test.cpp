// Encoded rows expanded on the device, bit for bit as on the host.
#include "kernels/cuda/dequantize.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "kernels/dequantize.h"
#include "kernels/philox.h"
#include "tests/kernels/cuda/device_matrix.h"

namespace lomu::cuda {
namespace {

using namespace test;

/// `count` bytes, in memory of exactly that size. Random bits are blocks with every kind of scale, infinite and NaN
/// too.
std::vector<std::byte> random_bytes(std::size_t count, std::uint64_t stream) {
  std::vector<std::byte> bytes(count);
  for (std::size_t i = 0; i < count; ++i) {
    bytes[i] = static_cast<std::byte>(Philox(11, Purpose::kTest).bits(stream, i) & 255);
  }
  return bytes;
}

bool is_nan(float x) {
  return std::isnan(x);
}
bool is_nan(BF16 x) {
  return std::isnan(static_cast<float>(x));
}

/// The same bits, but that any NaN equals any other that was written.
template <class T>
void expect_same_numbers(DeviceMatrix<T> got, DeviceMatrix<T> want) {
  const T nan(std::numeric_limits<float>::quiet_NaN());
  for (std::int64_t i = 0; i < want.rows(); ++i) {
    for (std::int64_t j = 0; j < want.cols(); ++j) {
      if (is_nan(got(i, j)) && !is_untouched(got(i, j))) got(i, j) = nan;
      if (is_nan(want(i, j))) want(i, j) = nan;
    }
  }
  expect_same_bits(got, want);
}

/// `from` on the device with `zeros` columns behind it, under every schedule, against the host.
template <class T>
void expect_as_on_host(const EncodedRows& from, std::int64_t zeros, Layout layout) {
  DeviceMatrix<T> want(from.rows, from.cols + zeros, layout);
  Tensor to = want;
  to.cols = from.cols;
  to.spare = zeros;
  lomu::dequantize(from, to);
  const auto got = under_every_schedule([&] {
    DeviceMatrix<T> y(from.rows, from.cols + zeros, layout);
    dequantize<T>(from, y, zeros, nullptr);
    return y;
  });
  got.expect_gaps_untouched();
  expect_same_numbers(got, want);
}

class CudaDequantize : public testing::TestWithParam<Encoding> {};

TEST_P(CudaDequantize, GivesTheBitsOfTheHost) {
  const Encoding encoding = GetParam();
  const bool blocks = block_of(encoding).elements > 1;
  struct Shape {
    std::int64_t rows, units;  // of 32 elements in blocks of as many or 256, of one where there are none
  };
  const std::vector<Shape> shapes = blocks ? std::vector<Shape>{{0, 1}, {1, 1}, {3, 1}, {1, 7}, {5, 3}, {2, 19}}
                                           : std::vector<Shape>{{0, 3}, {1, 1}, {3, 7}, {2, 8}, {5, 33}, {2, 2056}};
  for (const auto& [rows, units] : shapes) {
    const EncodedRows shape{encoding, nullptr, rows, units * block_of(encoding).elements};
    const std::vector<std::byte> bytes = random_bytes(shape.bytes(), static_cast<std::uint64_t>(encoding));
    const EncodedRows from{encoding, bytes.data(), rows, shape.cols};
    for (const Layout layout : kLayouts) {
      for (const std::int64_t zeros : {0, 3, 64}) {
        SCOPED_TRACE(testing::Message() << rows << " x " << from.cols << ", gap " << layout.gap << ", zeros " << zeros);
        expect_as_on_host<BF16>(from, zeros, layout);
        expect_as_on_host<float>(from, zeros, layout);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Encodings, CudaDequantize,
                         testing::Values(Encoding::kF32, Encoding::kF16, Encoding::kBF16, Encoding::kQ8_0,
                                         Encoding::kQ4_0, Encoding::kQ4_1, Encoding::kQ5_0, Encoding::kQ5_1,
                                         Encoding::kQ4_K, Encoding::kQ6_K),
                         [](const auto& test_case) { return std::string(name_of(test_case.param)); });

TEST(CudaDequantizeBlocks, HaveScalesOfEverySizeAndSign) {
  for (const Encoding encoding : {Encoding::kQ8_0, Encoding::kQ4_0, Encoding::kQ4_1, Encoding::kQ5_0, Encoding::kQ5_1,
                                  Encoding::kQ4_K, Encoding::kQ6_K}) {
    SCOPED_TRACE(name_of(encoding));
    const BlockSize block = block_of(encoding);
    const std::size_t at = encoding == Encoding::kQ6_K ? 208 : 0;
    constexpr std::int64_t kScales = 65536 / 7;
    std::vector<std::byte> bytes = random_bytes(static_cast<std::size_t>(kScales * block.bytes), 99);
    for (std::int64_t i = 0; i < kScales; ++i) {
      const auto scale = static_cast<std::uint16_t>(7 * i);
      std::memcpy(bytes.data() + static_cast<std::size_t>(i * block.bytes) + at, &scale, sizeof scale);
    }
    const EncodedRows from{encoding, bytes.data(), 1, kScales * block.elements};
    DeviceMatrix<float> got(1, from.cols), want(1, from.cols);
    dequantize<float>(from, got, 0, nullptr);
    lomu::dequantize(from, want);
    expect_same_numbers(got, want);
  }
}

TEST(CudaDequantizePlain, TakesEveryHalfAndBF16) {
  std::vector<std::uint16_t> halves(65536);
  for (std::size_t i = 0; i < halves.size(); ++i) halves[i] = static_cast<std::uint16_t>(i);
  for (const Encoding encoding : {Encoding::kF16, Encoding::kBF16}) {
    const EncodedRows from{encoding, reinterpret_cast<const std::byte*>(halves.data()), 16, 4096};
    expect_as_on_host<float>(from, 0, {});
    expect_as_on_host<BF16>(from, 0, {});
  }
}

}  // namespace
}  // namespace lomu::cuda
