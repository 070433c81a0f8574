// A chat on a terminal: line in, answer out, until /exit or ctrl-D. Ctrl-C ends an answer.
#pragma once

#include "engine/commands/conversation.h"
#include "engine/commands/generate.h"
#include "engine/session/text_generator.h"
#include "kernels/error.h"

namespace lomu {

/// Reads standard input. Without chat layout every line is a text of its own to continue.
Exit chat_loop(const GenerateOptions& options, const PromptFormat& format, TextGenerator& generator);

/// "[42 tokens, 95 tokens/s, first token after 0.61 s]", and why the answer ended if that was early.
std::string answer_summary(const Answer& answer, double first_token_seconds);

AnswerOptions answer_options(const GenerateOptions& options, const Prompt& prompt);

}  // namespace lomu
