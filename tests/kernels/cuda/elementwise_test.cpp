#include "kernels/cuda/elementwise.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/cuda/emulation/schedule.h"

namespace lomu::cuda {
namespace {

const std::size_t kSizes[] = {0, 1, 7, 8, 9, 255, 2047, 2048, 2049, 5000};

// Among them the cases in which rounding can go wrong: ties to even both ways, carries, the largest, infinities.
std::vector<float> values(std::size_t n) {
  const float special[] = {0.0f,       -0.0f,         1.00390625f, 1.01171875f,
                           1.9999999f, 3.4028235e38f, 1e-40f,      -std::numeric_limits<float>::infinity()};
  std::vector<float> v(n);
  for (std::size_t i = 0; i < n; ++i) v[i] = i % 3 == 0 ? special[i / 3 % 8] : std::sin(static_cast<float>(i)) * 100;
  return v;
}
template <class T>
std::vector<T> unset(std::size_t n) {
  return std::vector<T>(n, T(std::numeric_limits<float>::quiet_NaN()));
}
std::vector<BF16> narrowed(const std::vector<float>& v) {
  return {v.begin(), v.end()};
}

unsigned bits(float x) {
  return std::bit_cast<unsigned>(x);
}
unsigned bits(BF16 x) {
  return x.bits;
}
template <class T>
void expect_same_bits(const std::vector<T>& got, const std::vector<T>& want) {
  ASSERT_EQ(got.size(), want.size());
  for (std::size_t i = 0; i < got.size(); ++i) ASSERT_EQ(bits(got[i]), bits(want[i])) << "element " << i;
}

TEST(CudaElementwise, CopiesBetweenAllTypesAtAllSizes) {
  for (const std::size_t n : kSizes) {
    const auto wide = values(n);
    const auto narrow = narrowed(wide);
    const std::vector<float> widened(narrow.begin(), narrow.end());
    auto f = unset<float>(n), g = unset<float>(n);
    auto b = unset<BF16>(n), c = unset<BF16>(n);
    copy(wide.data(), f.data(), n, nullptr);
    copy(wide.data(), b.data(), n, nullptr);
    copy(narrow.data(), g.data(), n, nullptr);
    copy(narrow.data(), c.data(), n, nullptr);
    expect_same_bits(f, wide);
    expect_same_bits(b, narrow);
    expect_same_bits(g, widened);
    expect_same_bits(c, narrow);
  }
}

TEST(CudaElementwise, TakesAnyAlignment) {
  const std::size_t n = 300;
  const auto wide = values(n + 1);
  const auto narrow = narrowed({wide.begin() + 1, wide.end()});
  auto b = unset<BF16>(n);
  copy(wide.data() + 1, b.data(), n, nullptr);
  expect_same_bits(b, narrow);
}

TEST(CudaElementwise, KeepsNaN) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> from = {nan, -nan, std::bit_cast<float>(0x7f800001u), std::bit_cast<float>(0xffffffffu)};
  std::vector<BF16> to(from.size(), BF16(0.0f));
  copy(from.data(), to.data(), from.size(), nullptr);
  for (const BF16 x : to) EXPECT_TRUE(std::isnan(static_cast<float>(x)));
}

TEST(CudaElementwise, HoldsUnderEverySchedule) {
  const auto wide = values(5000);
  const auto narrow = narrowed(wide);
  emu::for_each_schedule([&](unsigned seed) {
    SCOPED_TRACE(seed);
    auto b = unset<BF16>(wide.size());
    copy(wide.data(), b.data(), b.size(), nullptr);
    expect_same_bits(b, narrow);
  });
}

}  // namespace
}  // namespace lomu::cuda
