#include "engine/data/dataset_builder.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <exception>
#include <system_error>
#include <thread>

#include "engine/data/dataset_file.h"
#include "engine/data/lines.h"
#include "engine/data/records.h"
#include "kernels/error.h"
#include "models/files/atomic_file.h"
#include "models/files/hashing.h"
#include "models/files/mapped_file.h"

namespace lomu {
namespace {

// Lines are handled in batches: large enough to keep every core busy, small enough that their tokens fit any memory.
constexpr std::size_t kBatchLines = 4096;
constexpr std::size_t kBatchBytes = std::size_t{8} << 20;
constexpr std::size_t kFirstSkipped = 3;
constexpr std::size_t kLongestWhat = 200;

struct Outcome {
  Example example;
  std::uint32_t supervised = 0;
  std::optional<SkipReason> skipped;
  std::string what;
  std::exception_ptr failure;  // not a skip: the run must end
};

Outcome outcome_of(const Line& line, const std::string& source, OnError on_error, const RecordTokenizer& tokenizer) {
  Outcome outcome;
  const std::string where = fmt::format("{}:{}", source, line.number);
  std::optional<Record> record;
  try {
    record = parse_record(line.text, where);
    auto result = tokenizer.example(*record, where);
    if (const auto* unusable = std::get_if<Unusable>(&result)) {
      const bool long_one = unusable->reason == Unusable::Reason::kTooLong;
      outcome.skipped = long_one ? SkipReason::kTooLong : SkipReason::kNothingToLearn;
      outcome.what = fmt::format("{} tokens", unusable->tokens);
      return outcome;
    }
    outcome.example = std::get<Example>(std::move(result));
    outcome.supervised = count_supervised(outcome.example.labels);
  } catch (const FormatError& error) {
    // Only a line's own form may be skipped; a record too long under TooLong::kStop ends the run.
    if (on_error == OnError::kStop || record) {
      outcome.failure = std::current_exception();
      return outcome;
    }
    outcome.skipped = SkipReason::kBroken;
    outcome.what = std::string(error.what()).substr(0, kLongestWhat);
  } catch (...) {
    outcome.failure = std::current_exception();
  }
  return outcome;
}

// Tokenises the lines on several threads; outcomes come in the order of the lines.
std::vector<Outcome> outcomes_of(const std::vector<Line>& lines, const DataOptions& options,
                                 const RecordTokenizer& tokenizer) {
  std::vector<Outcome> outcomes(lines.size());
  const std::string source = options.source.string();
  std::atomic<std::size_t> next{0};
  const auto work = [&] {
    for (std::size_t i = next++; i < lines.size(); i = next++) {
      outcomes[i] = outcome_of(lines[i], source, options.on_error, tokenizer);
    }
  };
  const unsigned cores = options.threads != 0 ? options.threads : std::max(1u, std::thread::hardware_concurrency());
  const std::size_t helpers = std::min<std::size_t>(cores, (lines.size() + 15) / 16) - (lines.empty() ? 0 : 1);
  {
    std::vector<std::jthread> threads;
    for (std::size_t i = 0; i < helpers; ++i) threads.emplace_back(work);
    work();
  }
  return outcomes;
}

// Blank lines are counted and left out. Empty at the end of the file.
std::vector<Line> next_batch(LineReader& reader, DataReport& report) {
  std::vector<Line> lines;
  std::size_t bytes = 0;
  while (lines.size() < kBatchLines && bytes < kBatchBytes) {
    const std::optional<Line> line = reader.next();
    if (!line) break;
    ++report.lines;
    if (is_blank(line->text)) {
      ++report.blank;
      continue;
    }
    bytes += line->text.size();
    lines.push_back(*line);
  }
  return lines;
}

class Writer {
 public:
  Writer(const DatasetFile& file) : file_(file.path) {
    dataset_file::Head head;
    head.key = file.key;
    append(&head, sizeof head);
  }

  void add(const Outcome& outcome, std::uint64_t line) {
    const Example& example = outcome.example;
    buffer_.insert(buffer_.end(), example.ids.begin(), example.ids.end());
    buffer_.insert(buffer_.end(), example.labels.begin(), example.labels.end());
    offsets_.push_back(offsets_.back() + 2 * example.ids.size());
    lengths_.push_back(static_cast<std::uint32_t>(example.ids.size()));
    supervised_.push_back(outcome.supervised);
    lines_.push_back(line);
  }

  void flush() {
    append(buffer_.data(), buffer_.size() * sizeof(std::int32_t));
    buffer_.clear();
  }

  void finish(const DataReport& report) {
    flush();
    section(offsets_);
    section(lengths_);
    section(supervised_);
    section(lines_);
    const std::string json = to_json(report);
    append(json.data(), json.size());
    pad(json.size());
    dataset_file::Tail tail;
    tail.examples = lengths_.size();
    tail.report_bytes = json.size();
    tail.checksum = hash_.value();
    file_.write(std::as_bytes(std::span(&tail, 1)));
    file_.commit();
  }

 private:
  void append(const void* data, std::size_t bytes) {
    const std::span part(static_cast<const std::byte*>(data), bytes);
    file_.write(part);
    hash_.add(part);
  }
  void pad(std::size_t bytes) {
    const std::array<char, dataset_file::kAlignment> zeros{};
    append(zeros.data(), dataset_file::padded(bytes) - bytes);
  }
  template <typename T>
  void section(const std::vector<T>& values) {
    append(values.data(), values.size() * sizeof(T));
    pad(values.size() * sizeof(T));
  }

  AtomicFile file_;
  FastHash hash_;
  std::vector<std::int32_t> buffer_;
  std::vector<std::uint64_t> offsets_{0};
  std::vector<std::uint32_t> lengths_;
  std::vector<std::uint32_t> supervised_;
  std::vector<std::uint64_t> lines_;
};

void take(Outcome&& outcome, const Line& line, DataReport& report, Writer& writer) {
  if (outcome.failure) std::rethrow_exception(outcome.failure);
  if (outcome.skipped) {
    Skipped& skipped = report.skipped[static_cast<std::size_t>(*outcome.skipped)];
    if (++skipped.count <= kFirstSkipped) skipped.first.push_back({line.number, std::move(outcome.what)});
    return;
  }
  ++report.examples;
  report.truncated += outcome.example.cut != 0 ? 1 : 0;
  report.tokens += outcome.example.ids.size();
  report.supervised += outcome.supervised;
  writer.add(outcome, line.number);
}

void take_records(const MappedFile& source, const DataOptions& options, const RecordTokenizer& tokenizer,
                  DataReport& report, Writer& writer) {
  LineReader reader(source);
  for (std::vector<Line> lines = next_batch(reader, report); !lines.empty(); lines = next_batch(reader, report)) {
    std::vector<Outcome> outcomes = outcomes_of(lines, options, tokenizer);
    for (std::size_t i = 0; i < lines.size(); ++i) take(std::move(outcomes[i]), lines[i], report, writer);
    writer.flush();
  }
}

/// Windows of a text: their numbers stand where a record has its line.
void take_text(const MappedFile& source, const RecordTokenizer& tokenizer, DataReport& report, Writer& writer) {
  const auto bytes = source.bytes();
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  for (Example& example : tokenizer.windows(text)) {
    Outcome outcome;
    outcome.example = std::move(example);
    outcome.supervised = count_supervised(outcome.example.labels);
    const Line window{++report.lines, {}};
    take(std::move(outcome), window, report, writer);
  }
  writer.flush();
}

[[noreturn]] void throw_empty(const DataReport& report) {
  std::string what = report.lines == report.blank
                         ? "the file has no records"
                         : fmt::format("none of its {} records can be used", report.lines - report.blank);
  const char* sign = ": ";
  for (std::size_t reason = 0; reason < kSkipReasons; ++reason) {
    const Skipped& skipped = report.skipped[reason];
    if (skipped.count == 0) continue;
    what += fmt::format("{}{} {} (line {}: {})", sign, skipped.count, name_of(static_cast<SkipReason>(reason)),
                        skipped.first.front().line, skipped.first.front().what);
    sign = ", ";
  }
  throw FormatError(std::move(what), report.source, "see docs/data.md for what a record looks like");
}

}  // namespace

DatasetFile locate_dataset(const std::filesystem::path& cache_folder, const DataOptions& options,
                           const RecordTokenizer& tokenizer) {
  FastHash hash;
  hash.add(std::uint64_t{dataset_file::kVersion});
  hash.add(MappedFile(options.source).bytes());
  hash.add(options.source.string());  // it stands in the report
  hash.add(tokenizer.fingerprint());
  hash.add(static_cast<std::uint64_t>(options.on_error));
  const std::string name = fmt::format("{}-{}.lomudata", options.source.stem().string(), hash.hex());
  return {cache_folder / name, hash.value()};
}

void build_dataset(const DatasetFile& file, const DataOptions& options, const RecordTokenizer& tokenizer) {
  const MappedFile source(options.source);
  std::error_code error;
  if (file.path.has_parent_path()) std::filesystem::create_directories(file.path.parent_path(), error);
  if (error) {
    throw FileError(fmt::format("cannot make the cache folder: {}", error.message()), file.path.parent_path().string(),
                    "choose a folder that you may write to");
  }
  DataReport report;
  report.source = options.source.string();
  Writer writer(file);
  if (is_plain_text(options.source)) {
    take_text(source, tokenizer, report, writer);
  } else {
    take_records(source, options, tokenizer, report, writer);
  }
  if (report.examples == 0) throw_empty(report);
  writer.finish(report);
}

Dataset open_or_build(const DatasetFile& file, const DataOptions& options, const RecordTokenizer& tokenizer,
                      bool* rebuilt) {
  if (rebuilt != nullptr) *rebuilt = false;
  std::error_code error;
  if (std::filesystem::exists(file.path, error)) {
    try {
      return Dataset::open(file.path, file.key);
    } catch (const FormatError&) {
      // Damaged, and the source is at hand: what cannot be opened is made again.
    }
  }
  if (rebuilt != nullptr) *rebuilt = true;
  build_dataset(file, options, tokenizer);
  return Dataset::open(file.path, file.key);
}

}  // namespace lomu
