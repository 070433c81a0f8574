// The operations of a decoder, each declared once with its contract. A backend implements them all: `reference` is the
// readable specification (sequential loops, double accumulation, also runs entirely in f64), `cpu` the production path.
//
// Rules that hold for every operation and backend:
//  - A matrix is [tokens, features], row-major. T is the number of tokens of a packed batch.
//  - "activation" tensors are bf16, f32 or f64 as Precision says; "residual" tensors (the residual stream and its
//    gradient) are f32 in the bf16 and f32 precisions, f64 in f64; norm weights and biases are f32.
//  - Outputs never alias inputs unless the comment says "in place".
//  - Results are the same bits for any number of threads, and a token's result depends on its own sequence alone.
//  - Shapes are the caller's promise, checked at the model's boundary; dtypes not listed in a contract are an Error.
//  - T = 0 is allowed everywhere and does nothing (gradients are then set to zero).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/encoded_rows.h"
#include "kernels/error.h"
#include "kernels/memory.h"
#include "kernels/packed_factor.h"
#include "kernels/tensor.h"

namespace lomu {

/// Element types of one way to compute.
struct Precision {
  DType activation;  ///< inputs and outputs of matrix products
  DType residual;    ///< residual stream and its gradient
  DType gradient;    ///< adapter gradients
  friend bool operator==(const Precision&, const Precision&) = default;
};
inline constexpr Precision kBF16Precision{DType::kBF16, DType::kF32, DType::kF32};
inline constexpr Precision kF32Precision{DType::kF32, DType::kF32, DType::kF32};
inline constexpr Precision kF64Precision{DType::kF64, DType::kF64, DType::kF64};

/// Frozen matrices that share one input: [out_0 + out_1 + ..., in], for example q|k|v or gate|up. The bytes are laid
/// out as the backend likes (prepacked) and may be a read-only mapping shared by all ranks of a machine.
struct FrozenLinear {
  std::int64_t in = 0;
  std::vector<std::int64_t> outs;  ///< rows of each part
  bool backward = true;            ///< also packed for dX = dY W
  std::byte* storage = nullptr;    ///< Ops::frozen_bytes() bytes, 64-byte aligned
  /// Rows and columns behind the matrix, in storage, where factors may lie: see Ops::spare_columns.
  std::int64_t spare = 0;
  bool zero = false;  ///< W = 0: needs no storage and costs nothing; the adapters are the whole layer
  [[nodiscard]] std::int64_t out() const {
    std::int64_t sum = 0;
    for (const auto o : outs) sum += o;
    return sum;
  }
};

/// Dropout on an adapter's input: element (row, col) of x is zeroed where the counter-based generator says so and the
/// rest divided by 1 - p. The mask is a function of (key, first_row + row, col) alone: the same in forward and
/// backward and on any number of ranks. See dropout_keep() in kernels/dropout.h.
struct Dropout {
  float p = 0;
  std::uint64_t key = 0;
  std::int64_t first_row = 0;
};

/// One LoRA pair of a site: y += scale * dropout(x) A^T B^T.
struct Adapter {
  std::int64_t rank = 0;     ///< 0: this site has no adapter; the rest is then unused
  double scale = 0;          ///< s = alpha / r, or alpha / sqrt(r)
  const float* a = nullptr;  ///< right factor, PEFT's lora_A [rank, in] f32
  const float* b = nullptr;  ///< left factor, PEFT's lora_B [out, rank] f32
  void* grad_a = nullptr;    ///< [rank, in], Precision::gradient; written (not added to) by backward
  void* grad_b = nullptr;    ///< [out, rank]
  Dropout dropout;
};

/// A frozen linear group with its biases and adapters: what linear_forward and linear_backward work on.
struct AdaptedLinear {
  FrozenLinear frozen;
  std::vector<const float*> bias;  ///< per part, [out_i] f32 or nullptr
  std::vector<Adapter> adapters;   ///< per part
  std::byte* packed = nullptr;     ///< Ops::adapter_bytes() bytes: the factors as the backend likes them
  /// Sum of the ranks of the parts: columns of the saved low-rank activations S.
  [[nodiscard]] std::int64_t total_rank() const {
    std::int64_t sum = 0;
    for (const auto& a : adapters) sum += a.rank;
    return sum;
  }
};

/// One sequence of a packed batch: queries [query_begin, +query_length) are the LAST query_length positions of the
/// keys [key_begin, +key_length). In training both ranges are the same; in generation the keys live in a cache.
struct SequenceSpan {
  std::int64_t query_begin = 0, query_length = 0;
  std::int64_t key_begin = 0, key_length = 0;
};

struct AttentionShape {
  std::int64_t heads = 0, kv_heads = 0, head_dim = 0;
  double scale = 0;         ///< multiplies q k^T; 1 / sqrt(head_dim)
  std::int64_t window = 0;  ///< 0: all earlier positions; w: position t sees t - w + 1 ... t
};

/// The largest micro-batch of a decoder, as its operations see it: what a backend plans its scratch memory from. Only
/// shapes, ranks and dropout count; there is no memory behind the linear layers.
struct Workload {
  struct Linear {
    AdaptedLinear layer;     ///< with frozen.spare columns beside the weights, and as many behind x and dy
    bool to_stream = false;  ///< y is added to the residual stream, so dy has its dtype
    bool bias = false;       ///< whether any part has one
  };
  std::int64_t tokens = 0;
  std::int64_t document = 0;    ///< longest sequence
  std::int64_t supervised = 0;  ///< rows that go through the head
  bool backward = false;
  std::vector<Linear> linears;
  AttentionShape attention;
  std::int64_t hidden = 0;        ///< columns of the residual stream
  std::int64_t intermediate = 0;  ///< columns of the MLP's hidden
  FrozenLinear head;
  std::int64_t widest_trained = 0;  ///< rows of the largest matrix trained in full; 0: none is
};

class Ops {
 public:
  virtual ~Ops() = default;
  [[nodiscard]] virtual std::string_view name() const = 0;
  [[nodiscard]] virtual Precision precision() const = 0;
  /// Where all tensors, packed weights and factors of this backend live. Spans and AdapterSet are on the host.
  [[nodiscard]] virtual Storage& storage() const { return host_storage(); }

  // ---- frozen weights and adapters -------------------------------------------------------------------------------

  /// Columns that a group of this total rank likes to have to spare: in FrozenLinear::spare, and behind x and dy
  /// (Tensor::spare), where linear_forward and linear_backward then put low-rank activations beside them, so that one
  /// product does the work of two. `bias`: the group has one. 0: this backend makes no use of them. Results are the
  /// same without, and slower. At most one AdaptedModel at a time may have adapters on weights with spare columns: the
  /// factors lie there.
  [[nodiscard]] virtual std::int64_t spare_columns([[maybe_unused]] std::int64_t rank,
                                                   [[maybe_unused]] bool bias) const {
    return 0;
  }

  /// Bytes of storage that `linear` needs.
  [[nodiscard]] virtual std::size_t frozen_bytes(const FrozenLinear& linear) const = 0;
  /// to = the numbers in `from`, each rounded once (f32 holds them all exactly), with zeros in to's spare columns.
  /// from: in this storage, as Staging brings it; to: [from.rows, from.cols] bf16 or f32. From several threads at once,
  /// each of which has used storage() before.
  virtual void dequantize(const EncodedRows& from, const Tensor& to) const = 0;
  /// Packs `w` as rows [first_row, first_row + w.rows) of part `part` into linear.storage. w: [*, in], as in
  /// dequantize. Row ranges may be packed in any order and from several threads at once if they start at multiples of
  /// kPackRows.
  virtual void pack_frozen(const FrozenLinear& linear, std::size_t part, std::int64_t first_row,
                           const EncodedRows& w) const = 0;
  static constexpr std::int64_t kPackRows = 64;

  [[nodiscard]] virtual std::size_t adapter_bytes(const AdaptedLinear& linear) const = 0;
  /// Packs the factors into linear.packed. Call after every change of a factor and before the next use.
  virtual void pack_adapters(const AdaptedLinear& linear) const = 0;
  /// The same for many groups, which a device does in one launch. The span may hold groups without adapters.
  virtual void pack_all_adapters(std::span<const AdaptedLinear* const> linears) const {
    for (const AdaptedLinear* linear : linears) {
      if (linear->total_rank() > 0) pack_adapters(*linear);
    }
  }

  /// Where the packed factors of a part lie, for an optimizer that writes them there together with the factors, in
  /// place of pack_adapters(): possible once that has written what lies around them. Empty: this backend's form is
  /// another.
  [[nodiscard]] virtual std::optional<PackedPair> packed_places([[maybe_unused]] const AdaptedLinear& linear,
                                                                [[maybe_unused]] std::size_t part) const {
    return std::nullopt;
  }

  // ---- the same work again and again ------------------------------------------------------------------------------

  /// Runs `body`, which calls operations of this backend alone, on tensors that stay where they are. With the `key` of
  /// an earlier call a backend may instead queue what it queued then: equal keys promise equal operations on equal
  /// addresses, but for what the `arrays` hold, whose addresses and sizes are the same too. At most four arrays.
  virtual void run_repeatable([[maybe_unused]] std::uint64_t key,
                              [[maybe_unused]] std::span<const std::span<const std::int32_t>> arrays,
                              const std::function<void()>& body) const {
    body();
  }

  // ---- the adapted linear layer ----------------------------------------------------------------------------------

  /// y[:, part i] = x W_i^T + bias_i + s_i dropout(x) A_i^T B_i^T  (+ residual)
  /// x: [T, in] activation. y: [T, out] activation; or residual dtype when `residual` is given (then y = residual +
  /// ..., y may be residual in place) or when y.dtype is Precision::residual (logits). s: [T, total_rank] activation,
  /// receives dropout(x) A^T for backward (must be given when any rank > 0); it may be the first of x's spare columns.
  virtual void linear_forward(const AdaptedLinear& linear, const Tensor& x, const Tensor& residual, const Tensor& y,
                              const Tensor& s) const = 0;

  /// dx = dy W + adapters' part (skipped when dx is empty); writes grad_a, grad_b of every adapter.
  /// x: [T, in] activation; s as saved by forward; dy: [T, out] activation or residual dtype; dx: [T, in] activation.
  virtual void linear_backward(const AdaptedLinear& linear, const Tensor& x, const Tensor& s, const Tensor& dy,
                               const Tensor& dx) const = 0;

  // ---- the rest of a block ---------------------------------------------------------------------------------------

  /// out[t] = table[ids[t]]. table: [vocab, hidden] bf16, f32 or f64; out: residual dtype. Ids are checked by the
  /// caller.
  virtual void embed(std::span<const std::int32_t> ids, const Tensor& table, const Tensor& out) const = 0;

  /// y = x / sqrt(mean(x^2) + eps) * weight, row by row. x: [T, n] residual dtype; y: [T, n] activation.
  virtual void rms_norm(const Tensor& x, const float* weight, double eps, const Tensor& y) const = 0;
  /// dx += gradient of rms_norm with respect to x. dy: [T, n] activation; x as in forward; dx: residual dtype.
  virtual void rms_norm_backward(const Tensor& dy, const Tensor& x, const float* weight, double eps,
                                 const Tensor& dx) const = 0;

  /// RMSNorm of every head by itself (Qwen3). x, y: [T, heads * head_dim] activation; y may be x in place.
  virtual void head_norm(const Tensor& x, const float* weight, double eps, std::int64_t heads,
                         const Tensor& y) const = 0;
  /// dy is replaced by the gradient with respect to x, in place.
  virtual void head_norm_backward(const Tensor& x, const float* weight, double eps, std::int64_t heads,
                                  const Tensor& dy) const = 0;

  /// Rotates each head's halves (x1, x2) by the angle of its position, in place:
  /// (x1 cos - x2 sin, x2 cos + x1 sin); `inverse` rotates back, which is also the gradient.
  /// x: [T, heads * head_dim] activation; cos, sin: [positions, head_dim / 2] f32 (f64 in f64 precision).
  virtual void rope(const Tensor& x, std::span<const std::int32_t> positions, std::int64_t heads, const Tensor& cos,
                    const Tensor& sin, bool inverse) const = 0;

  /// Causal softmax attention within each sequence. q, out: [*, heads * head_dim]; k, v: [*, kv_heads * head_dim];
  /// activation dtype, any ld. lse: [T, heads] f32 (f64 in f64): log of the sum of exp(scaled scores), for backward;
  /// may be empty. Query head h reads kv head h / (heads / kv_heads).
  virtual void attention(const AttentionShape& shape, std::span<const SequenceSpan> sequences, const Tensor& q,
                         const Tensor& k, const Tensor& v, const Tensor& out, const Tensor& lse) const = 0;
  /// Writes dq, dk, dv (activation dtype, shapes and spans of q, k, v). Only for sequences with equal ranges.
  virtual void attention_backward(const AttentionShape& shape, std::span<const SequenceSpan> sequences, const Tensor& q,
                                  const Tensor& k, const Tensor& v, const Tensor& out, const Tensor& lse,
                                  const Tensor& dout, const Tensor& dq, const Tensor& dk, const Tensor& dv) const = 0;

  /// h = silu(gate) * up. gate_up: [T, 2 f] with gate first; h: [T, f]. Activation dtype.
  virtual void swiglu(const Tensor& gate_up, const Tensor& h) const = 0;
  /// d_gate_up (may be gate_up in place) from dh.
  virtual void swiglu_backward(const Tensor& dh, const Tensor& gate_up, const Tensor& d_gate_up) const = 0;

  // ---- head and loss ---------------------------------------------------------------------------------------------

  /// Cross entropy of softmax(x W^T) against `targets`, in chunks: all logits never exist at once.
  /// x: [N, hidden] activation (already normed, supervised rows only); losses: [1, N] f32 (f64 in f64);
  /// dx: [N, hidden] activation, grad_scale times the gradient of the SUM of losses; skipped when empty.
  /// d_logits: [N, vocab] activation, likewise, for a head that is trained; only beside dx, and only where
  /// trains_weights().
  virtual void cross_entropy(const FrozenLinear& head, const Tensor& x, std::span<const std::int32_t> targets,
                             double grad_scale, const Tensor& losses, const Tensor& dx,
                             const Tensor& d_logits) const = 0;

  /// y[i] = x[rows[i]].  x: [T, n], y: [N, n], same dtype.
  virtual void gather_rows(const Tensor& x, std::span<const std::int32_t> rows, const Tensor& y) const = 0;
  /// x = 0, then x[rows[i]] = y[i]. Rows are distinct.
  virtual void scatter_rows(const Tensor& y, std::span<const std::int32_t> rows, const Tensor& x) const = 0;

  // ---- gradients of weights that are trained in full ---------------------------------------------------------------

  /// Whether this backend has the operations of this section.
  [[nodiscard]] virtual bool trains_weights() const { return false; }
  /// grad = dy^T x. x: [T, in] activation; dy: [T, out] activation or residual dtype; grad: [out, in]
  /// Precision::gradient, without gaps.
  virtual void weight_gradient(const Tensor& /*x*/, const Tensor& /*dy*/, const Tensor& /*grad*/) const {
    refuse_training_weights();
  }
  /// grad[ids[t]] += dout[t]. dout: [T, hidden] residual dtype; grad: [vocab, hidden] Precision::gradient.
  virtual void embed_backward(std::span<const std::int32_t> /*ids*/, const Tensor& /*dout*/,
                              const Tensor& /*grad*/) const {
    refuse_training_weights();
  }
  /// Gradient of the weight of rms_norm (heads = 1; x in residual dtype) or head_norm (x in activation dtype):
  /// grad[j] = the sum over tokens and heads of dy_j x_j / sqrt(mean(x^2) + eps). dy: as x, activation dtype;
  /// grad: [1, n / heads] Precision::gradient.
  virtual void norm_weight_gradient(const Tensor& /*dy*/, const Tensor& /*x*/, double /*eps*/, std::int64_t /*heads*/,
                                    const Tensor& /*grad*/) const {
    refuse_training_weights();
  }
  /// Throws UnsupportedError: for a backend without this section.
  [[noreturn]] void refuse_training_weights() const {
    throw UnsupportedError("a weight trained in full", std::string(name()),
                           "use runtime.device: cpu, or train it through an adapter");
  }

  // ---- memory of the operations themselves -----------------------------------------------------------------------

  /// Bytes of Scope::kWorkspace that the operations of micro-batches up to `workload` take beside their tensors.
  [[nodiscard]] virtual std::size_t scratch_bytes(const Workload& workload) const = 0;
  /// Takes them now, so that no micro-batch allocates and a device that is too small is known before the first step.
  /// Never needed for a right result: an operation that finds too little takes more.
  virtual void reserve_scratch(const Workload& workload) const = 0;
};

/// The specification. `precision` may also be kF64Precision.
std::unique_ptr<Ops> make_reference_ops(Precision precision);

/// The production path on the CPU. bf16 falls back to an Error where the CPU has neither AVX512_BF16 nor AMX
/// (see cpu_has_fast_bf16()). `threads` >= 1.
std::unique_ptr<Ops> make_cpu_ops(Precision precision, int threads, Memory& memory);

/// Whether bf16 products run natively here.
bool cpu_has_fast_bf16();

}  // namespace lomu
