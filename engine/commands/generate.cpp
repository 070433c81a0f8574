#include "engine/commands/generate.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <iostream>
#include <iterator>
#include <string>

#include "engine/commands/answer_file.h"
#include "engine/commands/chat_loop.h"
#include "engine/commands/conversation.h"
#include "engine/config/terminal.h"
#include "engine/session/model_session.h"
#include "engine/session/text_generator.h"

namespace lomu {
namespace {

using Clock = std::chrono::steady_clock;

// Tokens that a chat may grow to: what the cache is made for, unless the model's context is shorter.
constexpr std::int64_t kChatTokens = 8192;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::string read_stdin() {
  std::string text{std::istreambuf_iterator<char>(std::cin), {}};
  if (!text.empty() && text.back() == '\n') text.pop_back();
  if (text.find_first_not_of(" \t\r\n") == std::string::npos) {
    throw UsageError("standard input is empty", "prompt", "pipe a prompt in, or give --prompt TEXT");
  }
  return text;
}

/// What the user wants answered, when it is not a chat: read before anything is loaded.
struct Question {
  std::vector<Message> messages;
  std::string text;  ///< of a single user turn, for plain text
};

Question read_question(const GenerateOptions& options) {
  Question question;
  if (!options.messages.empty()) {
    question.messages = read_messages(options.messages);
  } else {
    question.text = options.prompt ? *options.prompt : read_stdin();
    if (question.text.empty()) throw UsageError("the prompt is empty", "--prompt", "give some text");
    question.messages.push_back({"user", question.text});
  }
  add_system(question.messages, options.system, options.messages.string());
  return question;
}

std::int64_t capacity_for(const Prompt& prompt, const GenerateOptions& options, const ModelConfig& config) {
  return std::min(config.max_position, static_cast<std::int64_t>(prompt.ids.size()) + options.max_tokens);
}

Exit answer_once(const GenerateOptions& options, const ModelSession& session, const Question& question,
                 Clock::time_point start) {
  const PromptFormat format(session, options);
  if (!format.note().empty()) fmt::print(stderr, "lomu: {}\n", format.note());
  const Prompt prompt = format.chat() ? format.of_messages(question.messages) : format.of_text(question.text);
  TextGenerator generator(session, capacity_for(prompt, options, session.config()));
  const double opened = seconds_since(start);
  const Answer answer = generator.answer(prompt.ids, answer_options(options, prompt), write_out);
  if (answer.end != AnswerEnd::kReader) write_out("\n");
  fmt::print(stderr, "{}\n", style_for(stderr).dim(answer_summary(answer, opened + answer.first_token_seconds)));
  return Exit::kDone;
}

Exit chat(const GenerateOptions& options, const ModelSession& session) {
  const PromptFormat format(session, options);
  if (!format.note().empty()) fmt::print(stderr, "lomu: {}\n", format.note());
  TextGenerator generator(session, std::min(kChatTokens, session.config().max_position));
  return chat_loop(options, format, generator);
}

}  // namespace

Exit run_generate(const GenerateOptions& options) {
  const auto start = Clock::now();
  const ComputeRequest compute{options.compute.device, options.compute.backend, options.compute.dtype,
                               options.compute.threads};
  const SessionOptions model{options.model, options.adapter, compute};
  if (!options.file.empty()) return answer_file(options, model);
  if (reads_stdin(options) && is_terminal(stdin)) return chat(options, ModelSession::open(model));
  const Question question = read_question(options);
  return answer_once(options, ModelSession::open(model), question, start);
}

}  // namespace lomu
