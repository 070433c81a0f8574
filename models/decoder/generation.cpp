#include "models/decoder/generation.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "kernels/error.h"
#include "models/decoder/decoder_layout.h"

namespace lomu {
namespace {

struct GenerationLayout {
  GenerationLayout(const ModelConfig& config, std::span<const PairInfo> pairs, const Ops& ops,
                   const GenerationCapacity& capacity) {
    const Precision precision = ops.precision();
    const DType table = precision.residual == DType::kF64 ? DType::kF64 : DType::kF32;
    const Scope work = Scope::kWorkspace;
    const std::int64_t chunk = capacity.chunk_tokens;
    stream = plan.add(Scope::kActivations, "residual stream", precision.residual, chunk, config.hidden_size);
    block = BlockPlanner(plan, config, ops, chunk, largest_group_ranks(config, pairs)).add_forward_only(stream);
    for (std::int64_t layer = 0; layer < config.num_layers; ++layer) {
      caches.push_back(plan.add(Scope::kActivations, fmt::format("block {}, keys and values", layer),
                                precision.activation, capacity.sequences * capacity.tokens, 2 * config.kv_size()));
    }
    cos = plan.add(work, "cosines", table, capacity.tokens, config.head_dim / 2);
    sin = plan.add(work, "sines", table, capacity.tokens, config.head_dim / 2);
    last_rows = plan.add(work, "last rows", precision.residual, capacity.sequences, config.hidden_size);
    last_normed = plan.add(work, "normed last rows", precision.activation, capacity.sequences, config.hidden_size);
    logits = plan.add(work, "logits", precision.residual, capacity.sequences, config.vocab_size);
  }

  BufferPlan plan;
  BlockEntries block;               ///< all blocks share one set: nothing is kept but keys and values
  std::vector<std::size_t> caches;  ///< per layer [sequences * tokens, keys | values]
  std::size_t stream = 0, cos = 0, sin = 0, last_rows = 0, last_normed = 0, logits = 0;
};

/// Rows [i, i + count) of `from` become rows [j, j + count) of `to`.
void copy_rows(Storage& storage, const Tensor& from, std::int64_t i, const Tensor& to, std::int64_t j,
               std::int64_t count) {
  const std::size_t element = size_of(from.dtype);
  const auto bytes = [&](std::int64_t elements) { return static_cast<std::size_t>(elements) * element; };
  storage.copy_rows(to.row_range(j, count).data, bytes(to.ld), from.row_range(i, count).data, bytes(from.ld),
                    bytes(from.cols), static_cast<std::size_t>(count));
}

void check(const GenerationCapacity& c) {
  if (c.sequences >= 1 && c.tokens >= 1 && c.chunk_tokens >= c.sequences) return;
  throw Error(
      fmt::format("cannot generate {} sequences of {} tokens in chunks of {}", c.sequences, c.tokens, c.chunk_tokens));
}

}  // namespace

struct GenerationSession::Impl {
  Impl(const AdaptedModel& adapted, const Ops& operations, Memory& memory, const GenerationCapacity& wanted)
      : model(adapted),
        ops(operations),
        capacity(wanted),
        layout(adapted.config(), adapted.adapters() ? adapted.adapters()->pairs() : std::span<const PairInfo>{},
               operations, wanted),
        buffers(layout.plan, memory, "generation"),
        lengths(static_cast<std::size_t>(wanted.sequences), 0),
        context{ops, adapted.config(), buffers.tensor(layout.cos), buffers.tensor(layout.sin), no_observer} {
    head.frozen = model.weights().head;
    head.bias.push_back(nullptr);
    head.adapters.emplace_back();
    fill_rope_tables(model.config(), ops.storage(), context.cos, context.sin);
  }

  void check_inputs(std::span<const SequenceInput> inputs) const;
  /// Adds as many of the remaining tokens as fit to the chunk.
  void fill_chunk(std::span<const SequenceInput> inputs);
  void run_chunk();
  /// Writes keys and values of the chunk's tokens behind those that are in the cache.
  void append_to_cache(std::int64_t layer, const BlockTensors& t);

  [[nodiscard]] std::int64_t& length(std::int64_t sequence) { return lengths[static_cast<std::size_t>(sequence)]; }
  [[nodiscard]] Tensor rows(std::size_t entry, std::int64_t count) const {
    return buffers.tensor(entry).row_range(0, count);
  }

  const AdaptedModel& model;
  const Ops& ops;
  const GenerationCapacity capacity;
  const GenerationLayout layout;
  const Buffers buffers;
  std::vector<std::int64_t> lengths;  ///< tokens in the cache, by sequence
  const Observer no_observer;
  BlockContext context;
  AdaptedLinear head;

  // The chunk being run.
  std::size_t input = 0;        ///< first input with tokens left
  std::size_t input_token = 0;  ///< its first token left
  std::vector<std::int32_t> ids, positions;
  std::vector<SequenceSpan> spans;
  std::vector<std::int32_t> finished;  ///< rows of the chunk that end an input

  std::optional<HostCopy> host_logits;  ///< of the last call
};

void GenerationSession::Impl::check_inputs(std::span<const SequenceInput> inputs) const {
  std::vector<bool> seen(lengths.size(), false);
  for (const auto& [sequence, tokens] : inputs) {
    if (sequence < 0 || sequence >= capacity.sequences) {
      throw Error(fmt::format("sequence {} of {}", sequence, capacity.sequences));
    }
    const auto i = static_cast<std::size_t>(sequence);
    if (seen[i]) throw Error(fmt::format("sequence {} twice in one call", sequence));
    seen[i] = true;
    if (tokens.empty()) throw Error("no tokens to continue from", fmt::format("sequence {}", sequence));
    if (static_cast<std::int64_t>(tokens.size()) > capacity.tokens - lengths[i]) {
      throw Error(fmt::format("{} tokens and {} more do not fit into a cache of {}", lengths[i], tokens.size(),
                              capacity.tokens),
                  fmt::format("sequence {}", sequence), "shorten the prompt or ask for fewer new tokens");
    }
    for (const std::int32_t id : tokens) {
      if (id >= 0 && id < model.config().vocab_size) continue;
      throw Error(fmt::format("token id {} in a vocabulary of {}", id, model.config().vocab_size),
                  fmt::format("sequence {}", sequence), "does the tokenizer belong to this model?");
    }
  }
}

void GenerationSession::Impl::fill_chunk(std::span<const SequenceInput> inputs) {
  ids.clear();
  positions.clear();
  spans.clear();
  finished.clear();
  while (input < inputs.size() && static_cast<std::int64_t>(ids.size()) < capacity.chunk_tokens) {
    const auto left = inputs[input].ids.subspan(input_token);
    const std::size_t room = static_cast<std::size_t>(capacity.chunk_tokens) - ids.size();
    const auto some = left.first(std::min(room, left.size()));
    const std::int64_t sequence = inputs[input].sequence;
    const auto count = static_cast<std::int64_t>(some.size());
    spans.push_back(
        {static_cast<std::int64_t>(ids.size()), count, sequence * capacity.tokens, length(sequence) + count});
    for (const std::int32_t id : some) {
      ids.push_back(id);
      positions.push_back(static_cast<std::int32_t>(length(sequence)++));
    }
    input_token += some.size();
    if (some.size() < left.size()) break;
    finished.push_back(static_cast<std::int32_t>(ids.size()) - 1);
    ++input;
    input_token = 0;
  }
}

void GenerationSession::Impl::append_to_cache(std::int64_t layer, const BlockTensors& t) {
  const ModelConfig& c = model.config();
  const Tensor cache = buffers.tensor(layout.caches[static_cast<std::size_t>(layer)]);
  for (const SequenceSpan& s : spans) {
    const std::int64_t to = s.key_begin + s.key_length - s.query_length;
    copy_rows(ops.storage(), k_of(c, t), s.query_begin, cache.columns(0, c.kv_size()), to, s.query_length);
    copy_rows(ops.storage(), v_of(c, t), s.query_begin, cache.columns(c.kv_size(), c.kv_size()), to, s.query_length);
  }
}

void GenerationSession::Impl::run_chunk() {
  const ModelConfig& c = model.config();
  const auto count = static_cast<std::int64_t>(ids.size());
  ops.embed(ids, model.weights().embedding, rows(layout.stream, count));
  for (std::int64_t layer = 0; layer < c.num_layers; ++layer) {
    const LayerWeights& weights = model.weights().layers[static_cast<std::size_t>(layer)];
    const BlockTensors t = block_tensors(buffers, layout.block, c, weights, count);
    block_until_attention(context, layer, weights, t, positions);
    append_to_cache(layer, t);
    const Tensor cache = buffers.tensor(layout.caches[static_cast<std::size_t>(layer)]);
    block_from_attention(context, layer, weights, t, spans, cache.columns(0, c.kv_size()),
                         cache.columns(c.kv_size(), c.kv_size()));
  }
}

GenerationSession::GenerationSession(const AdaptedModel& model, const Ops& ops, Memory& memory,
                                     const GenerationCapacity& capacity) {
  check(capacity);
  impl_ = std::make_unique<Impl>(model, ops, memory, capacity);
}
GenerationSession::~GenerationSession() = default;

BufferPlan GenerationSession::plan(const ModelConfig& config, std::span<const PairInfo> pairs, const Ops& ops,
                                   const GenerationCapacity& capacity) {
  return GenerationLayout(config, pairs, ops, capacity).plan;
}

Tensor GenerationSession::append(std::span<const SequenceInput> inputs) {
  impl_->check_inputs(inputs);
  impl_->input = 0;
  impl_->input_token = 0;
  const auto& layout = impl_->layout;
  std::int64_t done = 0;
  while (impl_->input < inputs.size()) {
    impl_->fill_chunk(inputs);
    impl_->run_chunk();
    const auto ended = static_cast<std::int64_t>(impl_->finished.size());
    impl_->ops.gather_rows(impl_->rows(layout.stream, static_cast<std::int64_t>(impl_->ids.size())), impl_->finished,
                           impl_->buffers.tensor(layout.last_rows).row_range(done, ended));
    done += ended;
  }
  const Tensor normed = impl_->rows(layout.last_normed, done);
  const Tensor logits = impl_->rows(layout.logits, done);
  impl_->ops.rms_norm(impl_->rows(layout.last_rows, done), impl_->model.weights().final_norm,
                      impl_->model.config().rms_norm_eps, normed);
  impl_->ops.linear_forward(impl_->head, normed, {}, logits, {});
  impl_->host_logits.emplace(impl_->ops.storage(), logits);
  return impl_->host_logits->tensor();
}

std::int64_t GenerationSession::length(std::int64_t sequence) const {
  return impl_->length(sequence);
}

void GenerationSession::truncate(std::int64_t sequence, std::int64_t length) {
  if (length < 0 || length > impl_->length(sequence)) {
    throw Error(fmt::format("cannot cut a sequence of {} tokens to {}", impl_->length(sequence), length));
  }
  impl_->length(sequence) = length;
}

}  // namespace lomu
