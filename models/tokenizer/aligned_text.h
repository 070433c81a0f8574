// A text on its way through the tokenizer, which still knows which bytes of the original each of its bytes came from.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lomu {

class AlignedText {
 public:
  /// A part of the original itself; `offset` is where it begins there. `part` must outlive this.
  AlignedText(std::string_view part, std::size_t offset) : view_(part), offset_(offset) {}

  [[nodiscard]] std::string_view text() const { return rewritten_ ? std::string_view(storage_) : view_; }
  /// Where in the original byte `i` of text() comes from; i may be text().size(): where the original of the text ends.
  [[nodiscard]] std::size_t origin(std::size_t i) const { return rewritten_ ? origins_[i] : offset_ + i; }

  /// The bytes [begin, end) as a text of their own. Valid as long as this is.
  [[nodiscard]] AlignedText slice(std::size_t begin, std::size_t end) const {
    AlignedText part(text().substr(begin, end - begin), origin(begin));
    if (!rewritten_) return part;
    part.storage_ = std::string(part.view_);
    part.origins_.assign(origins_.begin() + static_cast<std::ptrdiff_t>(begin),
                         origins_.begin() + static_cast<std::ptrdiff_t>(end) + 1);
    part.rewritten_ = true;
    return part;
  }

  /// Builds the successor of a text from copied and replaced parts, front to back.
  class Builder {
   public:
    explicit Builder(const AlignedText& source) : source_(source) {
      storage_.reserve(source.text().size() + source.text().size() / 8);
      origins_.reserve(storage_.capacity() + 1);
    }

    [[nodiscard]] std::size_t size() const { return storage_.size(); }

    /// Bytes [begin, end) of the source as they are.
    void copy(std::size_t begin, std::size_t end) {
      storage_.append(source_.text().substr(begin, end - begin));
      for (std::size_t i = begin; i < end; ++i) origins_.push_back(source_.origin(i));
    }

    /// `bytes` in place of the bytes [begin, end) of the source; the k-th new byte maps to the k-th old one, as far as
    /// they go.
    void replace(std::string_view bytes, std::size_t begin, std::size_t end) {
      storage_.append(bytes);
      const std::size_t first = source_.origin(begin);
      const std::size_t last = source_.origin(end);
      for (std::size_t k = 0; k < bytes.size(); ++k) origins_.push_back(std::min(first + k, last));
    }

    /// Everything of the source has been copied or replaced.
    AlignedText finish() && {
      origins_.push_back(source_.origin(source_.text().size()));
      AlignedText result({}, 0);
      result.storage_ = std::move(storage_);
      result.origins_ = std::move(origins_);
      result.rewritten_ = true;
      return result;
    }

   private:
    const AlignedText& source_;
    std::string storage_;
    std::vector<std::size_t> origins_;
  };

 private:
  std::string_view view_;
  std::size_t offset_;
  std::string storage_;
  std::vector<std::size_t> origins_;  // one for each byte of storage_ and one for its end
  bool rewritten_ = false;
};

}  // namespace lomu
