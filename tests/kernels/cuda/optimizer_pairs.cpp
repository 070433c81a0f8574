#include "tests/kernels/cuda/optimizer_pairs.h"

#include <algorithm>
#include <cstring>
#include <memory>

namespace lomu::testing {
namespace {

/// "Device" memory: 16-byte aligned, of exactly this size, every byte the same.
class Bytes {
 public:
  Bytes(std::size_t size, unsigned char fill) : data_(new (kAlign) std::byte[size]) { std::memset(data_, fill, size); }
  explicit Bytes(std::span<const std::byte> from) : data_(new (kAlign) std::byte[from.size()]) {
    if (!from.empty()) std::memcpy(data_, from.data(), from.size());
  }
  ~Bytes() { ::operator delete[](data_, kAlign); }
  Bytes(const Bytes&) = delete;
  Bytes& operator=(const Bytes&) = delete;
  [[nodiscard]] std::byte* data() { return data_; }

 private:
  static constexpr std::align_val_t kAlign{16};
  std::byte* data_;
};

constexpr unsigned char kNaN = 0xff;

template <class Report>
std::vector<Report> reports_in(Bytes& workspace, std::size_t offset, std::size_t count) {
  std::vector<Report> reports(count);
  if (count > 0) std::memcpy(reports.data(), workspace.data() + offset, count * sizeof(Report));
  return reports;
}

cuda::PairDesc described(OwnedPair& pair) {
  cuda::PairDesc desc;
  desc.m = pair.m;
  desc.n = pair.n;
  desc.r = static_cast<int>(pair.r);
  desc.scale = pair.scale;
  desc.left.factor = pair.left.data();
  desc.left.grad = pair.grad_left.data();
  desc.right.factor = pair.right.data();
  desc.right.grad = pair.grad_right.data();
  desc.left.first_moment = pair.state.data();
  desc.right.first_moment = pair.state.data() + pair.m * pair.r;
  desc.left_started_zero = pair.left_started_zero;
  desc.right_started_zero = pair.right_started_zero;
  return desc;
}

}  // namespace

cuda::PairDesc lora_muon_pair(OwnedPair& pair) {
  return described(pair);
}

cuda::PairDesc adamw_pair(OwnedPair& pair) {
  cuda::PairDesc desc = described(pair);
  desc.left.second_moment = pair.state.data() + (pair.m + pair.n) * pair.r;
  desc.right.second_moment = desc.left.second_moment + pair.m * pair.r;
  return desc;
}

std::vector<cuda::LoraMuonHalfReport> lora_muon_on_device(const std::vector<cuda::PairDesc>& pairs,
                                                          const cuda::LoraMuonOptions& options, double lr,
                                                          bool balance) {
  const cuda::LoraMuonPlan plan(pairs, options);
  Bytes table(plan.table());
  Bytes workspace(plan.workspace_bytes(), kNaN);
  const std::vector<cuda::LoraMuonStep> step{{lr}};  // not a local variable, which a device would not see
  const std::vector<double> norms = gradient_norms_on_device(pairs);
  plan.step(table.data(), workspace.data(), step.data(), &norms.back(), nullptr);
  if (balance) plan.balance(table.data(), workspace.data(), nullptr);
  return reports_in<cuda::LoraMuonHalfReport>(workspace, plan.reports_offset(), plan.report_count());
}

std::vector<cuda::LoraMuonHalfReport> lora_muon_on_device(const PairRefs& pairs, const cuda::LoraMuonOptions& options,
                                                          double lr, bool balance) {
  std::vector<cuda::PairDesc> descs;
  for (OwnedPair* pair : pairs) descs.push_back(lora_muon_pair(*pair));
  return lora_muon_on_device(descs, options, lr, balance);
}

std::vector<cuda::AdamwHalfReport> adamw_on_device(const std::vector<cuda::PairDesc>& pairs,
                                                   const cuda::AdamwOptions& options, double lr, int t) {
  const cuda::AdamwPlan plan(pairs, options);
  Bytes table(plan.table());
  Bytes workspace(plan.workspace_bytes(), 0);
  const std::vector<cuda::AdamwStep> step{adamw_step(options, lr, t)};
  const std::vector<double> norms = gradient_norms_on_device(pairs);
  plan.step(table.data(), workspace.data(), step.data(), &norms.back(), nullptr);
  return reports_in<cuda::AdamwHalfReport>(workspace, plan.reports_offset(), plan.report_count());
}

std::vector<double> gradient_norms_on_device(const std::vector<cuda::PairDesc>& pairs) {
  const cuda::GradientNorms norms(pairs);
  Bytes table(norms.table());
  Bytes workspace(norms.workspace_bytes(), 0);
  std::vector<double> out(pairs.size() + 1);
  norms.run(table.data(), workspace.data(), out.data(), nullptr);
  return out;
}

cuda::LoraMuonOptions device_options(const OptimizerOptions& options) {
  cuda::LoraMuonOptions out;
  out.momentum = options.momentum;
  out.nesterov = options.nesterov;
  out.weight_decay = options.weight_decay;
  out.max_grad_norm = options.max_grad_norm;
  out.damping = options.damping;
  out.newton_schulz = options.orthogonalizer == Orthogonalizer::kNewtonSchulz;
  return out;
}

}  // namespace lomu::testing
