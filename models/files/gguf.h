// Reading GGUF files, versions 2 and 3, little-endian: metadata and tensor table, every count and offset checked
// against the file before anything is allocated for it. Data stay in a read-only mapping. Format:
// https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. What the keys mean for a model is in model_config.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "models/files/ggml_types.h"
#include "models/files/mapped_file.h"

namespace lomu {

struct GgufArray;

/// A metadata value. Integers of all widths are int64 (uint64 beyond it is refused); floats are double.
using GgufValue = std::variant<std::int64_t, double, bool, std::string, GgufArray>;

/// Integers, floats, booleans (0 or 1) or strings, as the element type says; or arrays.
struct GgufArray {
  std::variant<std::vector<std::int64_t>, std::vector<double>, std::vector<std::string>, std::vector<GgufArray>> items;
  [[nodiscard]] std::size_t size() const;
};

/// One row of the tensor table. `dims` is in GGUF's order, fastest first: a matrix is [cols, rows].
struct GgufTensor {
  std::string name;
  GgmlTypeInfo type;
  std::vector<std::int64_t> dims;
  std::int64_t elements = 0;
  std::uint64_t begin = 0;  ///< from the start of the file
  std::uint64_t bytes = 0;
};

class GgufFile {
 public:
  /// Throws FileError; FormatError for a damaged or impossible file; UnsupportedError for version 1, big-endian files,
  /// split files, and tensor types whose number GGUF does not define.
  explicit GgufFile(const std::filesystem::path& path);

  [[nodiscard]] const std::filesystem::path& path() const { return file_.path(); }
  [[nodiscard]] std::uint32_t version() const { return version_; }
  [[nodiscard]] const std::map<std::string, GgufValue, std::less<>>& metadata() const { return metadata_; }
  /// Sorted by name.
  [[nodiscard]] const std::map<std::string, GgufTensor, std::less<>>& tensors() const { return tensors_; }
  [[nodiscard]] const GgufTensor* find(std::string_view name) const;
  /// Everything before the tensor data: what a fingerprint hashes.
  [[nodiscard]] std::span<const std::byte> header() const { return file_.bytes().first(data_begin_); }

  [[nodiscard]] bool has(std::string_view key) const;
  /// Typed metadata; nothing when the key is absent. A wrong type throws FormatError naming the key.
  [[nodiscard]] std::optional<std::int64_t> integer(std::string_view key) const;
  /// An integer or a float. A float comes as the double nearest to its shortest decimal spelling (1e-5,
  /// not 9.99999975e-06).
  [[nodiscard]] std::optional<double> number(std::string_view key) const;
  [[nodiscard]] std::optional<bool> boolean(std::string_view key) const;
  [[nodiscard]] std::optional<std::string> string(std::string_view key) const;
  /// Arrays, without a copy; null when the key is absent.
  [[nodiscard]] const std::vector<std::string>* strings(std::string_view key) const;
  [[nodiscard]] const std::vector<std::int64_t>* integers(std::string_view key) const;
  [[nodiscard]] const std::vector<double>* numbers(std::string_view key) const;

  [[nodiscard]] std::span<const std::byte> raw(const GgufTensor& tensor) const;
  /// Elements [first, first + out.size()), both whole blocks. Throws UnsupportedError naming the type when Lomu cannot
  /// read it, FormatError when the range is not inside the tensor or not whole blocks.
  void read_f32(const GgufTensor& tensor, std::int64_t first, std::span<float> out) const;
  void drop_pages(const GgufTensor& tensor) const { file_.drop_pages(raw(tensor)); }

 private:
  template <typename T>
  const T* get(std::string_view key, std::string_view expected) const;
  template <typename T>
  const std::vector<T>* get_array(std::string_view key, std::string_view expected) const;

  MappedFile file_;
  std::uint32_t version_ = 0;
  std::size_t data_begin_ = 0;
  std::map<std::string, GgufValue, std::less<>> metadata_;
  std::map<std::string, GgufTensor, std::less<>> tensors_;
};

}  // namespace lomu
