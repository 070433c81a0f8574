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

/// A case as float32 arrays laid out as PEFT's.
struct FloatCase {
  explicit FloatCase(const ReferenceProblem& p)
      : left(to_float(p.before.left)),
        right(to_float(transposed(p.before.right, p.n, p.r))),
        grad_left(to_float(p.grad_left)),
        grad_right(to_float(transposed(p.grad_right, p.n, p.r))),
        momentum_left(to_float(p.before.momentum_left)),
        momentum_right(to_float(transposed(p.before.momentum_right, p.n, p.r))) {}

  [[nodiscard]] ReferenceState state(const ReferenceProblem& p) const {
    return {to_double(left), transposed(to_double(right), p.r, p.n), to_double(momentum_left),
            transposed(to_double(momentum_right), p.r, p.n)};
  }

  std::vector<float> left, right, grad_left, grad_right, momentum_left, momentum_right;
};

/// The step of a training run on the CPU.
ReferenceState cpu_step(const LoraMuonCase& c) {
  const ReferenceProblem& p = c.problem;
  OptimizerOptions options;
  options.lr = p.lr;
  options.momentum = p.momentum;
  options.weight_decay = p.weight_decay;
  options.damping = p.damping_right;
  options.balance_every = 0;
  const std::unique_ptr<Optimizer> optimizer = make_optimizer(options);

  FloatCase f(p);
  std::vector<float> state = f.momentum_left;
  state.insert(state.end(), f.momentum_right.begin(), f.momentum_right.end());
  PairView pair;
  pair.name = c.name;
  pair.m = p.m;
  pair.n = p.n;
  pair.r = p.r;
  pair.scale = p.scale;
  pair.left = f.left.data();
  pair.right = f.right.data();
  pair.grad_left = f.grad_left.data();
  pair.grad_right = f.grad_right.data();
  pair.state = state;
  pair.left_started_zero = p.damping_right.has_value();
  StepReport report;
  optimizer->step({&pair, 1}, StepInfo{1, p.lr, {}}, report);

  const auto middle = state.begin() + p.m * p.r;
  f.momentum_left.assign(state.begin(), middle);
  f.momentum_right.assign(middle, state.end());
  return f.state(p);
}

/// The step of a training run on a GPU.
ReferenceState device_step(const LoraMuonCase& c, const Backend& device) {
  const ReferenceProblem& p = c.problem;
  DeviceOptimizerOptions options;
  options.momentum = p.momentum;
  options.weight_decay = p.weight_decay;
  options.damping = p.damping_right;

  FloatCase f(p);
  const std::array arrays{&f.left, &f.right, &f.grad_left, &f.grad_right, &f.momentum_left, &f.momentum_right};
  std::array<std::size_t, arrays.size()> at{};
  std::size_t floats = 0;
  for (std::size_t i = 0; i < arrays.size(); ++i) {
    at[i] = floats;
    floats += arrays[i]->size();
  }
  Storage& storage = device.memory->storage();
  const Buffer buffer = device.memory->allocate(Scope::kOptimizer, floats * sizeof(float), "a case");
  const auto place = [&](std::size_t i) { return buffer.as<float>() + at[i]; };
  for (std::size_t i = 0; i < arrays.size(); ++i) {
    storage.upload(place(i), arrays[i]->data(), arrays[i]->size() * sizeof(float));
  }
  DevicePair pair;
  pair.m = p.m;
  pair.n = p.n;
  pair.r = p.r;
  pair.scale = p.scale;
  pair.left_started_zero = p.damping_right.has_value();
  pair.left = place(0);
  pair.right = place(1);
  pair.grad_left = place(2);
  pair.grad_right = place(3);
  pair.state = place(4);
  const auto optimizer = device.steps->make_optimizer({&pair, 1}, options, *device.memory);
  optimizer->step(1, p.lr, optimizer->gradient_norms_squared().front());
  const DevicePairReport report = optimizer->reports().front();
  if (!report.failure.empty()) throw NumericError(std::string(report.failure), c.name);
  for (const std::size_t i : {0, 1, 4, 5}) {
    storage.download(arrays[i]->data(), place(i), arrays[i]->size() * sizeof(float));
  }
  return f.state(p);
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

/// Which limits hold, and what makes the step.
struct Target {
  VectorBackend limits;
  std::function<ReferenceState(const LoraMuonCase&)> step;
};

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

void verify_case(const LoraMuonCase& c, const Target& target, std::vector<VectorCheck>& checks) {
  const VectorBackend backend = target.limits;
  ReferenceState got;
  std::string refusal;
  try {
    got = target.step(c);
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

std::vector<VectorCheck> verify_on(const std::vector<LoraMuonCase>& cases, const Target& target) {
  std::vector<VectorCheck> checks;
  for (const LoraMuonCase& c : cases) verify_case(c, target, checks);
  return checks;
}

}  // namespace

std::vector<VectorCheck> verify_lora_muon(const std::vector<LoraMuonCase>& cases, VectorBackend backend) {
  if (backend == VectorBackend::kCpu) return verify_on(cases, {backend, cpu_step});
  return verify_on(cases, {backend, [](const LoraMuonCase& c) { return reference_step(c.problem); }});
}

std::vector<VectorCheck> verify_lora_muon(const std::vector<LoraMuonCase>& cases, const Backend& device) {
  return verify_on(cases, {VectorBackend::kCpu, [&](const LoraMuonCase& c) { return device_step(c, device); }});
}

std::vector<VectorCheck> verify_lora_muon(const std::filesystem::path& path, const Backend& device) {
  return verify_lora_muon(read_lora_muon_cases(path), device);
}

std::vector<VectorCheck> verify_lora_muon(const std::filesystem::path& path, VectorBackend backend) {
  return verify_lora_muon(read_lora_muon_cases(path), backend);
}

}  // namespace lomu
