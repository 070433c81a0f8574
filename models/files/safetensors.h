// Reading safetensors files: the header is checked whole before any tensor can be asked for, data stay in a read-only
// mapping. Format: https://huggingface.co/docs/safetensors (8 bytes of header length, JSON header, tensor data).
// Which tensors a model needs is not known here; see model_files.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kernels/dtype.h"
#include "models/files/mapped_file.h"

namespace lomu {

/// One entry of a header. `dtype` is the file's spelling, "BF16"; bytes are relative to the start of the file.
struct SafetensorInfo {
  std::string name;
  std::string dtype;
  std::vector<std::int64_t> shape;
  std::int64_t elements = 0;
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
};

/// "F32" -> f32 and so on for F64, F32, F16, BF16, I32; nothing for other types.
std::optional<DType> dtype_of(const SafetensorInfo& info);

class SafetensorsFile {
 public:
  /// Throws FileError; FormatError when length, JSON, names, shapes or offsets are wrong: overlapping, out of range,
  /// overflowing, with gaps, or not the size that dtype and shape give.
  explicit SafetensorsFile(const std::filesystem::path& path);

  [[nodiscard]] const std::filesystem::path& path() const { return file_.path(); }
  /// Sorted by name.
  [[nodiscard]] const std::vector<SafetensorInfo>& tensors() const { return tensors_; }
  [[nodiscard]] const SafetensorInfo* find(std::string_view name) const;
  [[nodiscard]] const std::map<std::string, std::string>& metadata() const { return metadata_; }
  /// The length field and the JSON header: what a fingerprint hashes.
  [[nodiscard]] std::span<const std::byte> header() const { return file_.bytes().first(data_begin_); }

  /// Like find, but throws FormatError naming file and tensor.
  [[nodiscard]] const SafetensorInfo& at(std::string_view name) const;

  /// Bytes of a tensor of this file; their address has no guaranteed alignment.
  [[nodiscard]] std::span<const std::byte> raw(const SafetensorInfo& info) const;

  /// Elements [first, first + out.size()) of F32, F16 or BF16, widened exactly. Throws UnsupportedError for other types
  /// (F64 does not fit f32), FormatError when the range is not inside the tensor.
  void read_f32(const SafetensorInfo& info, std::int64_t first, std::span<float> out) const;
  void read_f32(std::string_view name, std::span<float> out) const;
  /// F64, F32, F16 or BF16, exactly.
  void read_f64(std::string_view name, std::span<double> out) const;
  /// I32 or I64.
  void read_i64(std::string_view name, std::span<std::int64_t> out) const;
  /// I32, or I64 whose values fit; throws FormatError when one does not.
  void read_i32(std::string_view name, std::span<std::int32_t> out) const;

  void drop_pages(const SafetensorInfo& info) const { file_.drop_pages(raw(info)); }

 private:
  const SafetensorInfo& whole(std::string_view name, std::size_t elements) const;
  void parse_header();

  MappedFile file_;
  std::size_t data_begin_ = 0;
  std::vector<SafetensorInfo> tensors_;
  std::map<std::string, std::string> metadata_;
};

/// The weights of a Hugging Face folder: model.safetensors, or the shards that model.safetensors.index.json names.
class SafetensorsSet {
 public:
  /// Throws FileError when there is neither; FormatError when index and shards disagree or a tensor is in two shards;
  /// UnsupportedError when only pickled weights (*.bin) are there.
  static SafetensorsSet open(const std::filesystem::path& folder);

  /// A tensor and the file it is in.
  struct Entry {
    const SafetensorsFile* file = nullptr;
    const SafetensorInfo* info = nullptr;
  };
  [[nodiscard]] std::optional<Entry> find(std::string_view name) const;
  /// Sorted by name.
  [[nodiscard]] const std::map<std::string, Entry, std::less<>>& entries() const { return entries_; }
  [[nodiscard]] const std::vector<SafetensorsFile>& files() const { return files_; }

 private:
  explicit SafetensorsSet(std::vector<SafetensorsFile> files);

  std::vector<SafetensorsFile> files_;
  std::map<std::string, Entry, std::less<>> entries_;
};

}  // namespace lomu
