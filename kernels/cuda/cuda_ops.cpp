#include "kernels/cuda/cuda_ops.h"

#include <fmt/format.h>

#include <algorithm>
#include <list>
#include <optional>
#include <utility>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/cuda_linear.h"
#include "kernels/cuda/dequantize.h"
#include "kernels/cuda/head_norm.h"
#include "kernels/cuda/library_attention.h"
#include "kernels/cuda/rms_norm.h"
#include "kernels/cuda/rope.h"
#include "kernels/cuda/rows.h"
#include "kernels/cuda/softmax_loss.h"
#include "kernels/cuda/step_recordings.h"
#include "kernels/cuda/swiglu.h"
#include "kernels/cuda/uploads.h"
#include "kernels/error.h"

namespace lomu::cuda {
namespace {

/// Logits of a chunk of rows: large enough for full products, small beside the activations.
constexpr std::int64_t kLogitBytes = std::int64_t{256} << 20;
constexpr std::int64_t kFewestRows = 64;

template <class T>
DeviceRows<T> rows_of(const Tensor& t) {
  return {t.as<std::remove_const_t<T>>(), t.ld};
}

std::int64_t chunk_rows(std::int64_t vocab) {
  return std::max(kFewestRows, kLogitBytes / (vocab * static_cast<std::int64_t>(sizeof(float))));
}

/// Plans of attention by what they were made from: all layers with the same window share one.
class AttentionPlans {
 public:
  const AttentionPlan& find_or_make(AttentionPath path, std::span<const SequenceSpan> sequences,
                                    std::int64_t query_rows, std::int64_t key_rows, std::int64_t window,
                                    bool backward) {
    const auto same = [&](const Entry& e) {
      return e.plan.window == window && e.plan.query_rows == query_rows && e.key_rows == key_rows &&
             e.backward == backward &&
             std::equal(e.sequences.begin(), e.sequences.end(), sequences.begin(), sequences.end(), same_span);
    };
    const auto found = std::find_if(entries_.begin(), entries_.end(), same);
    if (found != entries_.end()) {
      entries_.splice(entries_.begin(), entries_, found);
    } else {
      entries_.push_front({{sequences.begin(), sequences.end()},
                           key_rows,
                           backward,
                           plan_attention(path, sequences, query_rows, key_rows, window, backward)});
      if (entries_.size() > kKept) entries_.pop_back();
    }
    return entries_.front().plan;
  }

 private:
  static constexpr std::size_t kKept = 8;  ///< forward and backward of a few windows
  struct Entry {
    std::vector<SequenceSpan> sequences;
    std::int64_t key_rows;
    bool backward;
    AttentionPlan plan;
  };
  static bool same_span(const SequenceSpan& a, const SequenceSpan& b) {
    return a.query_begin == b.query_begin && a.query_length == b.query_length && a.key_begin == b.key_begin &&
           a.key_length == b.key_length;
  }

  std::list<Entry> entries_;
};

/// One rank calls one operation at a time, so `mutable` hides no sharing. pack_frozen and dequantize touch none of it
/// and may be called from many threads.
template <class T>
class CudaOps final : public Ops {
 public:
  CudaOps(const Precision& precision, Device& device, Memory& memory, const CudaOptions& options)
      : precision_(precision),
        path_(options.linear),
        storage_(device.storage()),
        stream_(device.stream()),
        products_(device.make_products(memory)),
        scratch_(memory),
        uploads_(memory),
        linear_(*products_, scratch_, memory, stream_),
        must_be_library_(options.attention == AttentionChoice::kLibrary),
        recordings_(options.recordings ? device.make_recorder() : nullptr, uploads_, scratch_) {
    if constexpr (std::is_same_v<T, BF16>) {
      if (options.attention != AttentionChoice::kOwn) graphs_ = device.make_attention_graphs();
      if (graphs_) library_.emplace(*graphs_, storage_, scratch_, uploads_, stream_, options.deterministic);
    }
  }

  [[nodiscard]] std::string_view name() const override { return "cuda"; }
  [[nodiscard]] Precision precision() const override { return precision_; }
  [[nodiscard]] Storage& storage() const override { return storage_; }

  [[nodiscard]] std::int64_t spare_columns(std::int64_t rank, bool bias) const override {
    return path_ == LinearPath::kAugmented ? augmented_columns(rank, bias) : 0;
  }
  [[nodiscard]] std::size_t frozen_bytes(const FrozenLinear& linear) const override {
    if (linear.zero) throw UnsupportedError("a layer without a base", "cuda", "use runtime.device: cpu");
    return AdaptedLayout<T>::frozen_bytes(linear);
  }
  void dequantize(const EncodedRows& from, const Tensor& to) const override {
    if (to.dtype == DType::kBF16) {
      cuda::dequantize<BF16>(from, rows_of<BF16>(to), to.spare, stream_);
    } else {
      cuda::dequantize<float>(from, rows_of<float>(to), to.spare, stream_);
    }
  }
  void pack_frozen(const FrozenLinear& linear, std::size_t part, std::int64_t first_row,
                   const EncodedRows& w) const override {
    AdaptedLayout<T>::pack_frozen(linear, part, first_row, w, stream_);
  }
  [[nodiscard]] std::size_t adapter_bytes(const AdaptedLinear& linear) const override {
    return AdaptedLayout<T>::adapter_bytes(linear);
  }
  void pack_adapters(const AdaptedLinear& linear) const override {
    const AdaptedLinear* one = &linear;
    linear_.pack_adapters({&one, 1});
  }
  void pack_all_adapters(std::span<const AdaptedLinear* const> linears) const override {
    linear_.pack_adapters(linears);
  }
  [[nodiscard]] std::optional<PackedPair> packed_places(const AdaptedLinear& linear, std::size_t part) const override {
    return AdaptedLayout<T>(linear).places(linear, part);
  }

  void linear_forward(const AdaptedLinear& linear, const Tensor& x, const Tensor& residual, const Tensor& y,
                      const Tensor& s) const override {
    linear_.forward(linear, x, residual, y, s);
  }
  void linear_backward(const AdaptedLinear& linear, const Tensor& x, const Tensor& s, const Tensor& dy,
                       const Tensor& dx) const override {
    linear_.backward(linear, x, s, dy, dx);
  }

  void embed(std::span<const std::int32_t> ids, const Tensor& table, const Tensor& out) const override {
    const auto count = static_cast<std::int64_t>(ids.size());
    const std::int32_t* on_device = uploads_.on_device(ids);
    if (table.dtype == DType::kBF16) {
      cuda::embed<BF16>(rows_of<const BF16>(table), on_device, rows_of<float>(out), count, out.cols, stream_);
    } else {
      cuda::embed<float>(rows_of<const float>(table), on_device, rows_of<float>(out), count, out.cols, stream_);
    }
  }

  void rms_norm(const Tensor& x, const float* weight, double eps, const Tensor& y) const override {
    cuda::rms_norm<T>(rows_of<const float>(x), weight, eps, rows_of<T>(y), x.rows, x.cols, stream_);
  }
  void rms_norm_backward(const Tensor& dy, const Tensor& x, const float* weight, double eps,
                         const Tensor& dx) const override {
    cuda::rms_norm_backward<T>(rows_of<const T>(dy), rows_of<const float>(x), weight, eps, rows_of<float>(dx), x.rows,
                               x.cols, stream_);
  }
  void head_norm(const Tensor& x, const float* weight, double eps, std::int64_t heads, const Tensor& y) const override {
    cuda::head_norm<T>(rows_of<const T>(x), weight, eps, rows_of<T>(y), x.rows, heads, x.cols / heads, stream_);
  }
  void head_norm_backward(const Tensor& x, const float* weight, double eps, std::int64_t heads,
                          const Tensor& dy) const override {
    cuda::head_norm_backward<T>(rows_of<const T>(x), weight, eps, rows_of<T>(dy), x.rows, heads, x.cols / heads,
                                stream_);
  }

  void rope(const Tensor& x, std::span<const std::int32_t> positions, std::int64_t heads, const Tensor& cos,
            const Tensor& sin, bool inverse) const override {
    cuda::rope<T>(rows_of<T>(x), uploads_.on_device(positions), rows_of<const float>(cos), rows_of<const float>(sin),
                  inverse, x.rows, heads, x.cols / heads, stream_);
  }

  void attention(const AttentionShape& shape, std::span<const SequenceSpan> sequences, const Tensor& q, const Tensor& k,
                 const Tensor& v, const Tensor& out, const Tensor& lse) const override {
    if (library_ && library_->forward(shape, sequences, q, k, v, out, lse)) return;
    refuse_own_attention("forward");
    const AttentionPlan& plan = plan_of(shape, sequences, q.rows, k.rows, false);
    cuda::attention<T>(shape, plan, tiles_of(plan), rows_of<const T>(q), rows_of<const T>(k), rows_of<const T>(v),
                       rows_of<T>(out), rows_of<float>(lse), stream_);
  }
  void attention_backward(const AttentionShape& shape, std::span<const SequenceSpan> sequences, const Tensor& q,
                          const Tensor& k, const Tensor& v, const Tensor& out, const Tensor& lse, const Tensor& dout,
                          const Tensor& dq, const Tensor& dk, const Tensor& dv) const override {
    if (library_ && library_->backward(shape, sequences, q, k, v, out, lse, dout, dq, dk, dv)) return;
    refuse_own_attention("backward");
    const AttentionPlan& plan = plan_of(shape, sequences, q.rows, k.rows, true);
    std::byte* workspace = scratch_.bytes(Slot::kAttention, attention_backward_bytes(shape.heads, q.rows));
    cuda::attention_backward<T>(shape, plan, tiles_of(plan), rows_of<const T>(q), rows_of<const T>(k),
                                rows_of<const T>(v), rows_of<const T>(out), rows_of<const float>(lse),
                                rows_of<const T>(dout), rows_of<T>(dq), rows_of<T>(dk), rows_of<T>(dv), workspace,
                                stream_);
  }

  void swiglu(const Tensor& gate_up, const Tensor& h) const override {
    cuda::swiglu<T>(rows_of<const T>(gate_up), rows_of<T>(h), h.rows, h.cols, stream_);
  }
  void swiglu_backward(const Tensor& dh, const Tensor& gate_up, const Tensor& d_gate_up) const override {
    cuda::swiglu_backward<T>(rows_of<const T>(dh), rows_of<const T>(gate_up), rows_of<T>(d_gate_up), dh.rows, dh.cols,
                             stream_);
  }

  void cross_entropy(const FrozenLinear& head, const Tensor& x, std::span<const std::int32_t> targets,
                     double grad_scale, const Tensor& losses, const Tensor& dx, const Tensor& d_logits) const override {
    if (!d_logits.empty()) refuse_training_weights();
    const std::int64_t vocab = head.outs.front();
    const std::int64_t most = std::min(chunk_rows(vocab), x.rows);
    const std::int32_t* wanted = uploads_.on_device(targets);
    AdaptedLinear linear;
    linear.frozen = head;
    linear.bias.push_back(nullptr);
    linear.adapters.emplace_back();
    for (std::int64_t first = 0; first < x.rows; first += most) {
      const std::int64_t rows = std::min(most, x.rows - first);
      const Tensor logits(scratch_.take<float>(Slot::kLogits, most * vocab), DType::kF32, rows, vocab);
      linear_.forward(linear, x.row_range(first, rows), {}, logits, {});
      Tensor gradient;
      if (!dx.empty()) gradient = Tensor(scratch_.take<T>(Slot::kLogitsGrad, most * vocab), x.dtype, rows, vocab);
      softmax_loss<float, T>(rows_of<const float>(logits), wanted + first, static_cast<float>(grad_scale),
                             losses.as<float>() + first, rows_of<T>(gradient), rows, vocab, stream_);
      if (!dx.empty()) linear_.backward(linear, {}, {}, gradient, dx.row_range(first, rows));
    }
  }

  void gather_rows(const Tensor& x, std::span<const std::int32_t> rows, const Tensor& y) const override {
    const auto count = static_cast<std::int64_t>(rows.size());
    const std::int32_t* numbers = uploads_.on_device(rows);
    if (x.dtype == DType::kF32) {
      cuda::gather_rows<float>(rows_of<const float>(x), numbers, rows_of<float>(y), count, x.cols, stream_);
    } else {
      cuda::gather_rows<BF16>(rows_of<const BF16>(x), numbers, rows_of<BF16>(y), count, x.cols, stream_);
    }
  }
  void scatter_rows(const Tensor& y, std::span<const std::int32_t> rows, const Tensor& x) const override {
    const auto count = static_cast<std::int64_t>(rows.size());
    const std::int32_t* numbers = uploads_.on_device(rows);
    if (x.dtype == DType::kF32) {
      cuda::scatter_rows<float>(rows_of<const float>(y), numbers, rows_of<float>(x), count, x.rows, x.cols, stream_);
    } else {
      cuda::scatter_rows<BF16>(rows_of<const BF16>(y), numbers, rows_of<BF16>(x), count, x.rows, x.cols, stream_);
    }
  }

  void run_repeatable(std::uint64_t key, std::span<const std::span<const std::int32_t>> arrays,
                      const std::function<void()>& body) const override {
    recordings_.run(key, arrays, body);
  }

  [[nodiscard]] std::size_t scratch_bytes(const Workload& workload) const override {
    return sizes_for(workload).total() + Uploads::planned_bytes(largest_upload(workload));
  }
  void reserve_scratch(const Workload& workload) const override {
    scratch_.reserve(sizes_for(workload));
    uploads_.reserve(largest_upload(workload));
  }

 private:
  [[nodiscard]] ScratchSizes sizes_for(const Workload& w) const {
    ScratchSizes sizes;
    for (const Workload::Linear& linear : w.linears) CudaLinear<T>::add_scratch(sizes, linear, w.tokens, w.backward);
    // The head's own products ask for no more than q|k|v's: its logits are f32, and it has fewer rows.
    const std::int64_t vocab = w.head.out();
    const std::int64_t rows = std::min(chunk_rows(vocab), w.supervised);
    need<float>(sizes, Slot::kLogits, rows * vocab);
    constexpr auto kAttention = static_cast<std::size_t>(Slot::kAttention);
    if (library_) sizes.need_bytes(kAttention, library_->scratch_bytes(w.attention, w.tokens, w.document, w.backward));
    if (!w.backward) return sizes;
    need<T>(sizes, Slot::kLogitsGrad, rows * vocab);
    sizes.need_bytes(kAttention, attention_backward_bytes(w.attention.heads, w.tokens));
    return sizes;
  }
  /// Numbers of tokens, or the blocks of attention: were each document one token, each kernel had one for it.
  static std::size_t largest_upload(const Workload& w) {
    const std::size_t tiles = (w.backward ? 3 : 1) * sizeof(AttentionTile);
    return static_cast<std::size_t>(w.tokens) * std::max(tiles, sizeof(std::int32_t));
  }

  void refuse_own_attention(const char* pass) const {
    if (!must_be_library_) return;
    throw UnsupportedError(fmt::format("attention {} by the library", pass), "attention",
                           "it is not there, or it refuses this batch");
  }
  const AttentionPlan& plan_of(const AttentionShape& shape, std::span<const SequenceSpan> sequences,
                               std::int64_t query_rows, std::int64_t key_rows, bool backward) const {
    return plans_.find_or_make(attention_path(precision_.activation, shape.head_dim), sequences, query_rows, key_rows,
                               shape.window, backward);
  }
  const AttentionTile* tiles_of(const AttentionPlan& plan) const {
    return uploads_.on_device(std::span<const AttentionTile>(plan.tiles));
  }

  Precision precision_;
  LinearPath path_;
  Storage& storage_;
  Stream stream_;
  std::unique_ptr<MatrixProducts> products_;
  mutable Scratch scratch_;
  mutable Uploads uploads_;
  mutable AttentionPlans plans_;
  mutable CudaLinear<T> linear_;
  bool must_be_library_;
  std::unique_ptr<AttentionGraphs> graphs_;
  mutable std::optional<LibraryAttention> library_;
  mutable StepRecordings recordings_;
};

}  // namespace

std::unique_ptr<Ops> make_cuda_ops(const Precision& precision, Device& device, Memory& memory,
                                   const CudaOptions& options) {
  if (precision == kF32Precision) return std::make_unique<CudaOps<float>>(precision, device, memory, options);
  if (precision == kBF16Precision) return std::make_unique<CudaOps<BF16>>(precision, device, memory, options);
  throw UsageError("the CUDA backend computes in bf16 or f32", "dtype", "use backend reference for f64");
}

}  // namespace lomu::cuda
