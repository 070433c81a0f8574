#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cmath>
#include <utility>

#include "kernels/error.h"
#include "kernels/philox.h"
#include "models/decoder/decoder_impl.h"

namespace lomu {
namespace {

constexpr std::array kGroups{&LayerWeights::qkv, &LayerWeights::o, &LayerWeights::gate_up, &LayerWeights::down};

std::atomic<std::uint64_t> next_number{1};

double element(const Tensor& t, std::int64_t i, std::int64_t j) {
  switch (t.dtype) {
    case DType::kF64: return t.row<double>(i)[j];
    case DType::kF32: return t.row<float>(i)[j];
    default: return static_cast<float>(t.row<BF16>(i)[j]);
  }
}

bool all_finite(const Tensor& t) {
  for (std::int64_t i = 0; i < t.rows; ++i) {
    for (std::int64_t j = 0; j < t.cols; ++j) {
      if (!std::isfinite(element(t, i, j))) return false;
    }
  }
  return true;
}

/// Puts another observer in place until the end of a scope, however that ends.
class ObserverGuard {
 public:
  ObserverGuard(Observer& place, Observer observer)
      : place_(place), previous_(std::exchange(place, std::move(observer))) {}
  ObserverGuard(const ObserverGuard&) = delete;
  ObserverGuard& operator=(const ObserverGuard&) = delete;
  ~ObserverGuard() { place_ = std::move(previous_); }

 private:
  Observer& place_;
  Observer previous_;
};

/// Calls f(row, target) for every token whose successor in its document is supervised.
template <class F>
void for_each_supervised(const PackedBatch& batch, F f) {
  for (std::size_t d = 0; d + 1 < batch.cu_seqlens.size(); ++d) {
    for (std::int32_t t = batch.cu_seqlens[d]; t + 1 < batch.cu_seqlens[d + 1]; ++t) {
      const std::int32_t target = batch.labels[static_cast<std::size_t>(t) + 1];
      if (target != kNotSupervised) f(t, target);
    }
  }
}

std::span<const PairInfo> pairs_of(const AdaptedModel& model) {
  return model.adapters() ? model.adapters()->pairs() : std::span<const PairInfo>{};
}

void check_lengths(const PackedBatch& batch, const DecoderCapacity& capacity) {
  const std::size_t tokens = batch.ids.size();
  if (batch.labels.size() != tokens || batch.positions.size() != tokens) {
    throw Error(fmt::format("a batch of {} ids has {} labels and {} positions", tokens, batch.labels.size(),
                            batch.positions.size()));
  }
  if (static_cast<std::int64_t>(tokens) > capacity.tokens) {
    throw Error(fmt::format("a batch of {} tokens in buffers for {}", tokens, capacity.tokens));
  }
  const auto& cu = batch.cu_seqlens;
  if (cu.empty() || cu.front() != 0 || cu.back() != static_cast<std::int64_t>(tokens) ||
      !std::is_sorted(cu.begin(), cu.end())) {
    throw Error(fmt::format("cu_seqlens does not rise from 0 to {} tokens", tokens));
  }
}

void check_values(const PackedBatch& batch, const ModelConfig& config, const DecoderCapacity& capacity) {
  for (std::size_t t = 0; t < batch.ids.size(); ++t) {
    const auto id = batch.ids[t];
    const auto label = batch.labels[t];
    const auto position = batch.positions[t];
    if (id < 0 || id >= config.vocab_size) {
      throw Error(fmt::format("token id {} in a vocabulary of {}", id, config.vocab_size), fmt::format("token {}", t),
                  "does the tokenizer belong to this model?");
    }
    if (label != kNotSupervised && (label < 0 || label >= config.vocab_size)) {
      throw Error(fmt::format("label {} in a vocabulary of {}", label, config.vocab_size), fmt::format("token {}", t));
    }
    if (position < 0 || position >= capacity.document) {
      throw Error(fmt::format("position {} in buffers for documents of {} tokens", position, capacity.document),
                  fmt::format("token {}", t));
    }
  }
}

}  // namespace

std::string_view name_of(Stage stage) {
  switch (stage) {
    case Stage::kEmbedding: return "embedding";
    case Stage::kAttentionInput: return "attention input";
    case Stage::kQkv: return "q|k|v";
    case Stage::kRotated: return "rotated q|k";
    case Stage::kAttention: return "attention output";
    case Stage::kAfterAttention: return "residual stream after attention";
    case Stage::kMlpInput: return "mlp input";
    case Stage::kGateUp: return "gate|up";
    case Stage::kMlpHidden: return "mlp hidden";
    case Stage::kBlock: return "residual stream";
    case Stage::kFinalNorm: return "final norm";
    case Stage::kLosses: return "losses";
  }
  return "?";
}

Decoder::Decoder(const AdaptedModel& model, const Ops& ops, Memory& memory, const DecoderCapacity& capacity)
    : impl_(std::make_unique<Impl>(model, ops, memory, capacity)) {}
Decoder::~Decoder() = default;

DecoderPlan Decoder::plan(const ModelConfig& config, std::span<const PairInfo> pairs, double dropout, const Ops& ops,
                          const DecoderCapacity& capacity) {
  return {DecoderLayout(config, pairs, ops, capacity).plan,
          ops.scratch_bytes(workload_of(config, pairs, dropout, ops, capacity))};
}

std::int64_t Decoder::supervised_tokens(const PackedBatch& batch) {
  std::int64_t count = 0;
  for_each_supervised(batch, [&](std::int32_t, std::int32_t) { ++count; });
  return count;
}

double Decoder::forward(const PackedBatch& batch, std::span<double> per_token) {
  impl_->take(batch, true);
  impl_->run_head(impl_->run_blocks(batch, nullptr), 0, false);
  const double sum = impl_->loss_sum();
  if (per_token.empty()) return sum;
  std::fill(per_token.begin(), per_token.end(), 0.0);
  const HostCopy losses(impl_->ops.storage(),
                        impl_->rows(impl_->layout.losses, static_cast<std::int64_t>(impl_->supervised.size())));
  for (std::size_t i = 0; i < impl_->supervised.size(); ++i) {
    per_token[static_cast<std::size_t>(impl_->supervised[i])] =
        element(losses.tensor(), static_cast<std::int64_t>(i), 0);
  }
  return sum;
}

double Decoder::forward_backward(const PackedBatch& batch, double grad_scale, std::uint64_t dropout_key,
                                 const PairHook& passed) {
  impl_->take(batch, true);
  const PackedBatch own = impl_->own_batch(batch);
  const auto pass = [&] {
    impl_->run_head(impl_->run_blocks(own, &dropout_key), grad_scale, true);
    impl_->run_backward(own, passed);
  };
  // Whoever listens wants to hear it now, and a mask of dropout comes but once.
  const bool drops = impl_->model.adapters() != nullptr && impl_->model.adapters()->dropout() > 0;
  if (passed || impl_->observer || drops || impl_->supervised.empty()) {
    pass();
  } else {
    const std::array<std::span<const std::int32_t>, 4> arrays{own.ids, own.positions, impl_->supervised,
                                                              impl_->targets};
    impl_->ops.run_repeatable(impl_->step_key(own.ids.size(), grad_scale), arrays, pass);
  }
  return impl_->loss_sum();
}

void Decoder::logits(const PackedBatch& batch, std::span<const std::int32_t> rows, const Tensor& out) {
  impl_->take(batch, false);
  const Tensor stream = impl_->run_blocks(batch, nullptr);
  const auto chunk = static_cast<std::size_t>(std::max<std::int64_t>(1, impl_->capacity.supervised));
  Storage& storage = impl_->ops.storage();
  Buffer elsewhere;  // a chunk of logits where `out` is out of the backend's reach
  if (!storage.on_host()) {
    const std::size_t most = std::min(chunk, rows.size()) * static_cast<std::size_t>(out.cols) * size_of(out.dtype);
    elsewhere = impl_->memory.allocate(Scope::kWorkspace, most, "logits");
  }
  for (std::size_t first = 0; first < rows.size(); first += chunk) {
    const auto some = rows.subspan(first, std::min(chunk, rows.size() - first));
    const auto count = static_cast<std::int64_t>(some.size());
    const Tensor gathered = impl_->rows(impl_->layout.head_rows, count);
    const Tensor normed = impl_->rows(impl_->layout.head_normed, count);
    impl_->ops.gather_rows(stream, some, gathered);
    impl_->ops.rms_norm(gathered, impl_->model.weights().final_norm, impl_->model.config().rms_norm_eps, normed);
    const Tensor wanted = out.row_range(static_cast<std::int64_t>(first), count);
    if (storage.on_host()) {
      impl_->ops.linear_forward(impl_->head, normed, {}, wanted, {});
      continue;
    }
    const Tensor made(elsewhere.data(), out.dtype, count, out.cols);
    impl_->ops.linear_forward(impl_->head, normed, {}, made, {});
    const HostCopy copy(storage, made);
    const std::size_t row = static_cast<std::size_t>(out.cols) * size_of(out.dtype);
    host_storage().copy_rows(wanted.data, static_cast<std::size_t>(wanted.ld) * size_of(out.dtype), copy.tensor().data,
                             row, row, static_cast<std::size_t>(count));
  }
}

std::optional<std::string> Decoder::find_nonfinite(const PackedBatch& batch) {
  std::optional<std::string> found;
  const Observer check = [&](std::int64_t layer, Stage stage, const Tensor& tensor) {
    if (found || all_finite(tensor)) return;
    found = layer < 0 ? std::string(name_of(stage)) : fmt::format("block {}, {}", layer, name_of(stage));
  };
  const ObserverGuard guard(impl_->observer, check);
  forward(batch);
  return found;
}

void Decoder::observe(Observer observer) {
  impl_->observer = std::move(observer);
}

Decoder::Impl::Impl(const AdaptedModel& adapted, const Ops& operations, Memory& ledger, const DecoderCapacity& wanted)
    : model(adapted),
      ops(operations),
      memory(ledger),
      capacity(wanted),
      layout(adapted.config(), pairs_of(adapted), operations, wanted),
      buffers(layout.plan, memory, "decoder"),
      layers(adapted.weights().layers),
      context{ops, adapted.config(), buffers.tensor(layout.cos), buffers.tensor(layout.sin), observer},
      unobserved{ops, adapted.config(), context.cos, context.sin, no_observer},
      number(next_number++) {
  if (layout.backward && model.adapters()->gradients().empty()) {
    throw Error("a decoder for training needs adapters with gradients", {}, "give the AdapterSet a gradient type");
  }
  head.frozen = model.weights().head;
  head.bias.push_back(nullptr);
  head.adapters.emplace_back();
  fill_rope_tables(model.config(), ops.storage(), context.cos, context.sin);
  ids.reserve(static_cast<std::size_t>(capacity.tokens));
  positions.reserve(static_cast<std::size_t>(capacity.tokens));
  supervised.reserve(static_cast<std::size_t>(capacity.supervised));
  targets.reserve(static_cast<std::size_t>(capacity.supervised));
  const double dropout = model.adapters() ? model.adapters()->dropout() : 0;
  ops.reserve_scratch(workload_of(model.config(), pairs_of(model), dropout, ops, capacity));
}

BlockTensors Decoder::Impl::tensors(std::int64_t layer, std::int64_t tokens) const {
  const auto i = static_cast<std::size_t>(layer);
  return block_tensors(buffers, layout.blocks[i], model.config(), layers[i], tokens);
}

void Decoder::Impl::take(const PackedBatch& batch, bool losses) {
  check_lengths(batch, capacity);
  check_values(batch, model.config(), capacity);
  sequences.clear();
  for (std::size_t d = 0; d + 1 < batch.cu_seqlens.size(); ++d) {
    const std::int64_t begin = batch.cu_seqlens[d];
    const std::int64_t length = batch.cu_seqlens[d + 1] - begin;
    if (length > 0) sequences.push_back({begin, length, begin, length});
  }
  supervised.clear();
  targets.clear();
  for_each_supervised(batch, [&](std::int32_t row, std::int32_t target) {
    supervised.push_back(row);
    targets.push_back(target);
  });
  if (losses && static_cast<std::int64_t>(supervised.size()) > capacity.supervised) {
    throw Error(fmt::format("{} supervised tokens in buffers for {}", supervised.size(), capacity.supervised));
  }
}

PackedBatch Decoder::Impl::own_batch(const PackedBatch& batch) {
  ids.assign(batch.ids.begin(), batch.ids.end());
  positions.assign(batch.positions.begin(), batch.positions.end());
  PackedBatch own = batch;
  own.ids = ids;
  own.positions = positions;
  return own;
}

std::uint64_t Decoder::Impl::step_key(std::size_t tokens, double grad_scale) const {
  std::uint64_t key = mix64(number);
  const auto add = [&](std::uint64_t value) { key = mix64(key + mix64(value)); };
  add(tokens);
  add(supervised.size());
  add(std::bit_cast<std::uint64_t>(grad_scale));
  for (const SequenceSpan& s : sequences) {
    add(static_cast<std::uint64_t>(s.query_begin));
    add(static_cast<std::uint64_t>(s.query_length));
  }
  return key;
}

void Decoder::Impl::set_dropout(const std::uint64_t* key) {
  const AdapterSet* adapters = model.adapters();
  const auto p = key != nullptr && adapters != nullptr ? static_cast<float>(adapters->dropout()) : 0.0F;
  std::uint64_t site = 0;
  for (LayerWeights& layer : layers) {
    for (const auto group : kGroups) {
      for (Adapter& adapter : (layer.*group).adapters) {
        adapter.dropout.p = p;
        adapter.dropout.key = p > 0 ? mix64(*key + mix64(++site)) : 0;
      }
    }
  }
}

Tensor Decoder::Impl::run_blocks(const PackedBatch& batch, const std::uint64_t* dropout_key) {
  set_dropout(dropout_key);
  const auto tokens = static_cast<std::int64_t>(batch.ids.size());
  Tensor stream = rows(layout.stream, tokens);
  ops.embed(batch.ids, model.weights().embedding, stream);
  context.observe(-1, Stage::kEmbedding, stream);
  for (std::int64_t layer = 0; layer < model.config().num_layers; ++layer) {
    const LayerWeights& weights = layers[static_cast<std::size_t>(layer)];
    const BlockTensors t = tensors(layer, tokens);
    block_until_attention(context, layer, weights, t, batch.positions);
    block_from_attention(context, layer, weights, t, sequences, k_of(model.config(), t), v_of(model.config(), t));
    stream = t.stream_out;
  }
  return stream;
}

void Decoder::Impl::run_head(const Tensor& stream, double grad_scale, bool backward) {
  const auto count = static_cast<std::int64_t>(supervised.size());
  const Tensor gathered = rows(layout.head_rows, count);
  const Tensor normed = rows(layout.head_normed, count);
  const Tensor column = rows(layout.losses, count);
  const Tensor losses(column.data, column.dtype, 1, count);
  const bool has_gradient = backward && layout.backward;
  const Tensor d_logits = has_gradient && layout.d_logits ? rows(*layout.d_logits, count) : Tensor{};
  ops.gather_rows(stream, supervised, gathered);
  ops.rms_norm(gathered, model.weights().final_norm, model.config().rms_norm_eps, normed);
  context.observe(-1, Stage::kFinalNorm, normed);
  ops.cross_entropy(head.frozen, normed, targets, grad_scale, losses,
                    has_gradient ? rows(layout.d_head_normed, count) : Tensor{}, d_logits);
  if (!d_logits.empty()) ops.weight_gradient(normed, d_logits, head_gradient());
  context.observe(-1, Stage::kLosses, losses);
}

double Decoder::Impl::loss_sum() const {
  const auto count = static_cast<std::int64_t>(supervised.size());
  const Tensor column = rows(layout.losses, count);
  const HostCopy values(ops.storage(), Tensor(column.data, column.dtype, 1, count));
  double sum = 0;
  for (std::int64_t i = 0; i < count; ++i) sum += element(values.tensor(), 0, i);
  return sum;
}

}  // namespace lomu
