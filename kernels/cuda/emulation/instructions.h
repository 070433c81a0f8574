// Host twins of the PTX instructions that gpu.h wraps: cp.async, ldmatrix, mma.sync, cvt. Fragment layouts are those of
// the PTX manual ("Warp-level matrix instructions"), stated once, at the wrappers in gpu.h. The tensor core's own
// rounding is not modelled: products are summed in float32, k in order.
#pragma once

#include "kernels/cuda/emulation/emu.h"
#include "kernels/dtype.h"

namespace lomu::emu {

inline void check_aligned(const void* p, unsigned bytes, Place place) {
  if (reinterpret_cast<std::uintptr_t>(p) % bytes != 0) fail(place, "misaligned: %p is not a multiple of %u", p, bytes);
}

/// Copies 16 aligned bytes, or fills them with `pattern` if there is no source. Typed accesses, because g++ hides the
/// memcpy and memset calls that it expands inline from ThreadSanitizer.
inline void copy16(void* to, const void* from, std::uint64_t pattern) {
  auto* t = static_cast<volatile std::uint64_t*>(to);
  const auto* f = static_cast<const volatile std::uint64_t*>(from);
  for (int i = 0; i < 2; ++i) t[i] = f != nullptr ? f[i] : pattern;
}

/// cp.async of 16 bytes. Until the wait the destination is NaN: nobody may rely on the old or on the new bytes.
inline void begin_copy16(void* to, const void* from, bool valid, Place place) {
  check_aligned(to, 16, place);
  check_aligned(from, 16, place);
  AsyncCopies& copies = async_copies();
  if (copies.count == AsyncCopies::kMax) fail(place, "more than %d cp.async in flight", AsyncCopies::kMax);
  if (valid) {  // read at once as well, so that a sanitizer reports the line that asked
    const auto* f = static_cast<const volatile std::uint64_t*>(from);
    static_cast<void>(f[0]);
    static_cast<void>(f[1]);
  }
  copy16(to, nullptr, ~std::uint64_t{0});
  copies.copy[copies.count++] = {to, valid ? from : nullptr, copies.group, place};
}

/// Lands all but the `pending` groups that were committed last.
inline void land_copies(int pending) {
  AsyncCopies& copies = async_copies();
  int kept = 0;
  for (int i = 0; i < copies.count; ++i) {
    const AsyncCopies::Copy copy = copies.copy[i];
    if (copy.group >= copies.group - pending) {
      copies.copy[kept++] = copy;
    } else {
      copy16(copy.to, copy.from, 0);
    }
  }
  copies.count = kept;
}

inline float half_to_float(std::uint16_t bits) {
  F16 x;
  x.bits = bits;
  return static_cast<float>(x);
}

struct MatrixLane {
  alignas(16) std::uint16_t row[8];
  std::uint32_t out[4];
};
template <bool Transposed>
LOMU_EMU_RESOLVER void resolve_ldmatrix(void* const* lanes, unsigned active, Place place) {
  if (active != ~0u) fail(place, "ldmatrix needs all 32 lanes, has %#x", active);
  for (int l = 0; l < 32; ++l) {
    auto* own = static_cast<MatrixLane*>(lanes[l]);
    for (int matrix = 0; matrix < 4; ++matrix) {
      std::uint32_t halves[2];
      for (int i = 0; i < 2; ++i) {
        const int far = l / 4, near = l % 4 * 2 + i;
        const int r = Transposed ? near : far, c = Transposed ? far : near;
        halves[i] = static_cast<MatrixLane*>(lanes[8 * matrix + r])->row[c];
      }
      own->out[matrix] = halves[0] | halves[1] << 16;
    }
  }
}
/// Each lane reads the row that it names, so that a sanitizer blames the right one.
template <bool Transposed>
void load_matrix_x4(std::uint32_t (&out)[4], const void* row, Place place) {
  MatrixLane arguments;
  check_aligned(row, 16, place);
  copy16(arguments.row, row, 0);
  warp_collective("ldmatrix", ~0u, &arguments, resolve_ldmatrix<Transposed>, false, place);
  for (int i = 0; i < 4; ++i) out[i] = arguments.out[i];
}

struct MmaLane {
  float a[8], b[4], d[4];
};
LOMU_EMU_RESOLVER void resolve_mma(void* const* lanes, unsigned active, Place place) {
  if (active != ~0u) fail(place, "mma needs all 32 lanes, has %#x", active);
  float a[16][16], b[16][8], d[16][8];
  for (int l = 0; l < 32; ++l) {
    const auto* lane = static_cast<MmaLane*>(lanes[l]);
    const int g = l / 4, t = l % 4 * 2;
    for (int e = 0; e < 8; ++e) a[g + e / 2 % 2 * 8][t + e % 2 + e / 4 * 8] = lane->a[e];
    for (int e = 0; e < 4; ++e) {
      b[t + e % 2 + e / 2 * 8][g] = lane->b[e];
      d[g + e / 2 * 8][t + e % 2] = lane->d[e];
    }
  }
  for (int row = 0; row < 16; ++row) {
    for (int k = 0; k < 16; ++k) {
      for (int col = 0; col < 8; ++col) d[row][col] += a[row][k] * b[k][col];
    }
  }
  for (int l = 0; l < 32; ++l) {
    for (int e = 0; e < 4; ++e) static_cast<MmaLane*>(lanes[l])->d[e] = d[l / 4 + e / 2 * 8][l % 4 * 2 + e % 2];
  }
}
inline float half_of(std::uint32_t word, int upper) {
  return std::bit_cast<float>(upper != 0 ? word & 0xffff0000u : word << 16);
}
inline void mma_bf16(float (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1, Place place) {
  MmaLane arguments;
  for (int i = 0; i < 8; ++i) arguments.a[i] = half_of(a[i / 2], i % 2);
  for (int i = 0; i < 4; ++i) arguments.b[i] = half_of(i < 2 ? b0 : b1, i % 2);
  for (int i = 0; i < 4; ++i) arguments.d[i] = d[i];
  warp_collective("mma", ~0u, &arguments, resolve_mma, false, place);
  for (int i = 0; i < 4; ++i) d[i] = arguments.d[i];
}

}  // namespace lomu::emu
