#include "kernels/cpu/block.h"
#include "kernels/cpu/vector_math.h"

namespace lomu::cpu {
namespace {

enum Slot : std::size_t { kGate, kUp, kOut, kDh };

}  // namespace

void swiglu_scratch(TeamScratch& scratch, std::int64_t intermediate) {
  for (const Slot slot : {kGate, kUp, kDh}) scratch.worker.need<float>(slot, intermediate);
  scratch.worker.need<float>(kOut, 2 * intermediate);
}

template <class T>
void swiglu(Team& team, const Tensor& gate_up, const Tensor& h) {
  const std::int64_t f = h.cols;
  for_rows(team, h.rows, [&](std::int64_t t, Worker& worker) {
    const T* row = gate_up.row<T>(t);
    const float* gate = as_f32(row, worker.scratch<float>(kGate, f, team.memory()), f);
    const float* up = as_f32(row + f, worker.scratch<float>(kUp, f, team.memory()), f);
    float* out = worker.scratch<float>(kOut, f, team.memory());
#pragma omp simd
    for (std::int64_t i = 0; i < f; ++i) out[i] = gate[i] / (1.0f + fast_exp(-gate[i])) * up[i];
    narrow(out, h.row<T>(t), f);
  });
}

template <class T>
void swiglu_backward(Team& team, const Tensor& dh, const Tensor& gate_up, const Tensor& d_gate_up) {
  const std::int64_t f = dh.cols;
  for_rows(team, dh.rows, [&](std::int64_t t, Worker& worker) {
    const T* row = gate_up.row<T>(t);
    const float* gate = as_f32(row, worker.scratch<float>(kGate, f, team.memory()), f);
    const float* up = as_f32(row + f, worker.scratch<float>(kUp, f, team.memory()), f);
    const float* g = as_f32(dh.row<T>(t), worker.scratch<float>(kDh, f, team.memory()), f);
    float* d_gate = worker.scratch<float>(kOut, 2 * f, team.memory());
    float* d_up = d_gate + f;
#pragma omp simd
    for (std::int64_t i = 0; i < f; ++i) {
      const float sigmoid = 1.0f / (1.0f + fast_exp(-gate[i]));
      const float silu = gate[i] * sigmoid;
      d_up[i] = g[i] * silu;
      d_gate[i] = g[i] * up[i] * (sigmoid + silu * (1.0f - sigmoid));
    }
    narrow(d_gate, d_gate_up.row<T>(t), 2 * f);
  });
}

template void swiglu<float>(Team&, const Tensor&, const Tensor&);
template void swiglu<BF16>(Team&, const Tensor&, const Tensor&);
template void swiglu_backward<float>(Team&, const Tensor&, const Tensor&, const Tensor&);
template void swiglu_backward<BF16>(Team&, const Tensor&, const Tensor&, const Tensor&);

}  // namespace lomu::cpu
