#include "bench/timed_ops.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>

namespace lomu {
namespace {

std::string shape_name(std::string_view operation, const FrozenLinear& linear) {
  return fmt::format("{} {} -> {}", operation, linear.in, fmt::join(linear.outs, "|"));
}

double product(std::int64_t a, std::int64_t b, std::int64_t c) {
  return 2.0 * static_cast<double>(a) * static_cast<double>(b) * static_cast<double>(c);
}

Flops forward_flops(const AdaptedLinear& linear, std::int64_t tokens) {
  Flops flops;
  flops.frozen = product(tokens, linear.frozen.in, linear.frozen.out());
  for (std::size_t i = 0; i < linear.adapters.size(); ++i) {
    flops.adapters += product(tokens, linear.adapters[i].rank, linear.frozen.in + linear.frozen.outs[i]);
  }
  return flops;
}

/// dS = dy B, dB = dy^T S, dA = dS^T x, and where it is wanted dx = dy W + dS A.
Flops backward_flops(const AdaptedLinear& linear, std::int64_t tokens, bool input_gradient) {
  Flops flops;
  if (input_gradient) flops.frozen = product(tokens, linear.frozen.in, linear.frozen.out());
  for (std::size_t i = 0; i < linear.adapters.size(); ++i) {
    const std::int64_t ends = 2 * linear.frozen.outs[i] + (input_gradient ? 2 : 1) * linear.frozen.in;
    flops.adapters += product(tokens, linear.adapters[i].rank, ends);
  }
  return flops;
}

/// `products`: how many products of the size of q k^T.
Flops attention_flops(const AttentionShape& shape, std::span<const SequenceSpan> sequences, int products) {
  double pairs = 0;
  for (const SequenceSpan& s : sequences) {
    for (std::int64_t i = 0; i < s.query_length; ++i) {
      const std::int64_t seen = s.key_length - s.query_length + i + 1;
      pairs += static_cast<double>(shape.window > 0 ? std::min(shape.window, seen) : seen);
    }
  }
  Flops flops;
  flops.attention = products * 2.0 * pairs * static_cast<double>(shape.heads * shape.head_dim);
  return flops;
}

}  // namespace

Flops& Flops::operator+=(const Flops& other) {
  frozen += other.frozen;
  adapters += other.adapters;
  attention += other.attention;
  return *this;
}

template <class Call>
void TimedOps::timed(std::string_view name, const Flops& flops, const Call& call) const {
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  call();
  count(name, std::chrono::duration<double>(Clock::now() - start).count(), flops);
}

void TimedOps::count(std::string_view name, double seconds, const Flops& flops) const {
  if (!counts_) return;
  all_flops_ += flops;
  auto row = std::find_if(times_.begin(), times_.end(), [&](const OperationTime& time) { return time.name == name; });
  if (row == times_.end()) row = times_.insert(row, OperationTime{std::string(name), 0, 0, {}});
  ++row->calls;
  row->seconds += seconds;
  row->flops += flops;
}

std::size_t TimedOps::frozen_bytes(const FrozenLinear& linear) const {
  return inner_.frozen_bytes(linear);
}

std::size_t TimedOps::adapter_bytes(const AdaptedLinear& linear) const {
  return inner_.adapter_bytes(linear);
}

void TimedOps::dequantize(const EncodedRows& from, const Tensor& to) const {
  inner_.dequantize(from, to);
}

void TimedOps::pack_frozen(const FrozenLinear& linear, std::size_t part, std::int64_t first_row,
                           const EncodedRows& w) const {
  inner_.pack_frozen(linear, part, first_row, w);
}

void TimedOps::pack_adapters(const AdaptedLinear& linear) const {
  timed("pack_adapters", {}, [&] { inner_.pack_adapters(linear); });
}

void TimedOps::pack_all_adapters(std::span<const AdaptedLinear* const> linears) const {
  timed("pack_adapters", {}, [&] { inner_.pack_all_adapters(linears); });
}

void TimedOps::run_repeatable(std::uint64_t key, std::span<const std::span<const std::int32_t>> arrays,
                              const std::function<void()>& body) const {
  int runs = 0;
  const auto counted = [&] {
    counts_ = ++runs == 1;  // a second run is one that records and computes nothing
    const Flops before = all_flops_;
    body();
    if (counts_) {
      repeatable_[key] = {all_flops_.frozen - before.frozen, all_flops_.adapters - before.adapters,
                          all_flops_.attention - before.attention};
    }
    counts_ = true;
  };
  const auto start = std::chrono::steady_clock::now();
  inner_.run_repeatable(key, arrays, counted);
  if (runs > 0) return;
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  count("a micro-batch queued again", seconds, repeatable_[key]);
}

void TimedOps::linear_forward(const AdaptedLinear& linear, const Tensor& x, const Tensor& residual, const Tensor& y,
                              const Tensor& s) const {
  timed(shape_name("linear_forward", linear.frozen), forward_flops(linear, x.rows),
        [&] { inner_.linear_forward(linear, x, residual, y, s); });
}

void TimedOps::linear_backward(const AdaptedLinear& linear, const Tensor& x, const Tensor& s, const Tensor& dy,
                               const Tensor& dx) const {
  timed(shape_name("linear_backward", linear.frozen), backward_flops(linear, dy.rows, !dx.empty()),
        [&] { inner_.linear_backward(linear, x, s, dy, dx); });
}

void TimedOps::embed(std::span<const std::int32_t> ids, const Tensor& table, const Tensor& out) const {
  timed("embed", {}, [&] { inner_.embed(ids, table, out); });
}

void TimedOps::rms_norm(const Tensor& x, const float* weight, double eps, const Tensor& y) const {
  timed("rms_norm", {}, [&] { inner_.rms_norm(x, weight, eps, y); });
}

void TimedOps::rms_norm_backward(const Tensor& dy, const Tensor& x, const float* weight, double eps,
                                 const Tensor& dx) const {
  timed("rms_norm_backward", {}, [&] { inner_.rms_norm_backward(dy, x, weight, eps, dx); });
}

void TimedOps::head_norm(const Tensor& x, const float* weight, double eps, std::int64_t heads, const Tensor& y) const {
  timed("head_norm", {}, [&] { inner_.head_norm(x, weight, eps, heads, y); });
}

void TimedOps::head_norm_backward(const Tensor& x, const float* weight, double eps, std::int64_t heads,
                                  const Tensor& dy) const {
  timed("head_norm_backward", {}, [&] { inner_.head_norm_backward(x, weight, eps, heads, dy); });
}

void TimedOps::rope(const Tensor& x, std::span<const std::int32_t> positions, std::int64_t heads, const Tensor& cos,
                    const Tensor& sin, bool inverse) const {
  timed(inverse ? "rope_backward" : "rope", {}, [&] { inner_.rope(x, positions, heads, cos, sin, inverse); });
}

void TimedOps::attention(const AttentionShape& shape, std::span<const SequenceSpan> sequences, const Tensor& q,
                         const Tensor& k, const Tensor& v, const Tensor& out, const Tensor& lse) const {
  timed("attention", attention_flops(shape, sequences, 2),
        [&] { inner_.attention(shape, sequences, q, k, v, out, lse); });
}

void TimedOps::attention_backward(const AttentionShape& shape, std::span<const SequenceSpan> sequences, const Tensor& q,
                                  const Tensor& k, const Tensor& v, const Tensor& out, const Tensor& lse,
                                  const Tensor& dout, const Tensor& dq, const Tensor& dk, const Tensor& dv) const {
  timed("attention_backward", attention_flops(shape, sequences, 5),
        [&] { inner_.attention_backward(shape, sequences, q, k, v, out, lse, dout, dq, dk, dv); });
}

void TimedOps::swiglu(const Tensor& gate_up, const Tensor& h) const {
  timed("swiglu", {}, [&] { inner_.swiglu(gate_up, h); });
}

void TimedOps::swiglu_backward(const Tensor& dh, const Tensor& gate_up, const Tensor& d_gate_up) const {
  timed("swiglu_backward", {}, [&] { inner_.swiglu_backward(dh, gate_up, d_gate_up); });
}

void TimedOps::cross_entropy(const FrozenLinear& head, const Tensor& x, std::span<const std::int32_t> targets,
                             double grad_scale, const Tensor& losses, const Tensor& dx, const Tensor& d_logits) const {
  Flops flops;
  flops.frozen = product(x.rows, head.in, head.out()) * (dx.empty() ? 1 : 2);
  timed(shape_name("cross_entropy", head), flops,
        [&] { inner_.cross_entropy(head, x, targets, grad_scale, losses, dx, d_logits); });
}

void TimedOps::gather_rows(const Tensor& x, std::span<const std::int32_t> rows, const Tensor& y) const {
  timed("gather_rows", {}, [&] { inner_.gather_rows(x, rows, y); });
}

void TimedOps::scatter_rows(const Tensor& y, std::span<const std::int32_t> rows, const Tensor& x) const {
  timed("scatter_rows", {}, [&] { inner_.scatter_rows(y, rows, x); });
}

}  // namespace lomu
