// The polynomial recursions of the LoRA-Muon paper (arXiv 2606.12921) on r x r matrices, by one block of threads: the
// device's engine/optimizers/newton_schulz.h. Kept for fidelity, not for speed. Device code.
#pragma once

#include "kernels/cuda/small_square.h"

namespace lomu::cuda {

struct Quintic {
  double a, b, c;
};

// Both tables are the paper's. Passed to kernels by value: device code cannot index a host constant.
struct NewtonSchulzTables {
  Quintic sign[8] = {{7.2086, -15.5131, 9.0178}, {3.9623, -2.5813, 0.4542}, {3.9466, -2.5765, 0.4544},
                     {3.8991, -2.5671, 0.4566},  {3.7186, -2.5308, 0.4653}, {3.1390, -2.3073, 0.4733},
                     {2.1715, -1.5246, 0.3885},  {1.8648, -1.2224, 0.3577}};
  Quintic inverse_root[7] = {{7.424865680309214, -18.39581635618996, 12.896720413604342},
                             {3.4877256051546017, -2.3300436563986993, 0.4404692168431095},
                             {2.7766085124882527, -2.070643152532662, 0.46302261050004967},
                             {1.9913142104341506, -1.373936700681269, 0.3875934979568538},
                             {1.8754637749479246, -1.2505152090010534, 0.37505152463617264},
                             {1.874999066623701, -1.2499981332141676, 0.37499906659046633},
                             {1.875, -1.25, 0.375}};
};

/// w = a I + b g + c g^2.
template <class Real>
__device__ inline void quintic(Square<Real> w, Square<Real> g, Quintic q) {
  multiply(w, view(g), view(g));
  const Real b = real<Real>(q.b), c = real<Real>(q.c);
  for_each_element(g.size, [&](int i, int j) {
    w(i, j) = mul_add(b, g(i, j), mul_add(c, w(i, j), i == j ? real<Real>(q.a) : Real{}));
  });
  __syncthreads();
}

/// b <- a b a^T, exactly symmetric; scratch is overwritten.
template <class Real>
__device__ inline void congruence(Square<Real> a, Square<Real> b, Square<Real> scratch) {
  multiply(scratch, view(a), view(b));
  multiply(b, view(scratch), view(a).transposed());
  symmetrise(b);
}

template <class Real>
__device__ inline void set_identity(Square<Real> a, Real diagonal) {
  for_each_element(a.size, [&](int i, int j) { a(i, j) = i == j ? diagonal : Real{}; });
  __syncthreads();
}

template <class Real>
struct FiveSquares {
  Square<Real> a, b, c, d, e;
};

/// One coupled step: x <- x w, p <- w p w^T, w the quintic of p; x and spare change places.
template <class Real>
__device__ inline void coupled_step(Square<Real>& x, Square<Real> p, Square<Real> w, Square<Real>& spare, Quintic q) {
  quintic(w, p, q);
  multiply(spare, view(x), view(w));
  const Square<Real> product = spare;
  spare = x;
  x = product;
  congruence(w, p, spare);
}

/// m.a (the metric C) is used up. Returns which square holds C^(-1/2): of m.b and m.d.
template <class Real>
__device__ Square<Real> newton_schulz_inverse_root(FiveSquares<Real> m, const NewtonSchulzTables& tables) {
  constexpr double kShift = 1e-5, kMargin = 1.001;
  const Real squares = sum_of<Real>(m.a.size, [&](int i) {
    const Vector<Real> row{&m.a(i, 0), 1};
    return inner(row, row, 0, m.a.size);
  });
  __syncthreads();
  const Real norm = root(squares), inverse = real<Real>(1.0) / norm;
  for_each_element(
      m.a.size, [&](int i, int j) { m.a(i, j) = mul_add(inverse, m.a(i, j), i == j ? real<Real>(kShift) : Real{}); });
  set_identity(m.b, real<Real>(1.0) / root(norm));
  Square<Real> x = m.b, spare = m.d;
#pragma unroll 1
  for (int step = 0; step < 7; ++step) {
    const Quintic q = tables.inverse_root[step];
    constexpr double kCube = kMargin * kMargin * kMargin;
    coupled_step(x, m.a, m.c, spare, {q.a / kMargin, q.b / kCube, q.c / (kCube * kMargin * kMargin)});
  }
  return x;
}

/// m.a (the Gram of Y) is used up. Returns which square holds W with msign(Y) ~ Y W. norm_floor: what is added to
/// ||Y||_F.
template <class Real>
__device__ Square<Real> newton_schulz_sign(FiveSquares<Real> m, double norm_floor, const NewtonSchulzTables& tables) {
  const Real norm = root(trace(m.a)) + real<Real>(norm_floor), inverse = real<Real>(1.0) / norm;
  __syncthreads();  // all have read the diagonal
  multiply_all(m.a, inverse * inverse);
  set_identity(m.b, inverse);
  Square<Real> total = m.b, spare = m.d;
#pragma unroll 1
  for (int step = 0; step < 8; ++step) coupled_step(total, m.a, m.c, spare, tables.sign[step]);
  return total;
}

}  // namespace lomu::cuda
