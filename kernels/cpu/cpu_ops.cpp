// The production CPU backend behind the interface: one thin class over the operations of this folder.
#include "kernels/cpu/attention.h"
#include "kernels/cpu/block.h"
#include "kernels/cpu/cross_entropy.h"
#include "kernels/cpu/linear.h"
#include "kernels/cpu/weight_gradient.h"
#include "kernels/dequantize.h"
#include "kernels/error.h"

namespace lomu {
namespace cpu {
namespace {

/// The team is the only state, and an operation on const arguments may use its scratch: one rank calls one operation at
/// a time, so `mutable` hides no sharing. pack_frozen and
/// dequantize touch no team and may be called from many threads.
template <class T>
class CpuOps final : public Ops {
 public:
  CpuOps(Precision precision, int threads, Memory& memory) : precision_(precision), team_(threads, memory) {}

  [[nodiscard]] std::string_view name() const override { return "cpu"; }
  [[nodiscard]] Precision precision() const override { return precision_; }

  [[nodiscard]] std::size_t frozen_bytes(const FrozenLinear& linear) const override {
    return cpu::frozen_bytes<T>(linear);
  }
  void dequantize(const EncodedRows& from, const Tensor& to) const override { lomu::dequantize(from, to); }
  void pack_frozen(const FrozenLinear& linear, std::size_t part, std::int64_t first_row,
                   const EncodedRows& w) const override {
    cpu::pack_frozen<T>(linear, part, first_row, w.rows, dequantized(w).get());
  }
  [[nodiscard]] std::size_t adapter_bytes(const AdaptedLinear& linear) const override {
    return cpu::adapter_bytes<T>(linear);
  }
  void pack_adapters(const AdaptedLinear& linear) const override { cpu::pack_adapters<T>(team_, linear); }

  void linear_forward(const AdaptedLinear& linear, const Tensor& x, const Tensor& residual, const Tensor& y,
                      const Tensor& s) const override {
    cpu::linear_forward<T>(team_, linear, x, residual, y, s);
  }
  void linear_backward(const AdaptedLinear& linear, const Tensor& x, const Tensor& s, const Tensor& dy,
                       const Tensor& dx) const override {
    cpu::linear_backward<T>(team_, linear, x, s, dy, dx);
  }

  void embed(std::span<const std::int32_t> ids, const Tensor& table, const Tensor& out) const override {
    if (table.dtype == DType::kBF16) {
      cpu::embed<BF16>(team_, ids, table, out);
    } else if (table.dtype == DType::kF32) {
      cpu::embed<float>(team_, ids, table, out);
    } else {
      throw Error("the embedding table must be bf16 or f32 on the CPU backend");
    }
  }
  void rms_norm(const Tensor& x, const float* weight, double eps, const Tensor& y) const override {
    cpu::rms_norm<T>(team_, x, weight, eps, y);
  }
  void rms_norm_backward(const Tensor& dy, const Tensor& x, const float* weight, double eps,
                         const Tensor& dx) const override {
    cpu::rms_norm_backward<T>(team_, dy, x, weight, eps, dx);
  }
  void head_norm(const Tensor& x, const float* weight, double eps, std::int64_t heads, const Tensor& y) const override {
    cpu::head_norm<T>(team_, x, weight, eps, heads, y);
  }
  void head_norm_backward(const Tensor& x, const float* weight, double eps, std::int64_t heads,
                          const Tensor& dy) const override {
    cpu::head_norm_backward<T>(team_, x, weight, eps, heads, dy);
  }
  void rope(const Tensor& x, std::span<const std::int32_t> positions, std::int64_t heads, const Tensor& cos,
            const Tensor& sin, bool inverse) const override {
    cpu::rope<T>(team_, x, positions, heads, cos, sin, inverse);
  }
  void attention(const AttentionShape& shape, std::span<const SequenceSpan> sequences, const Tensor& q, const Tensor& k,
                 const Tensor& v, const Tensor& out, const Tensor& lse) const override {
    cpu::attention<T>(team_, shape, sequences, q, k, v, out, lse);
  }
  void attention_backward(const AttentionShape& shape, std::span<const SequenceSpan> sequences, const Tensor& q,
                          const Tensor& k, const Tensor& v, const Tensor& out, const Tensor& lse, const Tensor& dout,
                          const Tensor& dq, const Tensor& dk, const Tensor& dv) const override {
    cpu::attention_backward<T>(team_, shape, sequences, q, k, v, out, lse, dout, dq, dk, dv);
  }
  void swiglu(const Tensor& gate_up, const Tensor& h) const override { cpu::swiglu<T>(team_, gate_up, h); }
  void swiglu_backward(const Tensor& dh, const Tensor& gate_up, const Tensor& d_gate_up) const override {
    cpu::swiglu_backward<T>(team_, dh, gate_up, d_gate_up);
  }
  void cross_entropy(const FrozenLinear& head, const Tensor& x, std::span<const std::int32_t> targets,
                     double grad_scale, const Tensor& losses, const Tensor& dx, const Tensor& d_logits) const override {
    cpu::cross_entropy<T>(team_, head, x, targets, grad_scale, losses, dx, d_logits);
  }
  [[nodiscard]] bool trains_weights() const override { return true; }
  void weight_gradient(const Tensor& x, const Tensor& dy, const Tensor& grad) const override {
    cpu::weight_gradient<T>(team_, x, dy, grad);
  }
  void embed_backward(std::span<const std::int32_t> ids, const Tensor& dout, const Tensor& grad) const override {
    cpu::embed_backward(team_, ids, dout, grad);
  }
  void norm_weight_gradient(const Tensor& dy, const Tensor& x, double eps, std::int64_t heads,
                            const Tensor& grad) const override {
    cpu::norm_weight_gradient<T>(team_, dy, x, eps, heads, grad);
  }
  void gather_rows(const Tensor& x, std::span<const std::int32_t> rows, const Tensor& y) const override {
    cpu::gather_rows(team_, x, rows, y);
  }
  void scatter_rows(const Tensor& y, std::span<const std::int32_t> rows, const Tensor& x) const override {
    cpu::scatter_rows(team_, y, rows, x);
  }
  [[nodiscard]] std::size_t scratch_bytes(const Workload& workload) const override {
    return team_.planned_bytes(scratch_for(workload));
  }
  void reserve_scratch(const Workload& workload) const override { team_.reserve(scratch_for(workload)); }

 private:
  static TeamScratch scratch_for(const Workload& w) {
    TeamScratch scratch;
    for (const Workload::Linear& linear : w.linears) linear_scratch<T>(scratch, linear, w.tokens, w.backward);
    attention_scratch<T>(scratch, w.attention, w.tokens, w.document);
    if (w.backward) attention_backward_scratch<T>(scratch, w.attention, w.tokens, w.document);
    norm_scratch(scratch, w.hidden, w.attention.head_dim);
    rope_scratch(scratch, w.attention.head_dim);
    swiglu_scratch(scratch, w.intermediate);
    cross_entropy_scratch<T>(scratch, w.head, w.backward);
    weight_gradient_scratch<T>(scratch, w.tokens, w.widest_trained);
    return scratch;
  }

  Precision precision_;
  mutable Team team_;
};

}  // namespace
}  // namespace cpu

std::unique_ptr<Ops> make_cpu_ops(Precision precision, int threads, Memory& memory) {
  if (precision == kF32Precision) return std::make_unique<cpu::CpuOps<float>>(precision, threads, memory);
  if (precision != kBF16Precision) {
    throw UsageError("the CPU backend computes in bf16 or f32", {}, "use backend reference for f64");
  }
  if (!cpu_has_fast_bf16()) {
    throw UsageError("this CPU has no bf16 instructions (AVX512_BF16 or AMX)", {}, "set runtime.dtype to f32 or auto");
  }
  return std::make_unique<cpu::CpuOps<BF16>>(precision, threads, memory);
}

bool cpu_has_fast_bf16() {
  return cpu::TileGemm::native_bf16();
}

}  // namespace lomu
