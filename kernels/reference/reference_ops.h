// Every operation of kernels/ops.h as its definition reads: sequential loops over matrices of double. It is what other
// backends are compared with, and in f64 what finite differences are compared with.
#pragma once

#include "kernels/ops.h"

namespace lomu::reference {

class ReferenceOps final : public Ops {
 public:
  explicit ReferenceOps(Precision precision) : precision_(precision) {}
  [[nodiscard]] std::string_view name() const override { return "reference"; }
  [[nodiscard]] Precision precision() const override { return precision_; }

  // linear.cpp
  [[nodiscard]] std::size_t frozen_bytes(const FrozenLinear& linear) const override;
  void dequantize(const EncodedRows& from, const Tensor& to) const override;
  void pack_frozen(const FrozenLinear& linear, std::size_t part, std::int64_t first_row,
                   const EncodedRows& w) const override;
  [[nodiscard]] std::size_t adapter_bytes(const AdaptedLinear& linear) const override;
  void pack_adapters(const AdaptedLinear& linear) const override;
  void linear_forward(const AdaptedLinear& linear, const Tensor& x, const Tensor& residual, const Tensor& y,
                      const Tensor& s) const override;
  void linear_backward(const AdaptedLinear& linear, const Tensor& x, const Tensor& s, const Tensor& dy,
                       const Tensor& dx) const override;

  // norm.cpp
  void rms_norm(const Tensor& x, const float* weight, double eps, const Tensor& y) const override;
  void rms_norm_backward(const Tensor& dy, const Tensor& x, const float* weight, double eps,
                         const Tensor& dx) const override;
  void head_norm(const Tensor& x, const float* weight, double eps, std::int64_t heads, const Tensor& y) const override;
  void head_norm_backward(const Tensor& x, const float* weight, double eps, std::int64_t heads,
                          const Tensor& dy) const override;

  // rope.cpp
  void rope(const Tensor& x, std::span<const std::int32_t> positions, std::int64_t heads, const Tensor& cos,
            const Tensor& sin, bool inverse) const override;

  // attention.cpp
  void attention(const AttentionShape& shape, std::span<const SequenceSpan> sequences, const Tensor& q, const Tensor& k,
                 const Tensor& v, const Tensor& out, const Tensor& lse) const override;
  void attention_backward(const AttentionShape& shape, std::span<const SequenceSpan> sequences, const Tensor& q,
                          const Tensor& k, const Tensor& v, const Tensor& out, const Tensor& lse, const Tensor& dout,
                          const Tensor& dq, const Tensor& dk, const Tensor& dv) const override;

  // swiglu.cpp
  void swiglu(const Tensor& gate_up, const Tensor& h) const override;
  void swiglu_backward(const Tensor& dh, const Tensor& gate_up, const Tensor& d_gate_up) const override;

  // cross_entropy.cpp
  void cross_entropy(const FrozenLinear& head, const Tensor& x, std::span<const std::int32_t> targets,
                     double grad_scale, const Tensor& losses, const Tensor& dx, const Tensor& d_logits) const override;

  // rows.cpp
  void embed(std::span<const std::int32_t> ids, const Tensor& table, const Tensor& out) const override;
  void gather_rows(const Tensor& x, std::span<const std::int32_t> rows, const Tensor& y) const override;
  void scatter_rows(const Tensor& y, std::span<const std::int32_t> rows, const Tensor& x) const override;

  // weight_gradient.cpp
  [[nodiscard]] bool trains_weights() const override { return true; }
  void weight_gradient(const Tensor& x, const Tensor& dy, const Tensor& grad) const override;
  void embed_backward(std::span<const std::int32_t> ids, const Tensor& dout, const Tensor& grad) const override;
  void norm_weight_gradient(const Tensor& dy, const Tensor& x, double eps, std::int64_t heads,
                            const Tensor& grad) const override;

  // Scratch is what std::vector takes, not counted and not planned.
  [[nodiscard]] std::size_t scratch_bytes(const Workload&) const override { return 0; }
  void reserve_scratch(const Workload&) const override {}

 private:
  /// The frozen rows of all parts as one row-major [out, in] matrix. Stored as the weights come: bf16 where products
  /// take bf16, else f32, which f64 arithmetic widens exactly.
  [[nodiscard]] Tensor frozen_matrix(const FrozenLinear& linear) const;

  Precision precision_;
};

}  // namespace lomu::reference
