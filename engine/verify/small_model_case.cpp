#include <fmt/format.h>

#include <numeric>
#include <optional>
#include <utility>

#include "engine/verify/comparison.h"
#include "engine/verify/loaded_model.h"
#include "kernels/error.h"
#include "models/decoder/decoder.h"
#include "models/files/peft_adapter.h"

namespace lomu::verify {
namespace {

/// The batch of a case, with the vectors that PackedBatch views.
struct Batch {
  explicit Batch(const SafetensorsFile& file)
      : ids(read_ints(file, "input_ids")),
        labels(read_ints(file, "labels")),
        cu_seqlens(read_ints(file, "cu_seqlens")) {
    for (std::size_t d = 0; d + 1 < cu_seqlens.size(); ++d) {
      const std::int32_t length = std::max(0, cu_seqlens[d + 1] - cu_seqlens[d]);
      longest = std::max<std::int64_t>(longest, length);
      for (std::int32_t i = 0; i < length && positions.size() < ids.size(); ++i) positions.push_back(i);
    }
  }
  [[nodiscard]] PackedBatch view() const { return {ids, labels, positions, cu_seqlens}; }
  [[nodiscard]] std::int64_t tokens() const { return static_cast<std::int64_t>(ids.size()); }

  std::vector<std::int32_t> ids, labels, cu_seqlens, positions;
  std::int64_t longest = 0;
};

/// All logits of a batch.
std::vector<double> all_logits(Decoder& decoder, const Batch& batch, std::int64_t vocab, DType dtype) {
  Memory memory;
  const Buffer buffer =
      memory.allocate(Scope::kWorkspace, static_cast<std::size_t>(batch.tokens() * vocab) * size_of(dtype), "logits");
  const Tensor logits(buffer.data(), dtype, batch.tokens(), vocab);
  std::vector<std::int32_t> rows(batch.ids.size());
  std::iota(rows.begin(), rows.end(), 0);
  decoder.logits(batch.view(), rows, logits);
  return to_doubles(logits);
}

/// Collects the checks of one case.
class SmallModelCase {
 public:
  SmallModelCase(const std::filesystem::path& folder, const Ops& ops, int threads, Memory& memory)
      : name_(folder.filename().string()),
        ops_(ops),
        memory_(memory),
        limits_(tolerances_of(ops.precision())),
        model_(folder, folder / "adapter", ops, true, threads, memory),
        expected_(folder / "expected.safetensors"),
        batch_(expected_) {
    if (!std::filesystem::exists(folder / "adapter")) return;
    AdapterFile adapter = read_peft_adapter(folder / "adapter", model_.config());
    adapter.dropout = 0;  // references are computed without it
    adapters_.emplace(model_.config(), std::move(adapter), ops.precision().gradient, host_);
  }

  std::vector<ModelCheck> run() {
    const std::int64_t vocab = model_.config().vocab_size;
    const DecoderCapacity capacity{batch_.tokens(), batch_.tokens(), batch_.longest, true};
    {
      const AdaptedModel base(model_.weights(), nullptr, ops_, memory_);
      Decoder decoder(base, ops_, memory_, capacity);
      compare("base_logits", all_logits(decoder, batch_, vocab, ops_.precision().residual), limits_.forward);
    }
    const AdaptedModel adapted(model_.weights(), adapters_ ? &*adapters_ : nullptr, ops_, memory_);
    Decoder decoder(adapted, ops_, memory_, capacity);
    compare_streams(decoder);
    compare("logits", all_logits(decoder, batch_, vocab, ops_.precision().residual), limits_.forward);
    compare_losses(decoder);
    if (adapters_) compare_gradients(adapted, decoder);
    return std::move(checks_);
  }

 private:
  void compare(const std::string& quantity, const std::vector<double>& got, double tolerance) {
    const auto reference = read_doubles(expected_, quantity, static_cast<std::int64_t>(got.size()));
    checks_.push_back(make_check(name_, quantity, relative_error(got, reference), tolerance));
  }

  void compare_streams(Decoder& decoder) {
    decoder.observe([&](std::int64_t layer, Stage stage, const Tensor& tensor) {
      if (stage == Stage::kBlock) compare(fmt::format("hidden.{}", layer), to_doubles(tensor), limits_.forward);
    });
    decoder.forward(batch_.view());
    decoder.observe({});
  }

  void compare_losses(Decoder& decoder) {
    std::vector<double> per_token(batch_.ids.size());
    const double sum = decoder.forward(batch_.view(), per_token);
    compare("per_token_loss", per_token, limits_.forward);
    const double loss = sum / static_cast<double>(Decoder::supervised_tokens(batch_.view()));
    const double reference = read_doubles(expected_, "loss", 1).front();
    checks_.push_back(make_check(name_, "loss", std::abs(loss - reference), limits_.loss));
  }

  void compare_gradients(const AdaptedModel& adapted, Decoder& decoder) {
    decoder.forward_backward(batch_.view(), 1 / static_cast<double>(Decoder::supervised_tokens(batch_.view())));
    adapted.fetch_gradients();
    const Tensor gradients = adapters_->gradients();
    for (const PairInfo& pair : adapters_->pairs()) {
      if (pair.full) {
        compare("grad." + peft_name(pair.weight), to_doubles(gradients.columns(pair.offset_b, pair.size_b())),
                limits_.gradient);
        continue;
      }
      compare("grad." + peft_name({pair.layer, pair.site, Factor::kA}),
              to_doubles(gradients.columns(pair.offset_a, pair.size_a())), limits_.gradient);
      compare("grad." + peft_name({pair.layer, pair.site, Factor::kB}),
              to_doubles(gradients.columns(pair.offset_b, pair.size_b())), limits_.gradient);
    }
  }

  std::string name_;
  const Ops& ops_;
  Memory& memory_;  ///< of ops_
  Memory host_;
  Tolerances limits_;
  LoadedModel model_;
  SafetensorsFile expected_;
  Batch batch_;
  std::optional<AdapterSet> adapters_;
  std::vector<ModelCheck> checks_;
};

}  // namespace

std::vector<ModelCheck> verify_small_model(const std::filesystem::path& folder, const Ops& ops, int threads,
                                           Memory& memory) {
  return SmallModelCase(folder, ops, threads, memory).run();
}

}  // namespace lomu::verify
