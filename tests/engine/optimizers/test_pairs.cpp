#include "tests/engine/optimizers/test_pairs.h"

#include <algorithm>

namespace lomu::testing {
namespace {

void set(std::vector<float>& to, const Dense& from) {
  to.assign(from.values().begin(), from.values().end());
}

}  // namespace

OwnedPair::OwnedPair(std::int64_t rows, std::int64_t columns, std::int64_t rank) : m(rows), n(columns), r(rank) {
  left.resize(static_cast<std::size_t>(m * r));
  right.resize(static_cast<std::size_t>(n * r));
  grad_left = left;
  grad_right = right;
}

OwnedPair::OwnedPair(std::int64_t rows, std::int64_t columns) : m(rows), n(columns), r(columns), dense(true) {
  left.resize(static_cast<std::size_t>(m * n));
  grad_left = left;
}

void OwnedPair::give_state(const Optimizer& optimizer) {
  state.assign(static_cast<std::size_t>(optimizer.state_size({name, m, n, r, dense})), 0.0f);
}

PairView OwnedPair::view() {
  PairView v;
  v.name = name;
  v.m = m;
  v.n = n;
  v.r = r;
  v.scale = scale;
  v.left = left.data();
  v.right = dense ? nullptr : right.data();
  v.grad_left = grad_left.data();
  v.grad_right = dense ? nullptr : grad_right.data();
  v.state = state;
  v.left_started_zero = left_started_zero;
  v.right_started_zero = right_started_zero;
  return v;
}

Dense left_of(const OwnedPair& p) {
  return Dense(p.left.data(), p.m, p.r);
}
Dense right_of(const OwnedPair& p) {
  return Dense(p.right.data(), p.r, p.n).transpose();
}
void set_left(OwnedPair& p, const Dense& x) {
  set(p.left, x);
}
void set_right(OwnedPair& p, const Dense& q) {
  set(p.right, q.transpose());
}

void set_gradients(OwnedPair& p, const Dense& left, const Dense& right) {
  set(p.grad_left, left);
  set(p.grad_right, right.transpose());
}

void set_momenta(OwnedPair& p, const Dense& left, const Dense& right) {
  set(p.state, left);
  const Dense rows = right.transpose();
  p.state.insert(p.state.end(), rows.values().begin(), rows.values().end());
}

OwnedPair random_pair(std::mt19937_64& random, std::int64_t m, std::int64_t n, std::int64_t r) {
  OwnedPair p(m, n, r);
  set_left(p, random_dense(random, m, r, 0.1));
  set_right(p, random_dense(random, n, r, 0.1));
  set_gradients(p, random_dense(random, m, r, 1e-4), random_dense(random, n, r, 1e-4));
  set_momenta(p, random_dense(random, m, r, 1e-4), random_dense(random, n, r, 1e-4));
  return p;
}

OwnedPair random_matrix(std::mt19937_64& random, std::int64_t m, std::int64_t n) {
  OwnedPair p(m, n);
  set(p.left, random_dense(random, m, n, 0.1));
  set(p.grad_left, random_dense(random, m, n, 1e-4));
  return p;
}

ReferenceProblem problem_of(const OwnedPair& p, const OptimizerOptions& options) {
  ReferenceProblem out;
  out.m = p.m;
  out.n = p.n;
  out.r = p.r;
  out.lr = options.lr;
  out.scale = p.scale;
  out.momentum = options.momentum;
  out.weight_decay = options.weight_decay;
  out.nesterov = options.nesterov;
  if (p.left_started_zero) out.damping_right = options.damping;
  if (p.right_started_zero) out.damping_left = options.damping;
  out.before.left = left_of(p).values();
  out.before.right = right_of(p).values();
  out.before.momentum_left = Dense(p.state.data(), p.m, p.r).values();
  out.before.momentum_right = Dense(p.state.data() + p.m * p.r, p.r, p.n).transpose().values();
  out.grad_left = Dense(p.grad_left.data(), p.m, p.r).values();
  out.grad_right = Dense(p.grad_right.data(), p.r, p.n).transpose().values();
  return out;
}

StepReport step_once(Optimizer& optimizer, OwnedPair& pair, const StepInfo& info) {
  const PairView view = pair.view();
  StepReport report;
  optimizer.step({&view, 1}, info, report);
  return report;
}

double step_error(const Dense& got, const Dense& expected, const Dense& old) {
  return (got - expected).norm() / ((expected - old).norm() + 0.119 * expected.norm());
}

}  // namespace lomu::testing
