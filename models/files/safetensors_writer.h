// Writing safetensors files, whole or not at all: values are given as f32 (or i32) and narrowed to what each tensor is
// to be stored as. Large models go into shards with an index, as on the hub.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "kernels/dtype.h"
#include "models/files/atomic_file.h"

namespace lomu {

/// A tensor to come: f32, f16, bf16 or i32.
struct TensorSpec {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<std::int64_t> shape;

  [[nodiscard]] std::int64_t elements() const;
  [[nodiscard]] std::uint64_t bytes() const;
};

/// Rounds to nearest even. Throws NumericError naming `where` when a finite value becomes infinite (f16 ends at 65504).
void narrow(std::span<const float> values, DType dtype, std::span<std::byte> out, const std::string& where);

/// What a file of this type gives back for a value written to it.
float stored_value(float value, DType dtype);

/// One file, written from front to back: the tensors one after the other in the order of tensors(), each in pieces of
/// any size.
class SafetensorsWriter {
 public:
  /// Sorts the tensors so that wider types come first (each is then aligned to its own width) and writes the header,
  /// with the metadata {"format": "pt"} that transformers asks for. Throws FileError; UsageError for a repeated name or
  /// a type that cannot be written.
  SafetensorsWriter(const std::filesystem::path& path, std::vector<TensorSpec> tensors);

  /// In the order in which write() expects them.
  [[nodiscard]] const std::vector<TensorSpec>& tensors() const { return tensors_; }

  /// The next values of the current float tensor. A call must not go beyond the tensor's end.
  void write(std::span<const float> values);
  /// The same for an i32 tensor.
  void write(std::span<const std::int32_t> values);

  /// Throws UsageError when a tensor is not complete; FileError.
  void commit();

 private:
  void skip_empty();
  void advance(std::size_t count, bool as_integers);

  std::filesystem::path path_;
  std::vector<TensorSpec> tensors_;
  AtomicFile file_;
  std::size_t current_ = 0;
  std::int64_t written_ = 0;  // elements of the current tensor
  std::vector<std::byte> narrowed_;
};

/// Which tensors go into which file of a model.
struct FileShardPlan {
  struct Shard {
    std::string file;  ///< "model.safetensors", or "model-00001-of-00003.safetensors"
    std::vector<TensorSpec> tensors;
  };
  std::vector<Shard> shards;
  std::string index;  ///< text of model.safetensors.index.json; empty when there is one shard
};

/// The hub's limit for one shard.
inline constexpr std::uint64_t kMaxShardBytes = 5'000'000'000;

/// Fills shards in the given order up to `max_bytes` each; a tensor above that gets a shard of its own.
FileShardPlan plan_file_shards(std::vector<TensorSpec> tensors, std::uint64_t max_bytes = kMaxShardBytes);

}  // namespace lomu
