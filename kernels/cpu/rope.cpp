#include "kernels/cpu/block.h"
#include "kernels/cpu/vector_math.h"

namespace lomu::cpu {
namespace {

enum Slot : std::size_t { kHead };

}  // namespace

void rope_scratch(TeamScratch& scratch, std::int64_t head_dim) {
  scratch.worker.need<float>(kHead, 2 * head_dim);
}

template <class T>
void rope(Team& team, const Tensor& x, std::span<const std::int32_t> positions, std::int64_t heads, const Tensor& cos,
          const Tensor& sin, bool inverse) {
  const std::int64_t d = x.cols / heads;
  const std::int64_t half = d / 2;
  const float sign = inverse ? -1.0f : 1.0f;
  for_rows(team, x.rows, [&](std::int64_t t, Worker& worker) {
    float* head = worker.scratch<float>(kHead, 2 * d, team.memory());
    float* turned = head + d;
    const std::int64_t position = positions[static_cast<std::size_t>(t)];
    const float* c = cos.row<float>(position);
    const float* s = sin.row<float>(position);
    for (std::int64_t h = 0; h < heads; ++h) {
      T* row = x.row<T>(t) + h * d;
      widen(row, head, d);
#pragma omp simd
      for (std::int64_t i = 0; i < half; ++i) {
        const float a = head[i];
        const float b = head[half + i];
        turned[i] = a * c[i] - sign * b * s[i];
        turned[half + i] = b * c[i] + sign * a * s[i];
      }
      narrow(turned, row, d);
    }
  });
}

template void rope<float>(Team&, const Tensor&, std::span<const std::int32_t>, std::int64_t, const Tensor&,
                          const Tensor&, bool);
template void rope<BF16>(Team&, const Tensor&, std::span<const std::int32_t>, std::int64_t, const Tensor&,
                         const Tensor&, bool);

}  // namespace lomu::cpu
