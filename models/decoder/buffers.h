// A plan of buffers made before anything is allocated: tensors by scope and label, laid out in one arena a scope. The
// plan is what `bytes` is predicted from and what is then allocated, so the two cannot differ.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/memory.h"
#include "kernels/tensor.h"

namespace lomu {

/// Rows of every planned buffer are rounded up to this, so that a backend may work in whole tiles.
inline constexpr std::int64_t kRowMultiple = 64;

class BufferPlan {
 public:
  struct Entry {
    Scope scope = Scope::kActivations;
    std::string label;  ///< "block 3, gate|up"
    DType dtype = DType::kF32;
    std::int64_t rows = 0;
    std::int64_t cols = 0;
    std::int64_t spare = 0;  ///< columns behind them (Tensor::spare)
    std::size_t offset = 0;  ///< in the arena of its scope
  };

  /// Reserves [rows, cols + spare], rows rounded up to kRowMultiple; returns the entry's index. Throws Error on
  /// overflow.
  std::size_t add(Scope scope, std::string label, DType dtype, std::int64_t rows, std::int64_t cols,
                  std::int64_t spare = 0);

  [[nodiscard]] const std::vector<Entry>& entries() const { return entries_; }
  [[nodiscard]] std::size_t bytes(Scope scope) const { return bytes_[static_cast<std::size_t>(scope)]; }
  [[nodiscard]] std::size_t bytes() const;

 private:
  std::vector<Entry> entries_;
  std::array<std::size_t, kScopes> bytes_{};
};

/// The memory of a plan.
class Buffers {
 public:
  Buffers(BufferPlan plan, Memory& memory, std::string_view owner);
  /// The whole tensor of an entry, with its rounded rows.
  [[nodiscard]] Tensor tensor(std::size_t index) const;

 private:
  BufferPlan plan_;
  std::array<Buffer, kScopes> arenas_;
};

}  // namespace lomu
