#include "tests/models/decoder/tiny_model.h"

#include <fmt/format.h>
#include <stdlib.h>

#include <cmath>
#include <fstream>
#include <map>

#include "kernels/error.h"
#include "kernels/philox.h"
#include "models/files/names.h"
#include "models/files/safetensors_writer.h"

namespace lomu::test {
namespace {

const std::map<std::string, std::string> kFamilies = {
    {"llama", R"("model_type": "llama", "tie_word_embeddings": true)"},
    {"llama-bias", R"("model_type": "llama", "tie_word_embeddings": false, "attention_bias": true, "mlp_bias": true)"},
    {"mistral", R"("model_type": "mistral", "tie_word_embeddings": false, "sliding_window": 3)"},
    {"qwen2", R"("model_type": "qwen2", "tie_word_embeddings": true)"},
    {"qwen3", R"("model_type": "qwen3", "tie_word_embeddings": false, "head_dim": 10)"},
};

double uniform(std::uint64_t stream, std::uint64_t index) {  // [-1, 1)
  return 2.0 * Philox(3, Purpose::kTest).uniforms(stream, index)[0] - 1;
}

}  // namespace

TemporaryFolder::TemporaryFolder() {
  std::string pattern = (std::filesystem::temp_directory_path() / "lomu_decoder_XXXXXX").string();
  if (mkdtemp(pattern.data()) == nullptr) throw FileError("cannot make a temporary folder", pattern);
  path_ = pattern;
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

void write_tiny_model(const std::filesystem::path& folder, const std::string& family) {
  std::ofstream(folder / "config.json") << fmt::format(
      R"({{{}, "hidden_size": 24, "intermediate_size": 36, "num_hidden_layers": 3, "num_attention_heads": 4,
  "num_key_value_heads": 2, "vocab_size": 41, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
  "rope_theta": 100.0, "hidden_act": "silu"}})",
      kFamilies.at(family));
  const ModelConfig config = read_hf_config(folder / "config.json");
  std::vector<TensorSpec> specs;
  for (const WeightId id : weights_of(config)) specs.push_back({hf_name(id), DType::kF32, shape_of(config, id).dims()});
  SafetensorsWriter writer(folder / "model.safetensors", specs);
  for (std::uint64_t stream = 0; stream < writer.tensors().size(); ++stream) {
    const TensorSpec& spec = writer.tensors()[stream];
    const bool norm = spec.name.find("norm") != std::string::npos;
    std::vector<float> values(static_cast<std::size_t>(spec.elements()));
    for (std::size_t i = 0; i < values.size(); ++i) {
      values[i] = static_cast<float>((norm ? 1 : 0) + 0.4 * uniform(stream, i));
    }
    writer.write(values);
  }
  writer.commit();
}

TinyModel::TinyModel(const std::string& family, const Ops& ops, bool training,
                     const std::optional<AdapterOptions>& adapter)
    : files_((write_tiny_model(folder_.path(), family), ModelFiles::open(folder_.path()))),
      layout_(files_.config(), ops, training,
              adapter ? plan_pairs(files_.config(), *adapter) : std::vector<PairInfo>()),
      region_(memory_.allocate(Scope::kWeights, layout_.bytes(), "weights")) {
  layout_.fill({region_.data(), region_.size()}, files_, ops, 2, memory_);
  weights_ = layout_.bind(region_.data());
}

RandomBatch::RandomBatch(const std::vector<std::int64_t>& lengths, std::uint64_t stream, std::int64_t vocab) {
  for (const std::int64_t length : lengths) {
    for (std::int64_t i = 0; i < length; ++i) {
      const auto bits = Philox(5, Purpose::kTest).bits(stream, ids.size());
      ids.push_back(static_cast<std::int32_t>(bounded(bits, static_cast<std::uint64_t>(vocab))));
      labels.push_back(bits % 3 == 0 ? kNotSupervised : ids.back());
      positions.push_back(static_cast<std::int32_t>(i));
    }
    cu_seqlens.push_back(static_cast<std::int32_t>(ids.size()));
  }
}

void RandomBatch::append(const RandomBatch& from, std::size_t d) {
  for (std::int32_t t = from.cu_seqlens[d]; t < from.cu_seqlens[d + 1]; ++t) {
    const auto i = static_cast<std::size_t>(t);
    ids.push_back(from.ids[i]);
    labels.push_back(from.labels[i]);
    positions.push_back(from.positions[i]);
  }
  cu_seqlens.push_back(static_cast<std::int32_t>(ids.size()));
}

RandomBatch RandomBatch::document(std::size_t d) const {
  return reordered({d});
}

RandomBatch RandomBatch::reordered(const std::vector<std::size_t>& order) const {
  RandomBatch batch(std::vector<std::int64_t>{});
  for (const std::size_t d : order) batch.append(*this, d);
  return batch;
}

void randomize(AdapterSet& adapters, double size) {
  for (const PairInfo& pair : adapters.pairs()) {
    if (pair.full) continue;  // what the model has is random already
    const auto stream = static_cast<std::uint64_t>(100 + 10 * pair.layer) + static_cast<std::uint64_t>(pair.site);
    std::uint64_t i = 0;
    for (float& x : adapters.a(pair)) x = static_cast<float>(size * uniform(stream, i++));
    for (float& x : adapters.b(pair)) x = static_cast<float>(size * uniform(stream, i++));
  }
}

std::vector<double> gradients_of(const AdapterSet& adapters) {
  const Tensor g = adapters.gradients();
  std::vector<double> values(static_cast<std::size_t>(g.size()));
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = g.dtype == DType::kF64 ? g.as<double>()[i] : g.as<float>()[i];
  }
  return values;
}

double relative_error(const std::vector<double>& a, const std::vector<double>& b) {
  double difference = 0;
  double norm = 0;
  for (std::size_t i = 0; i < b.size(); ++i) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    norm += b[i] * b[i];
  }
  return difference == 0 ? 0 : std::sqrt(difference / norm);
}

}  // namespace lomu::test
