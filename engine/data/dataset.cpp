#include "engine/data/dataset.h"

#include <fmt/format.h>

#include <cstring>

#include "engine/data/dataset_file.h"
#include "kernels/error.h"
#include "models/files/hashing.h"

namespace lomu {
namespace {

using dataset_file::Head;
using dataset_file::padded;
using dataset_file::Tail;

[[noreturn]] void damaged(const MappedFile& file, const char* what) {
  throw FormatError(fmt::format("the tokenised data cannot be used: {}", what), file.path().string(),
                    "remove the file; it is made again from the source");
}

// Takes sections off the front of the file. Sizes come from the file and are checked against what is left of it.
class Sections {
 public:
  Sections(const MappedFile& file, std::span<const std::byte> bytes) : file_(file), rest_(bytes) {}

  template <typename T>
  std::span<const T> take(std::uint64_t count) {
    if (count > rest_.size() / sizeof(T)) damaged(file_, "a section reaches beyond its end");
    const std::uint64_t bytes = count * sizeof(T);
    if (padded(bytes) > rest_.size()) damaged(file_, "a section reaches beyond its end");
    // The file is mapped at a page's start and sections begin at multiples of 8, so the cast keeps alignment.
    const std::span<const T> section(reinterpret_cast<const T*>(rest_.data()), count);
    rest_ = rest_.subspan(padded(bytes));
    return section;
  }

  [[nodiscard]] std::uint64_t left() const { return rest_.size(); }

 private:
  const MappedFile& file_;
  std::span<const std::byte> rest_;
};

}  // namespace

Dataset Dataset::open(const std::filesystem::path& path, std::uint64_t key) {
  Dataset data{MappedFile(path)};
  const auto bytes = data.file_.bytes();
  Head head;
  Tail tail;
  if (bytes.size() < sizeof head + sizeof tail) damaged(data.file_, "it is too short");
  std::memcpy(&head, bytes.data(), sizeof head);
  const auto body = bytes.first(bytes.size() - sizeof tail);
  std::memcpy(&tail, bytes.data() + body.size(), sizeof tail);
  if (head.magic != dataset_file::kMagic || tail.magic != dataset_file::kMagic) {
    damaged(data.file_, "it is no data file of this program, or cut short");
  }
  if (head.version != dataset_file::kVersion) damaged(data.file_, "it has another format version");
  if (head.key != key) damaged(data.file_, "it was made from other data, or with another tokenizer or options");
  FastHash hash;
  hash.add(body);
  if (hash.value() != tail.checksum) damaged(data.file_, "its checksum is wrong");

  // The examples' own size is what the sections after them leave.
  const std::uint64_t n = tail.examples;
  if (n > body.size() / sizeof(std::uint64_t)) damaged(data.file_, "it promises more examples than it can hold");
  const std::uint64_t index_bytes = (n + 1) * sizeof(std::uint64_t) + 2 * padded(n * sizeof(std::uint32_t)) +
                                    n * sizeof(std::uint64_t) + padded(tail.report_bytes);
  const std::uint64_t room = body.size() - sizeof head;
  if (tail.report_bytes > room || index_bytes > room) damaged(data.file_, "a section reaches beyond its end");
  Sections sections(data.file_, body.subspan(sizeof head));
  data.examples_ = sections.take<std::int32_t>((room - index_bytes) / sizeof(std::int32_t));
  data.offsets_ = sections.take<std::uint64_t>(n + 1);
  data.lengths_ = sections.take<std::uint32_t>(n);
  data.supervised_ = sections.take<std::uint32_t>(n);
  data.lines_ = sections.take<std::uint64_t>(n);
  const auto report = sections.take<char>(tail.report_bytes);
  if (sections.left() != 0) damaged(data.file_, "it is longer than its sections");

  for (std::uint64_t i = 0; i < n; ++i) {
    const std::uint64_t begin = data.offsets_[i];
    const std::uint64_t end = data.offsets_[i + 1];
    if (end > data.examples_.size() || end < begin || end - begin != 2 * std::uint64_t{data.lengths_[i]}) {
      damaged(data.file_, "an example lies outside it");
    }
  }
  data.report_ = report_from_json({report.data(), report.size()}, path.string());
  return data;
}

std::span<const std::int32_t> Dataset::ids(std::size_t example) const {
  return examples_.subspan(offsets_[example], lengths_[example]);
}

std::span<const std::int32_t> Dataset::labels(std::size_t example) const {
  return examples_.subspan(offsets_[example] + lengths_[example], lengths_[example]);
}

}  // namespace lomu
