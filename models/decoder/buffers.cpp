#include "models/decoder/buffers.h"

#include <fmt/format.h>

#include <utility>

#include "kernels/error.h"

namespace lomu {
namespace {

std::size_t checked_product(std::size_t a, std::size_t b, const std::string& label) {
  std::size_t product = 0;
  if (__builtin_mul_overflow(a, b, &product)) {
    throw Error(fmt::format("a buffer for {} would be larger than any memory", label), {}, "use smaller micro-batches");
  }
  return product;
}

std::size_t round_up(std::size_t value, std::size_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

}  // namespace

std::size_t BufferPlan::add(Scope scope, std::string label, DType dtype, std::int64_t rows, std::int64_t cols,
                            std::int64_t spare) {
  const std::size_t whole_rows = round_up(static_cast<std::size_t>(rows), static_cast<std::size_t>(kRowMultiple));
  const std::size_t row_bytes = checked_product(static_cast<std::size_t>(cols + spare), size_of(dtype), label);
  std::size_t& total = bytes_[static_cast<std::size_t>(scope)];
  const std::size_t offset = total;
  total = offset + round_up(checked_product(whole_rows, row_bytes, label), Memory::kAlignment);
  if (total < offset) throw Error(fmt::format("buffers up to {} would be larger than any memory", label));
  entries_.push_back({scope, std::move(label), dtype, static_cast<std::int64_t>(whole_rows), cols, spare, offset});
  return entries_.size() - 1;
}

std::size_t BufferPlan::bytes() const {
  std::size_t sum = 0;
  for (const std::size_t b : bytes_) sum += b;
  return sum;
}

Buffers::Buffers(BufferPlan plan, Memory& memory, std::string_view owner) : plan_(std::move(plan)) {
  for (std::size_t i = 0; i < kScopes; ++i) {
    const auto scope = static_cast<Scope>(i);
    arenas_[i] = memory.allocate(scope, plan_.bytes(scope), owner);
  }
}

Tensor Buffers::tensor(std::size_t index) const {
  const BufferPlan::Entry& e = plan_.entries()[index];
  std::byte* const data = arenas_[static_cast<std::size_t>(e.scope)].data() + e.offset;
  return Tensor(data, e.dtype, e.rows, e.cols, e.cols + e.spare).with_spare(e.spare);
}

}  // namespace lomu
