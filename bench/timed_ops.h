// A stopwatch around a backend: every operation is passed on unchanged, its time and its multiply-adds are added to a
// row. It measures any Ops without knowing what is behind it, and computes nothing itself.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/ops.h"

namespace lomu {

/// Operations (two a multiply-add) that the mathematics asks for, by what they are spent on; not what a backend does
/// beyond it. Elementwise work counts as nothing.
struct Flops {
  double frozen = 0;     ///< products with frozen weights, the head included
  double adapters = 0;   ///< products with factors, and the gradients of factors
  double attention = 0;  ///< products of the visible query-key pairs: 2 forward, 5 backward (the scores once more)

  [[nodiscard]] double total() const { return frozen + adapters + attention; }
  Flops& operator+=(const Flops& other);
};

/// All calls of one operation, linear layers by shape: "linear_forward 576 -> 576|192|192".
struct OperationTime {
  std::string name;
  std::int64_t calls = 0;
  double seconds = 0;
  Flops flops;
};

class TimedOps final : public Ops {
 public:
  /// `inner` outlives this.
  explicit TimedOps(const Ops& inner) : inner_(inner) {}

  /// In the order of the first call.
  [[nodiscard]] std::span<const OperationTime> times() const { return times_; }
  void reset() { times_.clear(); }

  [[nodiscard]] std::string_view name() const override { return inner_.name(); }
  [[nodiscard]] Precision precision() const override { return inner_.precision(); }
  [[nodiscard]] Storage& storage() const override { return inner_.storage(); }
  [[nodiscard]] std::int64_t spare_columns(std::int64_t rank, bool bias) const override {
    return inner_.spare_columns(rank, bias);
  }
  [[nodiscard]] std::size_t frozen_bytes(const FrozenLinear& linear) const override;
  [[nodiscard]] std::size_t adapter_bytes(const AdaptedLinear& linear) const override;
  /// These two are not timed: loading calls them from many threads at once.
  void dequantize(const EncodedRows& from, const Tensor& to) const override;
  void pack_frozen(const FrozenLinear& linear, std::size_t part, std::int64_t first_row,
                   const EncodedRows& w) const override;
  void pack_adapters(const AdaptedLinear& linear) const override;
  void pack_all_adapters(std::span<const AdaptedLinear* const> linears) const override;
  [[nodiscard]] std::optional<PackedPair> packed_places(const AdaptedLinear& linear, std::size_t part) const override {
    return inner_.packed_places(linear, part);
  }
  /// Work that is queued again without a call of any operation counts as that of the call which it repeats; its time
  /// has a row of its own.
  void run_repeatable(std::uint64_t key, std::span<const std::span<const std::int32_t>> arrays,
                      const std::function<void()>& body) const override;
  void linear_forward(const AdaptedLinear& linear, const Tensor& x, const Tensor& residual, const Tensor& y,
                      const Tensor& s) const override;
  void linear_backward(const AdaptedLinear& linear, const Tensor& x, const Tensor& s, const Tensor& dy,
                       const Tensor& dx) const override;
  void embed(std::span<const std::int32_t> ids, const Tensor& table, const Tensor& out) const override;
  void rms_norm(const Tensor& x, const float* weight, double eps, const Tensor& y) const override;
  void rms_norm_backward(const Tensor& dy, const Tensor& x, const float* weight, double eps,
                         const Tensor& dx) const override;
  void head_norm(const Tensor& x, const float* weight, double eps, std::int64_t heads, const Tensor& y) const override;
  void head_norm_backward(const Tensor& x, const float* weight, double eps, std::int64_t heads,
                          const Tensor& dy) const override;
  void rope(const Tensor& x, std::span<const std::int32_t> positions, std::int64_t heads, const Tensor& cos,
            const Tensor& sin, bool inverse) const override;
  void attention(const AttentionShape& shape, std::span<const SequenceSpan> sequences, const Tensor& q, const Tensor& k,
                 const Tensor& v, const Tensor& out, const Tensor& lse) const override;
  void attention_backward(const AttentionShape& shape, std::span<const SequenceSpan> sequences, const Tensor& q,
                          const Tensor& k, const Tensor& v, const Tensor& out, const Tensor& lse, const Tensor& dout,
                          const Tensor& dq, const Tensor& dk, const Tensor& dv) const override;
  void swiglu(const Tensor& gate_up, const Tensor& h) const override;
  void swiglu_backward(const Tensor& dh, const Tensor& gate_up, const Tensor& d_gate_up) const override;
  void cross_entropy(const FrozenLinear& head, const Tensor& x, std::span<const std::int32_t> targets,
                     double grad_scale, const Tensor& losses, const Tensor& dx, const Tensor& d_logits) const override;
  [[nodiscard]] std::size_t scratch_bytes(const Workload& workload) const override {
    return inner_.scratch_bytes(workload);
  }
  void reserve_scratch(const Workload& workload) const override { inner_.reserve_scratch(workload); }
  void gather_rows(const Tensor& x, std::span<const std::int32_t> rows, const Tensor& y) const override;
  void scatter_rows(const Tensor& y, std::span<const std::int32_t> rows, const Tensor& x) const override;

 private:
  template <class Call>
  void timed(std::string_view name, const Flops& flops, const Call& call) const;
  void count(std::string_view name, double seconds, const Flops& flops) const;

  const Ops& inner_;
  /// Ops is const because an operation changes nothing that its caller can see; a stopwatch's reading is no exception.
  mutable std::vector<OperationTime> times_;
  mutable std::map<std::uint64_t, Flops> repeatable_;  ///< of one run of each body
  mutable Flops all_flops_;                            ///< of all calls
  mutable bool counts_ = true;
};

}  // namespace lomu
