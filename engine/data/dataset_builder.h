// Makes the file of a Dataset out of a JSONL file, on all cores, or out of a plain text (.txt), which is cut into
// windows; or finds the one made before. Of the ranks that share a cache folder one builds, and the others open() the
// file afterwards: that order is the caller's to keep.
#pragma once

#include <cstdint>
#include <filesystem>

#include "engine/data/dataset.h"
#include "engine/data/tokenize.h"

namespace lomu {

/// What to do with a line that is no valid record.
enum class OnError : std::uint8_t { kStop, kSkip };

struct DataOptions {
  std::filesystem::path source = {};  ///< a JSONL file, or a text whose name ends in .txt
  OnError on_error = OnError::kStop;
  unsigned threads = 0;  ///< 0: one for each core
};

/// Whether this source is a text without records, by its name.
inline bool is_plain_text(const std::filesystem::path& source) {
  return source.extension() == ".txt";
}

/// Where a data set's file is or will be, and the key it must have.
struct DatasetFile {
  std::filesystem::path path;
  std::uint64_t key = 0;
};

/// The file for this source and tokeniser: its name holds the key, a hash of the source's bytes, tokenizer, chat
/// layout, options and format version. Reads the source once. Throws FileError.
DatasetFile locate_dataset(const std::filesystem::path& cache_folder, const DataOptions& options,
                           const RecordTokenizer& tokenizer);

/// Tokenises the source and writes `file`, whole or not at all; makes its folder when missing. The result does not
/// depend on the number of threads. Throws FileError, and FormatError with "PATH:LINE" for the first bad line in file
/// order under OnError::kStop, or when no example is left (the message says what became of the lines).
void build_dataset(const DatasetFile& file, const DataOptions& options, const RecordTokenizer& tokenizer);

/// open() when the file is there and whole, else build_dataset() and open(). `rebuilt` (when not null) says which.
Dataset open_or_build(const DatasetFile& file, const DataOptions& options, const RecordTokenizer& tokenizer,
                      bool* rebuilt = nullptr);

}  // namespace lomu
