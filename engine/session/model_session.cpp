#include "engine/session/model_session.h"

#include <fmt/format.h>

#include <future>
#include <string>
#include <utility>

#include "comm/shared_region.h"
#include "engine/session/adapter_source.h"
#include "kernels/error.h"
#include "models/tokenizer/byte_tokenizer.h"

namespace lomu {
namespace {

ModelFiles open_files(const SessionOptions& options) {
  if (options.untrained) return ModelFiles::untrained(*options.untrained);
  return options.random_weights ? ModelFiles::random(options.model) : ModelFiles::open(options.model);
}

Tokenizer load_tokenizer(const SessionOptions& options, const ModelConfig& config) {
  if (options.untrained) return Tokenizer(byte_tokenizer());
  const std::filesystem::path& path = options.model;
  Tokenizer tokenizer = Tokenizer::load(path);
  // Fewer ids than the model has rows are usual (padding of the embedding); more would look up rows that are not there.
  if (tokenizer.vocab_size() > config.vocab_size) {
    throw FormatError(fmt::format("the tokenizer has {} ids, but the model has {} embeddings", tokenizer.vocab_size(),
                                  config.vocab_size),
                      path.string(), "the tokenizer belongs to another model");
  }
  return tokenizer;
}

/// On a device. The message of a failure says what would fit.
Buffer allocate_weights(Memory& memory, std::size_t bytes, const Precision& precision) {
  try {
    return memory.allocate(Scope::kWeights, bytes, "weights");
  } catch (const MemoryError& error) {
    const bool half_fits = precision == kF32Precision && bytes / 2 <= memory.storage().room().free;
    throw MemoryError(error.what(), error.where(),
                      half_fits ? fmt::format("dtype bf16 takes {}", in_megabytes(bytes / 2))
                                : "the weights alone do not fit: use a smaller model, or a GPU with more memory");
  }
}

}  // namespace

// In the order in which they are made: each may refer to those above it.
struct ModelSession::Parts {
  std::optional<ModelFiles> files;
  std::optional<Tokenizer> tokenizer;
  ComputeChoice compute;
  Backend backend;
  std::unique_ptr<Memory> host_memory;  ///< null where the backend works in the host's
  SharedRegion region;                  ///< the weights in host memory
  Buffer device_region;                 ///< the weights elsewhere
  ModelWeights weights;
  std::optional<AdapterSet> adapters;
  std::optional<AdaptedModel> model;

  [[nodiscard]] Memory& host() const { return host_memory ? *host_memory : *backend.memory; }
  /// Collective. One copy a host where the backend works in host memory, one a rank elsewhere.
  void load_weights(Communicator& comm, bool training, std::span<const PairInfo> pairs);
};

void ModelSession::Parts::load_weights(Communicator& comm, bool training, std::span<const PairInfo> pairs) {
  const Ops& ops = *backend.ops;
  const WeightsLayout layout(files->config(), ops, training, pairs);
  const auto fill = [&](std::span<std::byte> bytes) {
    layout.fill(bytes, *files, ops, compute.threads, *backend.memory);
  };
  if (ops.storage().on_host()) {
    region = SharedRegion::create(comm, layout.bytes(), "weights", fill);
    if (comm.local_rank() == 0 || !region.shared()) backend.memory->note_external(Scope::kWeights, layout.bytes());
    weights = layout.bind(region.bytes().data());
    return;
  }
  comm.together(
      [&] {
        device_region = allocate_weights(*backend.memory, layout.bytes(), ops.precision());
        fill({device_region.data(), device_region.size()});
      },
      "loading the weights");
  weights = layout.bind(device_region.data());
}

ModelSession::ModelSession(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
ModelSession::ModelSession(ModelSession&&) noexcept = default;
ModelSession& ModelSession::operator=(ModelSession&&) noexcept = default;
ModelSession::~ModelSession() = default;

ModelSession ModelSession::open(const SessionOptions& options, Communicator& comm, bool training) {
  auto parts = std::make_unique<Parts>();
  Parts& p = *parts;
  p.compute = choose_compute(options.compute, comm);
  comm.together([&] { p.files.emplace(open_files(options)); }, "opening the model");
  const ModelConfig& config = p.files->config();

  // The tokenizer is parsed while the weights are read: on a small model each takes a good part of a second.
  std::future<Tokenizer> tokenizer;
  if (options.tokenizer) {
    tokenizer = std::async(std::launch::async, [&] { return load_tokenizer(options, config); });
  }
  std::vector<PairInfo> pairs;  // for which room is left beside the weights
  comm.together(
      [&] {
        p.backend = open_backend(p.compute);
        if (!p.backend.ops->storage().on_host()) p.host_memory = std::make_unique<Memory>();
        if (!options.adapter.empty()) {
          p.adapters.emplace(config, load_adapter(options.adapter, config), std::nullopt, p.host());
        }
        if (options.future_pairs) {
          pairs = options.future_pairs(config);
        } else if (p.adapters) {
          pairs.assign(p.adapters->pairs().begin(), p.adapters->pairs().end());
        }
      },
      "opening the adapter");
  p.load_weights(comm, training, pairs);
  comm.together(
      [&] {
        if (options.tokenizer) p.tokenizer.emplace(tokenizer.get());
        p.model.emplace(p.weights, p.adapters ? &*p.adapters : nullptr, *p.backend.ops, *p.backend.memory);
      },
      "opening the tokenizer");
  return ModelSession(std::move(parts));
}

ModelSession ModelSession::open(const SessionOptions& options) {
  const auto alone = make_self_communicator();
  return open(options, *alone);
}

const ModelFiles& ModelSession::files() const {
  return *parts_->files;
}
const ModelConfig& ModelSession::config() const {
  return parts_->files->config();
}
const Tokenizer& ModelSession::tokenizer() const {
  if (!parts_->tokenizer) throw Error("this session was opened without a tokenizer");
  return *parts_->tokenizer;
}
const ComputeChoice& ModelSession::compute() const {
  return parts_->compute;
}
const Ops& ModelSession::ops() const {
  return *parts_->backend.ops;
}
DeviceSteps* ModelSession::device_steps() const {
  return parts_->backend.steps.get();
}
Memory& ModelSession::memory() const {
  return *parts_->backend.memory;
}
Memory& ModelSession::host_memory() const {
  return parts_->host();
}
const ModelWeights& ModelSession::weights() const {
  return parts_->weights;
}
const std::string& ModelSession::weights_note() const {
  return parts_->region.note();
}
AdapterSet* ModelSession::adapters() const {
  return parts_->adapters ? &*parts_->adapters : nullptr;
}
const AdaptedModel& ModelSession::model() const {
  return *parts_->model;
}

}  // namespace lomu
