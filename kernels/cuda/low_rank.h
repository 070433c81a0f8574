// The skinny products of adapters: S = x A^T and dS = dY B, which read a wide matrix once and leave a few columns, and
// the gradients dA = dS^T x and dB = dY^T S, which add up over all tokens. A matrix library does them too; these are
// the fallback, and the check of its results. Deterministic: the order of every sum depends on shapes alone.
//
// Ranks from 1 to 256 (more work, but no limit): all parts of a group may be stacked where they share x. BF16 goes
// through the tensor cores with f32 sums, float through ordinary fused multiply-adds, exact rather than fast.
// Bound by memory for ranks up to 64, the width of a tile: the wide matrix is read ceil(rank / 64) times. A projection
// has one block for 32 tokens, so a few tokens (generation) leave a device idle.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/device_rows.h"
#include "kernels/cuda/stream.h"

namespace lomu::cuda {

/// How a factor lies in memory: lora_A is [rank, width], lora_B [width, rank].
enum class FactorLayout : std::uint8_t { kRankByWidth, kWidthByRank };

/// s = scale * x factor, the factor as a [width, rank] matrix; rounded once. T is BF16 or float. x: [tokens, width];
/// s: [tokens, rank]. One launch.
template <class T>
void low_rank_project(DeviceRows<const T> x, DeviceRows<const T> factor, FactorLayout layout, float scale,
                      DeviceRows<T> s, std::int64_t tokens, std::int64_t width, std::int64_t rank, Stream stream);

/// Bytes of workspace, 16-byte aligned, that low_rank_gradient needs; may be 0.
std::size_t low_rank_gradient_bytes(std::int64_t tokens, std::int64_t m, std::int64_t n);

/// g = scale * p^T q, written. T is BF16 or float. p: [tokens, m]; q: [tokens, n]; g: [m, n], dense; m n < 2^31. One of
/// m and n is a rank. With tokens = 0, g is zero. Up to 16 slots of tokens (fewer where m n is large) are added up in
/// their order by a second launch, which costs 8 bytes an element of g and slot.
template <class T>
void low_rank_gradient(DeviceRows<const T> p, DeviceRows<const T> q, float scale, float* g, std::int64_t tokens,
                       std::int64_t m, std::int64_t n, void* workspace, Stream stream);

}  // namespace lomu::cuda
