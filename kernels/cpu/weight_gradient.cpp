// Every sum over tokens runs in their order, whoever computes it: threads share the columns of a gradient, never its
// tokens.
#include "kernels/cpu/weight_gradient.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <type_traits>

#include "kernels/cpu/block.h"
#include "kernels/cpu/linear.h"
#include "kernels/cpu/linear_slots.h"
#include "kernels/cpu/skinny.h"
#include "kernels/cpu/vector_math.h"

namespace lomu::cpu {
using namespace linear_slots;
namespace {

constexpr std::int64_t kBlockRows = 64;                    // rows of a matrix gradient that one packed block gives
constexpr std::int64_t kUnitColumns = 8 * kSkinnyColumns;  // enough to be worth a thread's while
constexpr std::int64_t kColumns = 64;                      // of the embedding or a norm that one thread sums

std::int64_t blocks_of(std::int64_t size, std::int64_t block) {
  return (size + block - 1) / block;
}

template <class T>
float inverse_rms(const T* x, std::int64_t n, double eps) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t i = 0; i < n; ++i) {
    const auto value = static_cast<float>(x[i]);
    sum += value * value;
  }
  return static_cast<float>(1.0 / std::sqrt(static_cast<double>(sum) / static_cast<double>(n) + eps));
}

/// X is the type of x: the residual stream's, or T for the norm of heads.
template <class T, class X>
void norm_gradient(Team& team, const Tensor& dy, const Tensor& x, double eps, std::int64_t heads, const Tensor& grad) {
  const std::int64_t d = x.cols / heads;
  float* const inverse = team.scratch<float>(kLowRankGradient, x.rows * heads);
  for_rows(team, x.rows, [&](std::int64_t t, Worker&) {
    for (std::int64_t h = 0; h < heads; ++h) inverse[t * heads + h] = inverse_rms(x.row<X>(t) + h * d, d, eps);
  });
  team.for_each(blocks_of(d, kColumns), [&](std::int64_t unit, Worker&) {
    const std::int64_t first = unit * kColumns;
    const std::int64_t count = std::min(kColumns, d - first);
    std::array<float, kColumns> sums{};
    for (std::int64_t t = 0; t < x.rows; ++t) {
      for (std::int64_t h = 0; h < heads; ++h) {
        const T* const g = dy.row<T>(t) + h * d + first;
        const X* const in = x.row<X>(t) + h * d + first;
        const float r = inverse[t * heads + h];
#pragma omp simd
        for (std::int64_t j = 0; j < count; ++j) {
          sums[static_cast<std::size_t>(j)] += static_cast<float>(g[j]) * (static_cast<float>(in[j]) * r);
        }
      }
    }
    std::copy_n(sums.data(), count, grad.as<float>() + first);
  });
}

}  // namespace

template <class T>
void weight_gradient(Team& team, const Tensor& x, const Tensor& dy_any, const Tensor& grad) {
  if (x.rows == 0) {
    std::fill_n(grad.as<float>(), grad.size(), 0.0f);
    return;
  }
  const Tensor dy = as_activation<T>(team, dy_any);
  const std::int64_t out = dy.cols;
  const std::int64_t in = x.cols;
  const std::int64_t blocks = blocks_of(out, kBlockRows);
  const std::int64_t block_size = skinny_pack_size(x.rows, std::min(out, kBlockRows));
  T* const packed = team.scratch<T>(kSkinnyLeft, blocks * block_size);
  const auto rows_in = [&](std::int64_t block) { return std::min(kBlockRows, out - block * kBlockRows); };
  team.for_each(blocks, [&](std::int64_t block, Worker&) {
    skinny_pack(dy.row<T>(0) + block * kBlockRows, dy.ld, dy.rows, rows_in(block), packed + block * block_size);
  });
  const std::int64_t units = blocks_of(in, kUnitColumns);
  team.for_each(blocks * units, [&](std::int64_t u, Worker& worker) {
    const std::int64_t block = u / units;
    const std::int64_t rows = rows_in(block);
    const std::int64_t end = std::min(in, (u % units + 1) * kUnitColumns);
    float* const sums = worker.scratch<float>(kSkinnyOut, skinny_result_size(rows), team.memory());
    for (std::int64_t first = u % units * kUnitColumns; first < end; first += kSkinnyColumns) {
      const std::int64_t columns = std::min(kSkinnyColumns, end - first);
      skinny_gradient(packed + block * block_size, x.rows, rows, x.row<T>(0) + first, x.ld, columns, sums);
      for (std::int64_t i = 0; i < rows; ++i) {
        std::copy_n(sums + i * kSkinnyColumns, columns, grad.as<float>() + (block * kBlockRows + i) * in + first);
      }
    }
  });
}

void embed_backward(Team& team, std::span<const std::int32_t> ids, const Tensor& dout, const Tensor& grad) {
  team.for_each(blocks_of(grad.cols, kColumns), [&](std::int64_t unit, Worker&) {
    const std::int64_t first = unit * kColumns;
    const std::int64_t count = std::min(kColumns, grad.cols - first);
    for (std::size_t t = 0; t < ids.size(); ++t) {
      const float* const from = dout.row<float>(static_cast<std::int64_t>(t)) + first;
      float* const to = grad.row<float>(ids[t]) + first;
#pragma omp simd
      for (std::int64_t j = 0; j < count; ++j) to[j] += from[j];
    }
  });
}

template <class T>
void norm_weight_gradient(Team& team, const Tensor& dy, const Tensor& x, double eps, std::int64_t heads,
                          const Tensor& grad) {
  if (x.dtype == DType::kF32) {
    norm_gradient<T, float>(team, dy, x, eps, heads, grad);
  } else {
    norm_gradient<T, BF16>(team, dy, x, eps, heads, grad);
  }
}

template <class T>
void weight_gradient_scratch(TeamScratch& scratch, std::int64_t tokens, std::int64_t out) {
  if (out == 0) return;
  const std::int64_t block = std::min(out, kBlockRows);
  scratch.team.need<T>(kSkinnyLeft, blocks_of(out, kBlockRows) * skinny_pack_size(tokens, block));
  scratch.worker.need<float>(kSkinnyOut, skinny_result_size(block));
  if (!std::is_same_v<T, float>) scratch.team.need<T>(kRounded, tokens * out);
}

template void weight_gradient<float>(Team&, const Tensor&, const Tensor&, const Tensor&);
template void weight_gradient<BF16>(Team&, const Tensor&, const Tensor&, const Tensor&);
template void norm_weight_gradient<float>(Team&, const Tensor&, const Tensor&, double, std::int64_t, const Tensor&);
template void norm_weight_gradient<BF16>(Team&, const Tensor&, const Tensor&, double, std::int64_t, const Tensor&);
template void weight_gradient_scratch<float>(TeamScratch&, std::int64_t, std::int64_t);
template void weight_gradient_scratch<BF16>(TeamScratch&, std::int64_t, std::int64_t);

}  // namespace lomu::cpu
