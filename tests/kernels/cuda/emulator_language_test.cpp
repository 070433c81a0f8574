// The emulated language: shuffles, votes, fragments, conversions, against what the CUDA and PTX manuals say of them.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "kernels/cuda/emulation/schedule.h"
#include "kernels/cuda/gpu.h"

namespace lomu {
namespace {

using namespace gpu;

constexpr unsigned kAll = ~0u;

template <class... P>
void launch_warps(void (*kernel)(P...), unsigned warps, std::size_t shared, std::type_identity_t<P>... arguments) {
  launch(kernel, {1, warps * 32, shared}, arguments...);
}

// Six results a lane, segments of `width` lanes.
__global__ void shuffles(int* out, int width) {
  const int t = static_cast<int>(threadIdx.x);
  out[6 * t] = __shfl_sync(kAll, t, 5, width);
  out[6 * t + 1] = __shfl_xor_sync(kAll, t, 9, width);
  out[6 * t + 2] = __shfl_down_sync(kAll, t, 3, width);
  out[6 * t + 3] = __shfl_up_sync(kAll, t, 3, width);
  out[6 * t + 4] = static_cast<int>(__shfl_xor_sync(kAll, static_cast<double>(t), 1));
  out[6 * t + 5] = __shfl_sync(kAll, t, -1, width);
}

TEST(EmulatedLanguage, ShufflesWithinSegments) {
  for (const int width : {32, 16, 8}) {
    std::vector<int> out(6 * 64, -1);
    launch_warps(shuffles, 2, 0, out.data(), width);
    for (int t = 0; t < 64; ++t) {
      const int first = t / width * width, lane = t - first;
      // From an earlier segment a lane may read; from a later one it gets its own value.
      const int partner = t ^ 9;
      EXPECT_EQ(out[static_cast<std::size_t>(6 * t)], first + 5 % width);
      EXPECT_EQ(out[static_cast<std::size_t>(6 * t + 1)], partner / width * width > first ? t : partner);
      EXPECT_EQ(out[static_cast<std::size_t>(6 * t + 2)], lane + 3 < width ? t + 3 : t);
      EXPECT_EQ(out[static_cast<std::size_t>(6 * t + 3)], lane >= 3 ? t - 3 : t);
      EXPECT_EQ(out[static_cast<std::size_t>(6 * t + 4)], t ^ 1);
      EXPECT_EQ(out[static_cast<std::size_t>(6 * t + 5)], first + width - 1);
    }
  }
}

// Lanes 0 to 15 and the rest vote apart.
__global__ void votes(unsigned* out) {
  const unsigned t = threadIdx.x, half = t / 16 % 2, mask = half != 0 ? 0xffff0000u : 0x0000ffffu;
  unsigned* own = out + 4 * t;
  own[0] = __ballot_sync(mask, t % 3 == 0);
  own[1] = static_cast<unsigned>(__any_sync(mask, t == 17));
  own[2] = static_cast<unsigned>(__all_sync(mask, t != 17));
  own[3] = __reduce_add_sync(mask, t);
}

TEST(EmulatedLanguage, VotesAmongTheLanesOfTheMask) {
  emu::for_each_schedule([](unsigned seed) {
    SCOPED_TRACE(seed);
    std::vector<unsigned> out(4 * 32, 77);
    launch_warps(votes, 1, 0, out.data());
    for (unsigned t = 0; t < 32; ++t) {
      const bool upper = t >= 16;
      const unsigned mask = upper ? 0xffff0000u : 0x0000ffffu;
      EXPECT_EQ(out[4 * t], 0x49249249u & mask);
      EXPECT_EQ(out[4 * t + 1], upper ? 1u : 0u);
      EXPECT_EQ(out[4 * t + 2], upper ? 0u : 1u);
      EXPECT_EQ(out[4 * t + 3], upper ? 376u : 120u);
    }
  });
}

// c [16, 8] = a [16, 16] b [8, 16]^T, b given by columns, once through plain loads and once through ldmatrix.
__global__ void multiply(const bf16* a, const bf16* b, float* c, bool by_ldmatrix) {
  SharedArena shared;
  bf16* sa = shared.take<bf16>(16 * 16);
  bf16* sb = shared.take<bf16>(16 * 16);
  const int l = static_cast<int>(threadIdx.x), g = l / 4, t = l % 4 * 2;
  store16(sa + 8 * l, load16(a + 8 * l));
  store16(sb + 8 * l, load16(b + 8 * (l % 16)));  // the second half is unused, but must be numbers
  __syncwarp();
  std::uint32_t fa[4], fb[4];
  if (by_ldmatrix) {
    load_matrix_x4<false>(fa, sa + l % 16 * 16 + l / 16 * 8);
    load_matrix_x4<false>(fb, sb + (l / 16 * 8 + l % 8) * 16 + l / 8 % 2 * 8);
  } else {
    const auto pair = [](const bf16* p) { return pack_bf16(to_float(p[0]), to_float(p[1])); };
    for (int i = 0; i < 4; ++i) fa[i] = pair(sa + (g + i % 2 * 8) * 16 + t + i / 2 * 8);
    for (int i = 0; i < 2; ++i) fb[i] = pair(sb + g * 16 + t + i * 8);
  }
  float d[4] = {};
  mma_bf16(d, fa, fb[0], fb[1]);
  for (int e = 0; e < 4; ++e) c[(g + e / 2 * 8) * 8 + t + e % 2] = d[e];
}

TEST(EmulatedLanguage, MultipliesFragments) {
  std::vector<BF16> a(16 * 16), b(8 * 16);
  for (std::size_t i = 0; i < a.size(); ++i) a[i] = BF16(static_cast<float>(static_cast<int>(i * 7 % 23) - 11));
  for (std::size_t i = 0; i < b.size(); ++i) b[i] = BF16(static_cast<float>(static_cast<int>(i * 5 % 19) - 9));
  for (const bool by_ldmatrix : {false, true}) {
    std::vector<float> c(16 * 8, std::numeric_limits<float>::quiet_NaN());
    launch_warps(multiply, 1, 2 * SharedArena::bytes<bf16>(256), element_ptr(a.data()), element_ptr(b.data()), c.data(),
                 by_ldmatrix);
    for (std::size_t i = 0; i < 16; ++i) {
      for (std::size_t j = 0; j < 8; ++j) {
        float want = 0;
        for (std::size_t k = 0; k < 16; ++k) {
          want += static_cast<float>(a[i * 16 + k]) * static_cast<float>(b[j * 16 + k]);
        }
        EXPECT_EQ(c[i * 8 + j], want) << i << ", " << j << (by_ldmatrix ? " by ldmatrix" : "");
      }
    }
  }
}

// out[word][lane] for four 8x8 matrices that hold 64 * matrix + 8 * row + column.
__global__ void transpose(std::uint32_t* out) {
  auto* s = reinterpret_cast<std::uint16_t*>(SharedArena().take<bf16>(256));
  const int l = static_cast<int>(threadIdx.x);
  for (int i = 0; i < 8; ++i) s[8 * l + i] = static_cast<std::uint16_t>(8 * l + i);
  __syncwarp();
  std::uint32_t r[4];
  load_matrix_x4<true>(r, reinterpret_cast<const bf16*>(s) + 8 * l);
  for (int i = 0; i < 4; ++i) out[32 * i + l] = r[i];
}

TEST(EmulatedLanguage, TransposesMatrices) {
  std::vector<std::uint32_t> out(128, 0);
  launch_warps(transpose, 1, SharedArena::bytes<bf16>(256), out.data());
  for (unsigned matrix = 0; matrix < 4; ++matrix) {
    for (unsigned l = 0; l < 32; ++l) {
      const unsigned low = 64 * matrix + 8 * (2 * (l % 4)) + l / 4;
      EXPECT_EQ(out[32 * matrix + l], low | (low + 8) << 16);
    }
  }
}

// Two groups in flight: after wait<1> only the first has landed; invalid copies are zeros and read nothing.
__global__ void copies_in_groups(const float* in, float* out) {
  auto* s = SharedArena().take<float>(32 * 12);
  float* own = s + threadIdx.x * 12;
  copy_async16(own, in + threadIdx.x * 4);
  copy_async16(own + 4, nullptr, false);
  copy_async_commit();
  copy_async16(own + 8, in + threadIdx.x * 4);
  copy_async_commit();
  copy_async_wait<1>();
  for (int i = 0; i < 12; ++i) out[threadIdx.x * 16 + static_cast<unsigned>(i)] = own[i];
  copy_async_wait<0>();
  for (int i = 8; i < 12; ++i) out[threadIdx.x * 16 + static_cast<unsigned>(i) + 4] = own[i];
}

TEST(EmulatedLanguage, LandsCopiesByGroups) {
  std::vector<float> in(128), out(512, -1);
  for (std::size_t i = 0; i < in.size(); ++i) in[i] = static_cast<float>(i);
  launch_warps(copies_in_groups, 1, SharedArena::bytes<float>(32 * 12), in.data(), out.data());
  for (std::size_t t = 0; t < 32; ++t) {
    for (std::size_t i = 0; i < 4; ++i) {
      EXPECT_EQ(out[16 * t + i], in[4 * t + i]);
      EXPECT_EQ(out[16 * t + 4 + i], 0.0f);
      EXPECT_TRUE(std::isnan(out[16 * t + 8 + i]));
      EXPECT_EQ(out[16 * t + 12 + i], in[4 * t + i]);
    }
  }
}

TEST(EmulatedLanguage, NarrowsAsTheHostsBF16) {
  for (std::uint64_t bits = 0; bits < std::uint64_t{1} << 32; bits += 65521) {
    const auto x = std::bit_cast<float>(static_cast<std::uint32_t>(bits));
    const auto got = std::bit_cast<std::uint16_t>(from_float<bf16>(x));
    if (std::isnan(x)) {
      EXPECT_TRUE(std::isnan(to_float(std::bit_cast<bf16>(got))));
    } else {
      EXPECT_EQ(got, BF16(x).bits) << bits;
    }
  }
}

TEST(EmulatedLanguage, PacksTheLowerAddressLow) {
  const std::uint32_t w = pack_bf16(1.0f, -2.0f);
  EXPECT_EQ(w, 0xc0003f80u);
  EXPECT_EQ(low_bf16(w), 1.0f);
  EXPECT_EQ(high_bf16(w), -2.0f);
}

// Every thread writes where it thinks it is.
__global__ void coordinates(unsigned* out) {
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  out[block * blockDim.x * blockDim.y * blockDim.z + thread] += 1;
}

TEST(EmulatedLanguage, VisitsEveryThreadOnce) {
  std::vector<unsigned> out(2 * 3 * 4 * 5 * 3 * 2, 0);
  launch(coordinates, {{2, 3, 4}, {5, 3, 2}}, out.data());
  for (const unsigned n : out) EXPECT_EQ(n, 1u);
}

}  // namespace
}  // namespace lomu
