// Which algorithm of the matrix library was the fastest for a shape, remembered from run to run in a file. It holds
// what others measured and measures nothing itself; it needs neither a device nor the library, for which an algorithm
// is a few opaque numbers. They mean nothing to another version of it, so a file belongs to one environment: card,
// library and driver. A file that is damaged or another environment's is as good as none.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "kernels/cuda/matrix_product.h"

namespace lomu::cuda {

class AlgorithmCache {
 public:
  using Algorithm = std::array<std::uint64_t, 8>;
  using Table = std::map<std::string, Algorithm, std::less<>>;
  using Warn = std::function<void(const std::string&)>;

  /// Reads `file` if it is there; empty: nothing is read or written. `environment` is one line of text. `warn` gets at
  /// most one line in the life of this object: a file that cannot be used, or could not be written.
  AlgorithmCache(std::filesystem::path file, std::string environment, Warn warn);

  /// `shape`: a key without blanks.
  [[nodiscard]] std::optional<Algorithm> find(std::string_view shape) const;
  void add(std::string shape, const Algorithm& algorithm);

  /// Writes what has been added since the last time, with what other processes have written meanwhile. Other readers
  /// see the old file or the new one. Does not throw: a run goes on without its cache.
  void save() noexcept;

  [[nodiscard]] std::size_t size() const { return table_.size(); }

 private:
  void report(const std::string& text);

  std::filesystem::path file_;
  std::string environment_;
  Warn warn_;
  Table table_;
  bool changed_ = false;
};

/// The key of a product: its types and transpositions, its sizes rounded up to three significant bits (numbers of
/// tokens vary from batch to batch, and what is fast for one is fast for its neighbours), and how its operands are
/// aligned.
std::string shape_text(const Product& product);

/// The text of a file, and back. parse throws FormatError, which says what is wrong, for anything but such a text of
/// this environment.
std::string cache_text(const AlgorithmCache::Table& table, std::string_view environment);
AlgorithmCache::Table parse_cache(std::string_view text, std::string_view environment);

/// $XDG_CACHE_HOME/lomu/products-<hash of the environment>.txt, else under $HOME/.cache; empty where neither is an
/// absolute path. `variable` is std::getenv, or a test's.
std::filesystem::path default_cache_file(std::string_view environment,
                                         const std::function<const char*(const char*)>& variable);

}  // namespace lomu::cuda
