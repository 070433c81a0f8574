#include <algorithm>
#include <cmath>

#include "kernels/cpu/block.h"
#include "kernels/cpu/vector_math.h"

namespace lomu::cpu {
namespace {

enum Slot : std::size_t { kX, kY };

float inverse_rms(const float* x, std::int64_t n, double eps) {
  return static_cast<float>(1.0 / std::sqrt(static_cast<double>(dot(x, x, n)) / static_cast<double>(n) + eps));
}

void norm_row(const float* x, const float* weight, std::int64_t n, double eps, float* y) {
  const float r = inverse_rms(x, n, eps);
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) y[i] = x[i] * r * weight[i];
}

/// g = gradient with respect to x of norm_row, from dy: r (w dy - x r^2 mean(w dy x)). May replace dy.
void norm_row_backward(const float* dy, const float* x, const float* weight, std::int64_t n, double eps, float* g) {
  const float r = inverse_rms(x, n, eps);
  float projection = 0;
#pragma omp simd reduction(+ : projection)
  for (std::int64_t i = 0; i < n; ++i) projection += weight[i] * dy[i] * x[i];
  const float c = projection / static_cast<float>(n) * r * r;
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) g[i] = r * (weight[i] * dy[i] - x[i] * c);
}

}  // namespace

void norm_scratch(TeamScratch& scratch, std::int64_t hidden, std::int64_t head_dim) {
  scratch.worker.need<float>(kX, head_dim);
  scratch.worker.need<float>(kY, std::max(hidden, head_dim));
}

template <class T>
void rms_norm(Team& team, const Tensor& x, const float* weight, double eps, const Tensor& y) {
  for_rows(team, x.rows, [&](std::int64_t t, Worker& worker) {
    float* row = worker.scratch<float>(kY, x.cols, team.memory());
    norm_row(x.row<float>(t), weight, x.cols, eps, row);
    narrow(row, y.row<T>(t), x.cols);
  });
}

template <class T>
void rms_norm_backward(Team& team, const Tensor& dy, const Tensor& x, const float* weight, double eps,
                       const Tensor& dx) {
  for_rows(team, x.rows, [&](std::int64_t t, Worker& worker) {
    float* g = worker.scratch<float>(kY, x.cols, team.memory());
    norm_row_backward(as_f32(dy.row<T>(t), g, x.cols), x.row<float>(t), weight, x.cols, eps, g);
    float* out = dx.row<float>(t);
#pragma omp simd
    for (std::int64_t i = 0; i < x.cols; ++i) out[i] += g[i];
  });
}

template <class T>
void head_norm(Team& team, const Tensor& x, const float* weight, double eps, std::int64_t heads, const Tensor& y) {
  const std::int64_t d = x.cols / heads;
  for_rows(team, x.rows, [&](std::int64_t t, Worker& worker) {
    float* in = worker.scratch<float>(kX, d, team.memory());
    float* out = worker.scratch<float>(kY, d, team.memory());
    for (std::int64_t h = 0; h < heads; ++h) {
      norm_row(as_f32(x.row<T>(t) + h * d, in, d), weight, d, eps, out);
      narrow(out, y.row<T>(t) + h * d, d);
    }
  });
}

template <class T>
void head_norm_backward(Team& team, const Tensor& x, const float* weight, double eps, std::int64_t heads,
                        const Tensor& dy) {
  const std::int64_t d = x.cols / heads;
  for_rows(team, x.rows, [&](std::int64_t t, Worker& worker) {
    float* in = worker.scratch<float>(kX, d, team.memory());
    float* g = worker.scratch<float>(kY, d, team.memory());
    for (std::int64_t h = 0; h < heads; ++h) {
      T* gradient = dy.row<T>(t) + h * d;
      norm_row_backward(as_f32(gradient, g, d), as_f32(x.row<T>(t) + h * d, in, d), weight, d, eps, g);
      narrow(g, gradient, d);
    }
  });
}

template void rms_norm<float>(Team&, const Tensor&, const float*, double, const Tensor&);
template void rms_norm<BF16>(Team&, const Tensor&, const float*, double, const Tensor&);
template void rms_norm_backward<float>(Team&, const Tensor&, const Tensor&, const float*, double, const Tensor&);
template void rms_norm_backward<BF16>(Team&, const Tensor&, const Tensor&, const float*, double, const Tensor&);
template void head_norm<float>(Team&, const Tensor&, const float*, double, std::int64_t, const Tensor&);
template void head_norm<BF16>(Team&, const Tensor&, const float*, double, std::int64_t, const Tensor&);
template void head_norm_backward<float>(Team&, const Tensor&, const float*, double, std::int64_t, const Tensor&);
template void head_norm_backward<BF16>(Team&, const Tensor&, const float*, double, std::int64_t, const Tensor&);

}  // namespace lomu::cpu
