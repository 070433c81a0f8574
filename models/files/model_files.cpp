#include "models/files/model_files.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <set>

#include "kernels/dequantize.h"
#include "kernels/error.h"
#include "models/files/gguf.h"
#include "models/files/hashing.h"
#include "models/files/hf_config_writer.h"
#include "models/files/json_value.h"
#include "models/files/random_weights.h"
#include "models/files/safetensors.h"
#include "models/files/untrained.h"

namespace lomu {
namespace {

namespace fs = std::filesystem;

// Where one weight is stored: in a shard of a folder, or in a GGUF (then `tensor` is set); nowhere if it is random.
struct Stored {
  SafetensorsSet::Entry shard;
  const GgufTensor* tensor = nullptr;
  bool random = false;
};

// A stored tensor before it is known whether the model has a place for it.
struct Candidate {
  std::string name;
  std::optional<WeightId> id;
  std::vector<std::int64_t> dims;  // slowest first
  Stored stored;
};

std::string type_name(const Stored& stored) {
  if (stored.random) return "random";
  if (stored.tensor != nullptr) return std::string(stored.tensor->type.name);
  const auto dtype = dtype_of(*stored.shard.info);
  return dtype ? std::string(name_of(*dtype)) : stored.shard.info->dtype;
}

/// Nothing for a type that is not read.
std::optional<Encoding> encoding_of(const Stored& stored) {
  if (stored.random) return Encoding::kF32;
  if (stored.tensor != nullptr) return stored.tensor->type.encoding;
  const auto dtype = dtype_of(*stored.shard.info);
  if (dtype == DType::kF32) return Encoding::kF32;
  if (dtype == DType::kF16) return Encoding::kF16;
  if (dtype == DType::kBF16) return Encoding::kBF16;
  return {};
}

std::span<const std::byte> raw_bytes(const Stored& stored, const std::optional<GgufFile>& gguf) {
  if (stored.random) return {};
  return stored.tensor != nullptr ? gguf->raw(*stored.tensor) : stored.shard.file->raw(*stored.shard.info);
}

// llama.cpp stores the rows of q and k of llama-architecture files with the two halves of each head interleaved (its
// rotation turns neighbours): in a head of d rows, row i + h d / 2 of the rotate-half layout (h = 0, 1) is row 2 i + h
// of the file.
std::int64_t interleaved_row(std::int64_t row, std::int64_t head_dim) {
  const std::int64_t in_head = row % head_dim;
  const std::int64_t half = head_dim / 2;
  return row - in_head + 2 * (in_head % half) + in_head / half;
}

bool rotates(WeightKind kind) {
  return kind == WeightKind::kQ || kind == WeightKind::kK || kind == WeightKind::kQBias || kind == WeightKind::kKBias;
}

// Buffers that some writers store and every reader computes, or reads with the configuration (rope_freqs).
bool is_rotary_buffer(std::string_view name) {
  return name.ends_with(".rotary_emb.inv_freq") || name.ends_with(".attn_rot_embd.weight") ||
         name == "rope_freqs.weight";
}

// Sampled, not whole: a fingerprint must cost milliseconds on a model of any size.
void add_samples(FastHash& hash, std::span<const std::byte> bytes) {
  constexpr std::size_t kSamples = 64;
  constexpr std::size_t kSampleBytes = 4096;
  hash.add(static_cast<std::uint64_t>(bytes.size()));
  if (bytes.size() <= kSamples * kSampleBytes) {
    hash.add(bytes);
    return;
  }
  const std::size_t last = bytes.size() - kSampleBytes;
  for (std::size_t i = 0; i < kSamples; ++i) hash.add(bytes.subspan(last / (kSamples - 1) * i, kSampleBytes));
  hash.add(bytes.last(kSampleBytes));
}

}  // namespace

struct ModelFiles::Impl {
  fs::path path;
  ModelConfig config;
  std::optional<SafetensorsSet> shards;
  std::optional<GgufFile> gguf;
  std::map<WeightId, Stored> stored;
  std::function<void(WeightId, std::int64_t, std::span<float>)> generate;  ///< of a model that is nowhere
  std::string description;                                                 ///< of such a model, for its fingerprint
  std::vector<std::string> ignored;
  std::vector<std::int64_t> stop_ids;

  void open_folder();
  void open_gguf();
  void place_all(std::vector<Candidate> candidates);
  void settle_tied_head();

  [[nodiscard]] std::string where(std::string_view name) const { return fmt::format("{}: {}", path.string(), name); }
  [[nodiscard]] std::string stored_name(WeightId id) const { return gguf ? gguf_name(id) : hf_name(id); }
  [[nodiscard]] const Stored& at(WeightId id) const;
  /// Whether rows of this weight stand in llama.cpp's order.
  [[nodiscard]] bool interleaved(WeightId id) const {
    return gguf && config.architecture == Architecture::kLlama && rotates(id.kind);
  }
};

void ModelFiles::Impl::open_folder() {
  config = read_hf_config(path / "config.json");
  shards.emplace(SafetensorsSet::open(path));
  std::vector<Candidate> candidates;
  for (const auto& [name, entry] : shards->entries()) {
    candidates.push_back({name, parse_hf_name(name), entry.info->shape, {entry, nullptr}});
  }
  place_all(std::move(candidates));

  stop_ids = config.eos_ids;
  const fs::path generation = path / "generation_config.json";
  if (!fs::exists(generation)) return;
  const JsonValue document = read_json_file(generation);
  const auto more = JsonFields(document, generation.string()).integers("eos_token_id");
  for (const std::int64_t id : more.value_or(std::vector<std::int64_t>{})) {
    const bool known = std::find(stop_ids.begin(), stop_ids.end(), id) != stop_ids.end();
    if (id >= 0 && id < config.vocab_size && !known) stop_ids.push_back(id);
  }
}

void ModelFiles::Impl::open_gguf() {
  gguf.emplace(path);
  config = read_gguf_config(*gguf);
  stop_ids = config.eos_ids;
  std::vector<Candidate> candidates;
  for (const auto& [name, tensor] : gguf->tensors()) {
    candidates.push_back({name, parse_gguf_name(name), {tensor.dims.rbegin(), tensor.dims.rend()}, {{}, &tensor}});
  }
  place_all(std::move(candidates));
}

// Every stored tensor is placed or refused: an unknown bias or projection left out would be silently wrong.
void ModelFiles::Impl::place_all(std::vector<Candidate> candidates) {
  const auto list = weights_of(config);
  std::set<WeightId> expected(list.begin(), list.end());
  expected.insert({WeightKind::kLmHead, 0});  // whether it may stand beside tied embeddings is settled below
  for (Candidate& candidate : candidates) {
    if (is_rotary_buffer(candidate.name)) {
      ignored.push_back(std::move(candidate.name));
      continue;
    }
    if (!candidate.id) {
      throw UnsupportedError("this tensor has no place in any decoder that Lomu knows", where(candidate.name),
                             "the model has a part that would be left out silently, so it is not used at all");
    }
    const WeightId id = *candidate.id;
    if (!expected.contains(id)) {
      throw FormatError("the configuration gives the model no such weight", where(candidate.name),
                        is_per_layer(id.kind) && id.layer >= config.num_layers
                            ? fmt::format("the configuration says {} layers", config.num_layers)
                            : "look for a bias or norm setting of the configuration that does not fit the weights");
    }
    const auto dims = shape_of(config, id).dims();
    if (candidate.dims != dims) {
      throw FormatError(fmt::format("its shape is [{}], but the configuration gives [{}]",
                                    fmt::join(candidate.dims, ", "), fmt::join(dims, ", ")),
                        where(candidate.name), "weights and configuration are of different models, or one is damaged");
    }
    if (!encoding_of(candidate.stored)) {
      throw UnsupportedError(
          fmt::format("weights of type {}", type_name(candidate.stored)), where(candidate.name),
          "f32, f16 and bf16 are read, and from GGUF also q8_0, q4_0, q4_1, q5_0, q5_1, q4_K and q6_K");
    }
    stored.emplace(id, candidate.stored);
  }
  settle_tied_head();
  for (const WeightId id : list) {
    if (stored.contains(id)) continue;
    throw FormatError("the tensor is missing", where(stored_name(id)), "the file is incomplete: fetch the model again");
  }
}

// transformers ties the head to the embedding whichever of the two is stored, and checks that two stored ones are
// equal.
void ModelFiles::Impl::settle_tied_head() {
  if (!config.tie_word_embeddings) return;
  const WeightId embed{WeightKind::kEmbed, 0};
  const WeightId head{WeightKind::kLmHead, 0};
  const auto head_entry = stored.find(head);
  if (head_entry == stored.end()) return;
  const auto [embed_entry, only_head] = stored.emplace(embed, head_entry->second);
  if (!only_head) {
    const auto a = raw_bytes(embed_entry->second, gguf);
    const auto b = raw_bytes(head_entry->second, gguf);
    if (!std::equal(a.begin(), a.end(), b.begin(), b.end())) {
      throw FormatError("the configuration ties the head to the embedding, but the two stored tensors differ",
                        where(stored_name(head)),
                        "set tie_word_embeddings to false in config.json if the head is its own");
    }
    ignored.push_back(stored_name(head));
  }
  stored.erase(head);
}

const Stored& ModelFiles::Impl::at(WeightId id) const {
  const bool tied_head = id.kind == WeightKind::kLmHead && config.tie_word_embeddings;
  const auto it = stored.find(tied_head ? WeightId{WeightKind::kEmbed, 0} : id);
  if (it == stored.end()) throw FormatError("the model has no such weight", where(stored_name(id)));
  return it->second;
}

ModelFiles::ModelFiles(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ModelFiles::ModelFiles(ModelFiles&&) noexcept = default;
ModelFiles& ModelFiles::operator=(ModelFiles&&) noexcept = default;
ModelFiles::~ModelFiles() = default;

ModelFiles ModelFiles::open(const fs::path& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (!fs::exists(status)) {
    throw FileError("there is no such model", path.string(), "give the folder of a Hugging Face model or a .gguf file");
  }
  auto impl = std::make_unique<Impl>();
  impl->path = path;
  if (fs::is_directory(status)) {
    impl->open_folder();
  } else {
    impl->open_gguf();
  }
  return ModelFiles(std::move(impl));
}

ModelFiles ModelFiles::random(const fs::path& config_json) {
  auto impl = std::make_unique<Impl>();
  impl->path = config_json;
  impl->config = read_hf_config(config_json);
  impl->generate = random_weight;
  impl->description = config_json_from(impl->config, DType::kF32);
  for (const WeightId id : weights_of(impl->config)) impl->stored.emplace(id, Stored{{}, nullptr, true});
  return ModelFiles(std::move(impl));
}

ModelFiles ModelFiles::untrained(const UntrainedModel& model) {
  auto impl = std::make_unique<Impl>();
  impl->path = "a new model";
  impl->config = config_of(model);
  impl->generate = [config = impl->config, seed = model.seed](WeightId id, std::int64_t first, std::span<float> out) {
    untrained_weight(config, seed, id, first, out);
  };
  impl->description =
      fmt::format("{}seed {}, base {}", config_json_from(impl->config, DType::kF32), model.seed, !model.without_base);
  for (const WeightId id : weights_of(impl->config)) impl->stored.emplace(id, Stored{{}, nullptr, true});
  return ModelFiles(std::move(impl));
}

const ModelConfig& ModelFiles::config() const {
  return impl_->config;
}
const fs::path& ModelFiles::path() const {
  return impl_->path;
}
bool ModelFiles::nowhere() const {
  return !impl_->gguf && !impl_->shards;
}
const GgufFile* ModelFiles::gguf() const {
  return impl_->gguf ? &*impl_->gguf : nullptr;
}
bool ModelFiles::has(WeightId id) const {
  return impl_->stored.contains(id);
}
std::string ModelFiles::stored_type(WeightId id) const {
  return type_name(impl_->at(id));
}
const std::vector<std::int64_t>& ModelFiles::stop_ids() const {
  return impl_->stop_ids;
}
const std::vector<std::string>& ModelFiles::ignored_tensors() const {
  return impl_->ignored;
}
std::int64_t ModelFiles::parameter_count() const {
  return lomu::parameter_count(impl_->config);
}

void ModelFiles::read(WeightId id, std::span<float> out) const {
  read_rows(id, 0, shape_of(impl_->config, id).rows, out);
}

EncodedRows ModelFiles::encoded_rows(WeightId id, std::int64_t first, std::int64_t count,
                                     std::vector<std::byte>& space) const {
  const Stored& from = impl_->at(id);
  const WeightShape shape = shape_of(impl_->config, id);
  if (first < 0 || count < 0 || count > shape.rows || first > shape.rows - count) {
    throw FormatError(fmt::format("rows {} to {} were asked for; the shape is [{}, {}]", first, first + count,
                                  shape.rows, shape.cols),
                      impl_->where(impl_->stored_name(id)));
  }
  EncodedRows rows{*encoding_of(from), nullptr, count, shape.cols};
  if (from.random) {
    const bool tied_head = id.kind == WeightKind::kLmHead && impl_->config.tie_word_embeddings;
    space.resize(rows.bytes());
    impl_->generate(tied_head ? WeightId{WeightKind::kEmbed, 0} : id, first * shape.cols,
                    {reinterpret_cast<float*>(space.data()), space.size() / sizeof(float)});
    rows.data = space.data();
    return rows;
  }
  const std::byte* stored = raw_bytes(from, impl_->gguf).data();
  const std::int64_t row_bytes = rows.row_bytes();
  const std::int64_t head_dim = impl_->config.head_dim;
  if (!impl_->interleaved(id)) {
    rows.data = stored + first * row_bytes;
  } else if (shape.vector) {
    rows.data = stored;
    const std::unique_ptr<float[]> in_file = dequantized(rows);
    rows.encoding = Encoding::kF32;
    space.resize(rows.bytes());
    for (std::int64_t i = 0; i < shape.cols; ++i) {
      std::memcpy(space.data() + i * static_cast<std::int64_t>(sizeof(float)), &in_file[interleaved_row(i, head_dim)],
                  sizeof(float));
    }
    rows.data = space.data();
  } else {
    space.resize(rows.bytes());
    for (std::int64_t i = 0; i < count; ++i) {
      std::memcpy(space.data() + i * row_bytes, stored + interleaved_row(first + i, head_dim) * row_bytes,
                  static_cast<std::size_t>(row_bytes));
    }
    rows.data = space.data();
  }
  return rows;
}

void ModelFiles::read_rows(WeightId id, std::int64_t first, std::int64_t count, std::span<float> out) const {
  std::vector<std::byte> space;
  const EncodedRows rows = encoded_rows(id, first, count, space);
  if (out.size() != static_cast<std::size_t>(rows.rows * rows.cols)) {
    throw FormatError(fmt::format("{} rows of {} do not go into {} floats", rows.rows, rows.cols, out.size()),
                      impl_->where(impl_->stored_name(id)));
  }
  dequantize(rows.encoding, {rows.data, rows.bytes()}, out);
}

void ModelFiles::drop_pages(WeightId id) const {
  const Stored& from = impl_->at(id);
  if (from.random) return;
  if (from.tensor != nullptr) {
    impl_->gguf->drop_pages(*from.tensor);
  } else {
    from.shard.file->drop_pages(*from.shard.info);
  }
}

std::uint64_t ModelFiles::stored_bytes() const {
  std::uint64_t bytes = 0;
  for (const auto& [id, from] : impl_->stored) bytes += raw_bytes(from, impl_->gguf).size();
  return bytes;
}

std::string ModelFiles::fingerprint() const {
  FastHash hash;
  if (impl_->gguf) {
    hash.add(impl_->gguf->header());
  } else if (!impl_->shards) {
    hash.add(impl_->description);
  } else {
    hash.add(MappedFile(impl_->path / "config.json").bytes());
    for (const SafetensorsFile& file : impl_->shards->files()) hash.add(file.header());
  }
  for (const auto& [id, from] : impl_->stored) {
    hash.add(hf_name(id));
    add_samples(hash, raw_bytes(from, impl_->gguf));
  }
  return hash.hex();
}

}  // namespace lomu
