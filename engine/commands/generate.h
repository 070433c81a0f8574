// `lomu generate`: text from a model, or a model with an adapter.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "engine/commands/compute_options.h"
#include "kernels/error.h"

namespace lomu {

struct GenerateOptions {
  std::filesystem::path model;
  std::filesystem::path adapter;      ///< empty: the base model
  std::optional<std::string> prompt;  ///< one user turn
  std::filesystem::path messages;     ///< a JSON list of {role, content}, or a record with `messages`; empty: none
  std::optional<std::string> system;  ///< the system turn
  bool raw = false;                   ///< the prompt goes in as it is, without a chat template
  int max_tokens = 256;
  double temperature = 0.7;
  double top_p = 0.95;
  std::uint64_t seed = 0;
  bool greedy = false;
  std::filesystem::path file;     ///< JSONL records to answer, greedily and many at once; empty: none
  std::filesystem::path output;   ///< where their answers go; empty: nowhere
  bool score = false;             ///< compare the answers with the expected ones
  std::filesystem::path compare;  ///< answers of an earlier run over the same file, shown beside; empty: none
  ComputeOptions compute;
};

/// Without a prompt, messages or a file, standard input is the conversation: a chat on a terminal, one prompt from a
/// pipe.
inline bool reads_stdin(const GenerateOptions& options) {
  return !options.prompt && options.messages.empty() && options.file.empty();
}

/// Adds `generate` and its options to `program`; parsing fills `options`. Returns the command.
CLI::App& declare(CLI::App& program, GenerateOptions& options);

Exit run_generate(const GenerateOptions& options);

}  // namespace lomu
