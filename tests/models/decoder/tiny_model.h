// Small random models written as Hugging Face folders, and what a test needs around them.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "kernels/memory.h"
#include "kernels/ops.h"
#include "models/decoder/adapter_set.h"
#include "models/decoder/decoder.h"
#include "models/decoder/weights.h"
#include "models/files/model_files.h"

namespace lomu::test {

/// A folder that goes when the test ends.
class TemporaryFolder {
 public:
  TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder();
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

/// "llama": 3 layers, grouped heads, tied. "llama-bias": all biases, untied. "mistral": window 3. "qwen2": q|k|v
/// biases. "qwen3": head norm, heads wider than the hidden size. Vocabulary 41, hidden 24.
void write_tiny_model(const std::filesystem::path& folder, const std::string& family);

/// A tiny model in memory.
class TinyModel {
 public:
  /// `adapter`: leave room for it beside the weights (WeightsLayout).
  TinyModel(const std::string& family, const Ops& ops, bool training = true,
            const std::optional<AdapterOptions>& adapter = {});
  [[nodiscard]] const ModelFiles& files() const { return files_; }
  [[nodiscard]] const ModelConfig& config() const { return files_.config(); }
  [[nodiscard]] const ModelWeights& weights() const { return weights_; }

 private:
  TemporaryFolder folder_;
  ModelFiles files_;
  WeightsLayout layout_;
  Memory memory_;
  Buffer region_;
  ModelWeights weights_;
};

/// Documents of the given lengths with random tokens. About a third of the labels are not supervised.
class RandomBatch {
 public:
  explicit RandomBatch(const std::vector<std::int64_t>& lengths, std::uint64_t stream = 1, std::int64_t vocab = 41);
  [[nodiscard]] PackedBatch view() const { return {ids, labels, positions, cu_seqlens}; }
  /// Document `d` as a batch of its own.
  [[nodiscard]] RandomBatch document(std::size_t d) const;
  /// The same documents in another order.
  [[nodiscard]] RandomBatch reordered(const std::vector<std::size_t>& order) const;

  std::vector<std::int32_t> ids, labels, positions, cu_seqlens{0};

 private:
  void append(const RandomBatch& from, std::size_t d);
};

/// Both factors non-zero and random, so that every gradient is too.
void randomize(AdapterSet& adapters, double size = 0.3);

/// The gradient buffer as doubles.
std::vector<double> gradients_of(const AdapterSet& adapters);

/// norm(a - b) / norm(b)
double relative_error(const std::vector<double>& a, const std::vector<double>& b);

}  // namespace lomu::test
