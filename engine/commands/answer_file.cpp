#include "engine/commands/answer_file.h"

#include <fmt/format.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <utility>
#include <variant>

#include "engine/commands/answer_score.h"
#include "engine/commands/conversation.h"
#include "engine/config/terminal.h"
#include "engine/data/demo_task.h"
#include "engine/data/lines.h"
#include "engine/data/records.h"
#include "engine/session/batch_generator.h"
#include "models/files/atomic_file.h"
#include "models/files/json_value.h"
#include "models/files/mapped_file.h"

namespace lomu {
namespace {

using Clock = std::chrono::steady_clock;

// Sequences decoded at once: the weights are read once for all of them, and the cache of a small model stays small.
constexpr std::int64_t kSequences = 32;
constexpr std::size_t kSamples = 5;

/// A record as a question with its answer.
struct Question {
  std::vector<Message> messages;  ///< empty: plain text
  std::string text;
  AnsweredRecord record;
};

Question question_of(Record record, const std::string& where, const GenerateOptions& options) {
  Question question;
  if (auto* chat = std::get_if<ChatRecord>(&record)) {
    if (chat->messages.back().role == "assistant") {
      question.record.expected = std::move(chat->messages.back().content);
      chat->messages.pop_back();
    }
    if (chat->messages.empty()) throw FormatError("a conversation that holds nothing to answer", where);
    question.messages = std::move(chat->messages);
    question.record.prompt = question.messages.back().content;
    add_system(question.messages, options.system, where);
  } else if (auto* completion = std::get_if<CompletionRecord>(&record)) {
    question.text = std::move(completion->prompt);
    question.record.prompt = question.text;
    question.record.expected = std::move(completion->completion);
  } else {
    throw FormatError("a record of plain text holds no question", where, "use messages, or prompt and completion");
  }
  return question;
}

std::vector<Question> read_questions(const GenerateOptions& options) {
  const MappedFile file(options.file);
  LineReader lines(file);
  std::vector<Question> questions;
  while (const auto line = lines.next()) {
    if (is_blank(line->text)) continue;
    const std::string where = fmt::format("{}:{}", options.file.string(), line->number);
    questions.push_back(question_of(parse_record(line->text, where), where, options));
  }
  if (questions.empty()) throw FormatError("no record is in this file", options.file.string());
  return questions;
}

std::vector<BatchPrompt> prompts_of(const std::vector<Question>& questions, const PromptFormat& format,
                                    const std::filesystem::path& file) {
  std::vector<BatchPrompt> prompts;
  for (const Question& question : questions) {
    if (!question.messages.empty() && !format.chat()) {
      throw UnsupportedError(fmt::format("records of messages need a chat layout ({})", format.note()), file.string());
    }
    Prompt prompt = question.messages.empty() ? format.of_text(question.text) : format.of_messages(question.messages);
    prompts.push_back({std::move(prompt.ids), std::move(prompt.stop_ids)});
  }
  return prompts;
}

/// A line on standard error that is written over on a terminal, and a line for every tenth elsewhere.
class Progress {
 public:
  explicit Progress(std::size_t total) : total_(total), live_(is_terminal(stderr)) {}

  void show(std::size_t done, std::int64_t tokens) {
    const double seconds = std::chrono::duration<double>(Clock::now() - start_).count();
    const bool last = done == total_;
    const bool due = live_ ? last || seconds - shown_ > 0.2 : last || done * 10 / total_ > tenths_;
    if (!due) return;
    shown_ = seconds;
    tenths_ = done * 10 / total_;
    fmt::print(stderr, "{}{} of {} answers, {:.0f} tokens/s, {}{}", live_ ? "\r\x1b[K" : "", done, total_,
               static_cast<double>(tokens) / std::max(seconds, 1e-9), human_duration(seconds),
               live_ && !last ? "" : "\n");
    std::fflush(stderr);
  }

 private:
  std::size_t total_;
  bool live_;
  Clock::time_point start_ = Clock::now();
  double shown_ = 0;
  std::size_t tenths_ = 0;
};

std::vector<AnsweredRecord> read_earlier(const GenerateOptions& options, const std::vector<Question>& questions) {
  if (options.compare.empty()) return {};
  auto earlier = read_answers(options.compare);
  bool same = earlier.size() == questions.size();
  for (std::size_t i = 0; same && i < earlier.size(); ++i) same = earlier[i].prompt == questions[i].record.prompt;
  if (!same) {
    throw FormatError(fmt::format("these are not answers to {}", options.file.string()), options.compare.string(),
                      "name the --output of a run over the same file");
  }
  return earlier;
}

}  // namespace

Exit answer_file(const GenerateOptions& options, const SessionOptions& model) {
  std::vector<Question> questions = read_questions(options);
  const auto earlier = read_earlier(options, questions);
  const ModelSession session = ModelSession::open(model);
  const PromptFormat format(session, options);
  Progress progress(questions.size());
  const auto answers =
      answer_batch(session, prompts_of(questions, format, options.file), {kSequences, options.max_tokens},
                   [&](std::size_t done, std::int64_t tokens) { progress.show(done, tokens); });
  std::vector<AnsweredRecord> records;
  for (std::size_t i = 0; i < questions.size(); ++i) {
    AnsweredRecord record = std::move(questions[i].record);
    record.got = answers[i].text;
    record.exact = record.expected && exact_match(*record.expected, record.got);
    records.push_back(std::move(record));
  }
  if (!options.output.empty()) write_answers(options.output, records);
  if (options.score) {
    const Style style = style_for(stdout);
    write_out(samples_text(records, earlier, kSamples, terminal_width(stdout), style) +
              score_text(records, earlier, style));
  } else if (options.output.empty()) {
    for (const AnsweredRecord& record : records) {
      if (!write_out(record.got + "\n")) break;
    }
  }
  return Exit::kDone;
}

void write_answers(const std::filesystem::path& path, const std::vector<AnsweredRecord>& records) {
  std::string text;
  for (const AnsweredRecord& record : records) {
    nlohmann::ordered_json object;
    object["prompt"] = record.prompt;
    object["expected"] = record.expected ? nlohmann::ordered_json(*record.expected) : nullptr;
    object["got"] = record.got;
    object["exact"] = record.expected ? nlohmann::ordered_json(record.exact) : nullptr;
    text += object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  }
  write_file(path, text);
}

std::vector<AnsweredRecord> read_answers(const std::filesystem::path& path) {
  const MappedFile file(path);
  LineReader lines(file);
  std::vector<AnsweredRecord> records;
  while (const auto line = lines.next()) {
    if (is_blank(line->text)) continue;
    const std::string where = fmt::format("{}:{}", path.string(), line->number);
    const JsonValue value = parse_json(line->text, where);
    if (!value.is_object()) throw FormatError("an answer is a JSON object", where);
    const JsonFields fields(value, where);
    const auto prompt = fields.string("prompt");
    const auto got = fields.string("got");
    if (!prompt) fields.wrong("prompt", "text");
    if (!got) fields.wrong("got", "text");
    records.push_back({*prompt, fields.string("expected"), *got, fields.boolean("exact").value_or(false)});
  }
  return records;
}

}  // namespace lomu
