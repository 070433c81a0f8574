#include "engine/commands/chat_loop.h"

#include <fmt/format.h>

#include <iostream>
#include <optional>
#include <string>
#include <vector>

#include "engine/commands/interrupt.h"
#include "engine/config/terminal.h"

namespace lomu {
namespace {

constexpr const char* kHelp =
    "/reset forgets the conversation, /exit or ctrl-D ends the chat, ctrl-C ends an answer.\n";

/// The next line that says something; nothing at the end of input.
std::optional<std::string> read_line(const Style& style) {
  for (std::string line;;) {
    write_out(style.cyan("> "));
    if (!std::getline(std::cin, line)) return {};
    if (line.find_first_not_of(" \t\r") != std::string::npos) return line;
  }
}

void note(const Style& style, const std::string& text) {
  fmt::print(stderr, "{}\n", style.dim(text));
}

}  // namespace

std::string answer_summary(const Answer& answer, double first_token_seconds) {
  const std::string speed =
      answer.other_seconds > 0
          ? fmt::format(", {:.1f} tokens/s", static_cast<double>(answer.tokens - 1) / answer.other_seconds)
          : "";
  const char* why = "";
  if (answer.end == AnswerEnd::kMaxTokens) why = "; ended by --max-tokens";
  if (answer.end == AnswerEnd::kContextFull) why = "; ended by the context's size";
  return fmt::format("[{} token{}{}, first token after {:.2f} s{}]", answer.tokens, answer.tokens == 1 ? "" : "s",
                     speed, first_token_seconds, why);
}

AnswerOptions answer_options(const GenerateOptions& options, const Prompt& prompt) {
  const SamplingOptions sampling{options.greedy ? 0 : options.temperature, options.top_p, options.seed};
  return {sampling, options.max_tokens, prompt.stop_ids};
}

Exit chat_loop(const GenerateOptions& options, const PromptFormat& format, TextGenerator& generator) {
  const Style style = style_for(stdout);
  note(style_for(stderr), kHelp);
  std::vector<Message> start;
  add_system(start, options.system, "--system");
  std::vector<Message> messages = start;
  while (const auto line = read_line(style)) {
    if (*line == "/exit") break;
    if (*line == "/reset") {
      messages = start;
      note(style_for(stderr), "The conversation is forgotten.");
      continue;
    }
    if (line->front() == '/') {
      note(style_for(stderr), kHelp);
      continue;
    }
    messages.push_back({"user", *line});
    try {
      const Prompt prompt = format.chat() ? format.of_messages(messages) : format.of_text(*line);
      const InterruptWatch watch;
      const Answer answer = generator.answer(prompt.ids, answer_options(options, prompt), [&](std::string_view text) {
        return write_out(text) && !watch.interrupted();
      });
      write_out("\n");
      note(style_for(stderr), answer_summary(answer, answer.first_token_seconds));
      messages.push_back({"assistant", answer.text});
    } catch (const UsageError& error) {
      messages.pop_back();
      note(style_for(stderr), fmt::format("{}: /reset starts anew", error.what()));
    }
  }
  write_out("\n");
  return Exit::kDone;
}

}  // namespace lomu
