#include "kernels/cuda/device_steps.h"

#include <cstring>
#include <utility>

#include "kernels/cuda/adamw.h"
#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/gradient_norms.h"
#include "kernels/cuda/lora_muon.h"

namespace lomu::cuda {
namespace {

std::vector<PairDesc> described(std::span<const DevicePair> pairs, const DeviceOptimizerOptions& options) {
  std::vector<PairDesc> descs;
  for (const DevicePair& pair : pairs) {
    PairDesc& desc = descs.emplace_back();
    desc.m = pair.m;
    desc.n = pair.n;
    desc.r = static_cast<int>(pair.r);
    desc.scale = pair.scale;
    desc.step_multiplier = pair.step_multiplier;
    desc.left_started_zero = pair.left_started_zero;
    desc.right_started_zero = pair.right_started_zero;
    const std::int64_t left = pair.m * pair.r, right = pair.n * pair.r;
    desc.left = {pair.left, pair.grad_left, pair.state, nullptr, pair.packed.left};
    desc.right = {pair.right, pair.grad_right, pair.state + left, nullptr, pair.packed.right};
    if (options.name != DeviceOptimizerOptions::Name::kAdamW) continue;
    desc.left.second_moment = pair.state + left + right;
    desc.right.second_moment = desc.left.second_moment + left;
  }
  return descs;
}

std::string_view text_of(LoraMuonStatus status) {
  switch (status) {
    case LoraMuonStatus::kDone: return "";
    case LoraMuonStatus::kFactorNotFinite: return "a factor is not finite";
    case LoraMuonStatus::kGradientNotFinite: return "a gradient or momentum is not finite";
    case LoraMuonStatus::kPartnerZero: return "a factor is zero, so the step of its partner has no metric";
    case LoraMuonStatus::kMetricNotPositive: return "the metric of a factor is not positive definite";
    case LoraMuonStatus::kNotConverged: return "the eigenvalues of the whitened momentum did not converge";
  }
  return "the step failed";
}

/// A table that a plan made, and its workspace of zeros, on the device.
struct OnDevice {
  Buffer table;
  Buffer workspace;

  OnDevice(Memory& memory, std::span<const std::byte> content, std::size_t workspace_bytes)
      : table(memory.allocate(Scope::kOptimizer, content.size(), "tables of the optimizer")),
        workspace(memory.allocate(Scope::kOptimizer, workspace_bytes, "workspace of the optimizer")) {
    if (!content.empty()) memory.storage().upload(table.data(), content.data(), content.size());
  }
};

/// What both optimizers share: the gradients' norms, and the numbers of a step where kernels read them.
class OptimizerOnDevice : public DeviceOptimizer {
 public:
  OptimizerOnDevice(std::span<const PairDesc> pairs, Memory& memory, Stream stream)
      : storage_(memory.storage()),
        stream_(stream),
        pairs_(pairs.size()),
        norms_(pairs),
        norms_on_device_(memory, norms_.table(), norms_.workspace_bytes()),
        squares_(memory.allocate(Scope::kOptimizer, (pairs.size() + 1) * sizeof(double), "norms of gradients")) {}

  std::vector<double> gradient_norms_squared() override {
    std::vector<double> squares(pairs_);
    if (pairs_ == 0) return squares;
    norms_.run(norms_on_device_.table.data(), norms_on_device_.workspace.data(), squares_.as<double>(), stream_);
    storage_.download(squares.data(), squares_.data(), pairs_ * sizeof(double));
    return squares;
  }

 protected:
  /// A small value where kernels read it.
  template <class T>
  const T* send(const Buffer& place, const T& value) {
    storage_.upload(place.data(), &value, sizeof value);
    return place.as<T>();
  }
  template <class Report>
  std::vector<Report> fetch(const Buffer& workspace, std::size_t offset) {
    std::vector<Report> reports(2 * pairs_);
    if (pairs_ > 0) storage_.download(reports.data(), workspace.data() + offset, reports.size() * sizeof(Report));
    return reports;
  }
  [[nodiscard]] std::size_t pairs() const { return pairs_; }
  [[nodiscard]] Stream stream() const { return stream_; }
  /// The last place of the norms: their sum over all ranks.
  const double* send_total(double total) {
    storage_.upload(squares_.as<double>() + pairs_, &total, sizeof total);
    return squares_.as<double>() + pairs_;
  }

 private:
  Storage& storage_;
  Stream stream_;
  std::size_t pairs_;
  GradientNorms norms_;
  OnDevice norms_on_device_;
  Buffer squares_;  ///< of each pair, then of all pairs of all ranks
};

class LoraMuonOnDevice final : public OptimizerOnDevice {
 public:
  LoraMuonOnDevice(std::span<const PairDesc> pairs, const LoraMuonOptions& options, Memory& memory, Stream stream)
      : OptimizerOnDevice(pairs, memory, stream),
        plan_(pairs, options),
        on_device_(memory, plan_.table(), plan_.workspace_bytes()),
        step_(memory.allocate(Scope::kOptimizer, sizeof(LoraMuonStep), "learning rate")) {}

  void step(std::int64_t, double lr, double grad_norm_squared) override {
    const double* total = send_total(grad_norm_squared);
    plan_.step(on_device_.table.data(), on_device_.workspace.data(), send(step_, LoraMuonStep{lr}), total, stream());
  }
  void balance() override { plan_.balance(on_device_.table.data(), on_device_.workspace.data(), stream()); }

  std::vector<DevicePairReport> reports() override {
    const auto halves = fetch<LoraMuonHalfReport>(on_device_.workspace, plan_.reports_offset());
    std::vector<DevicePairReport> reports(pairs());
    for (std::size_t i = 0; i < reports.size(); ++i) {
      const LoraMuonHalfReport& left = halves[2 * i];
      const LoraMuonHalfReport& right = halves[2 * i + 1];
      const LoraMuonStatus status = left.status == LoraMuonStatus::kDone ? right.status : left.status;
      reports[i] = {left.step_norm_squared,
                    right.step_norm_squared,
                    left.factor_norm_squared,
                    right.factor_norm_squared,
                    left.cholesky_raises + right.cholesky_raises,
                    text_of(status)};
    }
    return reports;
  }

 private:
  LoraMuonPlan plan_;
  OnDevice on_device_;
  Buffer step_;
};

class AdamwOnDevice final : public OptimizerOnDevice {
 public:
  AdamwOnDevice(std::span<const PairDesc> pairs, const AdamwOptions& options, Memory& memory, Stream stream)
      : OptimizerOnDevice(pairs, memory, stream),
        options_(options),
        plan_(pairs, options),
        on_device_(memory, plan_.table(), plan_.workspace_bytes()),
        step_(memory.allocate(Scope::kOptimizer, sizeof(AdamwStep), "learning rate")) {}

  void step(std::int64_t step, double lr, double grad_norm_squared) override {
    const double* total = send_total(grad_norm_squared);
    plan_.step(on_device_.table.data(), on_device_.workspace.data(), send(step_, adamw_step(options_, lr, step)), total,
               stream());
  }
  void balance() override {}

  std::vector<DevicePairReport> reports() override {
    const auto halves = fetch<AdamwHalfReport>(on_device_.workspace, plan_.reports_offset());
    std::vector<DevicePairReport> reports(pairs());
    for (std::size_t i = 0; i < reports.size(); ++i) {
      const AdamwHalfReport& left = halves[2 * i];
      const AdamwHalfReport& right = halves[2 * i + 1];
      reports[i] = {
          left.step_norm_squared, right.step_norm_squared, left.factor_norm_squared, right.factor_norm_squared, 0, {}};
    }
    return reports;
  }

 private:
  AdamwOptions options_;
  AdamwPlan plan_;
  OnDevice on_device_;
  Buffer step_;
};

class CudaSteps final : public DeviceSteps {
 public:
  explicit CudaSteps(Device& device) : device_(device) {}

  [[nodiscard]] Stream stream() const override { return device_.stream(); }
  void add(float* into, const float* from, std::size_t count) override {
    cuda::add(from, into, count, device_.stream());
  }
  void copy(float* to, const float* from, std::size_t count) override { cuda::copy(from, to, count, device_.stream()); }

  std::unique_ptr<DeviceOptimizer> make_optimizer(std::span<const DevicePair> pairs,
                                                  const DeviceOptimizerOptions& options, Memory& memory) override {
    const std::vector<PairDesc> descs = described(pairs, options);
    const Precision precision = device_.fast_float64() ? Precision::kDouble : Precision::kTwoFloat;
    if (options.name == DeviceOptimizerOptions::Name::kAdamW) {
      const AdamwOptions adamw{options.beta1,        options.beta2,         options.eps,
                               options.weight_decay, options.max_grad_norm, precision};
      return std::make_unique<AdamwOnDevice>(descs, adamw, memory, device_.stream());
    }
    const LoraMuonOptions muon{
        options.momentum,      options.nesterov, options.weight_decay, options.max_grad_norm, options.damping,
        options.newton_schulz, precision};
    return std::make_unique<LoraMuonOnDevice>(descs, muon, memory, device_.stream());
  }

 private:
  Device& device_;
};

}  // namespace

std::unique_ptr<DeviceSteps> make_device_steps(Device& device) {
  return std::make_unique<CudaSteps>(device);
}

}  // namespace lomu::cuda
