#include "engine/optimizers/verify_vectors.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>

#include "engine/optimizers/fixed_order_sum.h"
#include "engine/optimizers/optimizer.h"
#include "engine/optimizers/small_matrix.h"
#include "kernels/error.h"

namespace lomu {
namespace {

constexpr double kReferenceTolerance = 1e-9;
constexpr double kCpuTolerance = 1e-6;
constexpr double kFloat32Share = 0.119;                // 2^-23 / 1e-6
constexpr double kMomentumRounding = 4.0 / (1 << 24);  // of float32, four roundings

std::vector<float> to_float(const std::vector<double>& values) {
  return {values.begin(), values.end()};
}
std::vector<double> to_double(std::span<const float> values) {
  return {values.begin(), values.end()};
}

template <class T>
std::vector<T> transposed(const std::vector<T>& values, std::int64_t rows, std::int64_t columns) {
  std::vector<T> out(values.size());
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < columns; ++j) {
      out[static_cast<std::size_t>(j * rows + i)] = values[static_cast<std::size_t>(i * columns + j)];
    }
  }
  return out;
}

/// The step of a training run, on arrays laid out as PEFT's.
ReferenceState cpu_step(const LoraMuonCase& c) {
  const ReferenceProblem& p = c.problem;
  OptimizerOptions options;
  options.lr = p.lr;
  options.momentum = p.momentum;
  options.weight_decay = p.weight_decay;
  options.damping = p.damping_right;
  options.balance_every = 0;
  const std::unique_ptr<Optimizer> optimizer = make_optimizer(options);

  std::vector<float> left = to_float(p.before.left);
  std::vector<float> right = to_float(transposed(p.before.right, p.n, p.r));
  const std::vector<float> grad_left = to_float(p.grad_left);
  const std::vector<float> grad_right = to_float(transposed(p.grad_right, p.n, p.r));
  std::vector<float> state = to_float(p.before.momentum_left);
  const std::vector<float> momentum_right = to_float(transposed(p.before.momentum_right, p.n, p.r));
  state.insert(state.end(), momentum_right.begin(), momentum_right.end());

  PairView pair;
  pair.name = c.name;
  pair.m = p.m;
  pair.n = p.n;
  pair.r = p.r;
  pair.scale = p.scale;
  pair.left = left.data();
  pair.right = right.data();
  pair.grad_left = grad_left.data();
  pair.grad_right = grad_right.data();
  pair.state = state;
  pair.left_started_zero = p.damping_right.has_value();
  StepReport report;
  optimizer->step({&pair, 1}, StepInfo{1, p.lr, {}}, report);

  const auto slot = [&](std::size_t index) { return to_double(state_slot(pair, optimizer->state_slots(), index)); };
  return {to_double(left), transposed(to_double(right), p.r, p.n), slot(0), transposed(slot(1), p.r, p.n)};
}

double norm(const std::vector<double>& x) {
  return std::sqrt(sum_of_squares(x));
}

double distance(std::vector<double> x, const std::vector<double>& y) {
  std::transform(x.begin(), x.end(), y.begin(), x.begin(), std::minus<>());
  return norm(x);
}

/// Condition number over the singular values that a step counts as nonzero. momentum: [rows, r].
double condition(const std::vector<double>& momentum, std::int64_t rows, std::int64_t r) {
  SmallMatrix gram(r);
  for (std::int64_t row = 0; row < rows; ++row) {
    const double* x = momentum.data() + row * r;
    for (std::int64_t i = 0; i < r; ++i) {
      for (std::int64_t j = 0; j < r; ++j) gram(i, j) += x[i] * x[j];
    }
  }
  const std::vector<double> sigma = singular_values(gram);
  double least = sigma.front();
  for (const double s : sigma) {
    if (s > kZeroSingularValue * sigma.front()) least = s;
  }
  return least > 0.0 ? sigma.front() / least : 1.0;
}

double error_of(const std::vector<double>& got, const std::vector<double>& expected, const std::vector<double>& old,
                VectorBackend backend) {
  const double off = distance(got, expected);
  if (off == 0.0) return 0.0;
  const double moved = distance(expected, old);
  if (backend == VectorBackend::kCpu) return off / (moved + kFloat32Share * norm(expected));
  return off / (moved > 0.0 ? moved : norm(expected));
}

double tolerance_of(VectorBackend backend, const std::vector<double>& momentum, std::int64_t rows, std::int64_t r) {
  if (backend == VectorBackend::kReference) return kReferenceTolerance;
  const double allowance = kMomentumRounding * condition(momentum, rows, r);
  return allowance > kCpuTolerance ? kCpuTolerance + allowance : kCpuTolerance;
}

/// One compared array: its field, where it lies in a state, and the momentum whose condition bears on it.
struct Quantity {
  const char* field;
  std::vector<double> ReferenceState::*values;
  std::vector<double> ReferenceState::*momentum;
  std::int64_t ReferenceProblem::*rows;
};

const std::array<Quantity, 4> kQuantities{{
    {"expect_left", &ReferenceState::left, &ReferenceState::momentum_left, &ReferenceProblem::m},
    {"expect_right", &ReferenceState::right, &ReferenceState::momentum_right, &ReferenceProblem::n},
    {"expect_momentum_left", &ReferenceState::momentum_left, nullptr, &ReferenceProblem::m},
    {"expect_momentum_right", &ReferenceState::momentum_right, nullptr, &ReferenceProblem::n},
}};

void verify_case(const LoraMuonCase& c, VectorBackend backend, std::vector<VectorCheck>& checks) {
  ReferenceState got;
  std::string refusal;
  try {
    got = backend == VectorBackend::kReference ? reference_step(c.problem) : cpu_step(c);
  } catch (const Error& error) {
    refusal = error.what();
  }
  for (const Quantity& q : kQuantities) {
    VectorCheck check{c.name, q.field, kNoResult, 0.0, false, refusal};
    check.tolerance = backend == VectorBackend::kReference ? kReferenceTolerance : kCpuTolerance;
    if (q.momentum) check.tolerance = tolerance_of(backend, c.expected.*q.momentum, c.problem.*q.rows, c.problem.r);
    if (refusal.empty()) {
      check.error = error_of(got.*q.values, c.expected.*q.values, c.problem.before.*q.values, backend);
      check.pass = check.error <= check.tolerance;
    }
    checks.push_back(std::move(check));
  }
}

}  // namespace

std::vector<VectorCheck> verify_lora_muon(const std::vector<LoraMuonCase>& cases, VectorBackend backend) {
  std::vector<VectorCheck> checks;
  for (const LoraMuonCase& c : cases) verify_case(c, backend, checks);
  return checks;
}

std::vector<VectorCheck> verify_lora_muon(const std::filesystem::path& path, VectorBackend backend) {
  return verify_lora_muon(read_lora_muon_cases(path), backend);
}

}  // namespace lomu
