#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "engine/commands/generate.h"

namespace lomu {
namespace {

constexpr const char* kSampling = "Sampling";
constexpr const char* kBatch = "Many prompts at once";

/// As CLI::Range, which lets NaN pass.
CLI::Validator within(double low, double high) {
  const auto check = [low, high](const std::string& text) -> std::string {
    double value = 0;
    const bool good = CLI::detail::lexical_cast(text, value) && value >= low && value <= high;
    return good ? "" : fmt::format("{} is not a number from {} to {}", text, low, high);
  };
  return {check, fmt::format("{}..{}", low, high)};
}

/// CLI11 reads -1 as the largest unsigned number.
std::string not_negative(const std::string& text) {
  return text.starts_with('-') ? fmt::format("{} is negative", text) : "";
}

void declare_sampling(CLI::App& command, GenerateOptions& options) {
  command.add_option("--max-tokens", options.max_tokens, "Longest answer")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str()
      ->type_name("N")
      ->group(kSampling);
  auto* temperature = command.add_option("--temperature", options.temperature, "Higher is freer; 0 is greedy")
                          ->check(within(0, 100))
                          ->capture_default_str()
                          ->type_name("T")
                          ->group(kSampling);
  auto* top_p =
      command.add_option("--top-p", options.top_p, "Draw from the likeliest tokens that hold this probability")
          ->check(within(1e-6, 1))
          ->capture_default_str()
          ->type_name("P")
          ->group(kSampling);
  command.add_option("--seed", options.seed, "Of the draws")
      ->check(not_negative)
      ->capture_default_str()
      ->type_name("N")
      ->group(kSampling);
  command.add_flag("--greedy", options.greedy, "Always the likeliest token")
      ->excludes(temperature)
      ->excludes(top_p)
      ->group(kSampling);
}

void declare_batch(CLI::App& command, GenerateOptions& options, const std::vector<CLI::Option*>& others) {
  auto* file = command.add_option("--file", options.file, "JSONL records whose last answer is asked for, greedily")
                   ->type_name("FILE")
                   ->group(kBatch);
  for (CLI::Option* other : others) file->excludes(other);
  command.add_option("--output", options.output, "Write {prompt, expected, got, exact}, a line a record")
      ->needs(file)
      ->type_name("FILE")
      ->group(kBatch);
  auto* score = command.add_flag("--score", options.score, "Print the share of exact answers and some samples")
                    ->needs(file)
                    ->group(kBatch);
  command.add_option("--compare", options.compare, "The --output of an earlier run, to show its answers beside")
      ->needs(score)
      ->type_name("FILE")
      ->group(kBatch);
}

}  // namespace

CLI::App& declare(CLI::App& program, GenerateOptions& options) {
  CLI::App& command =
      *program.add_subcommand("generate", "Answer a prompt, or chat, with a model and perhaps an adapter");
  command.add_option("--model", options.model, "Hugging Face folder or GGUF file")->required()->type_name("PATH");
  command.add_option("--adapter", options.adapter, "PEFT folder, or the folder of a run")->type_name("PATH");
  auto* prompt = command.add_option("--prompt", options.prompt, "What the user says")->type_name("TEXT");
  auto* messages = command.add_option("--messages", options.messages, "JSON file with a list of messages")
                       ->excludes(prompt)
                       ->type_name("FILE");
  auto* system = command.add_option("--system", options.system, "What the system turn says")->type_name("TEXT");
  auto* raw = command.add_flag("--raw", options.raw, "Continue the prompt as it is, without a chat template")
                  ->excludes(system)
                  ->excludes(messages);
  declare_sampling(command, options);
  declare_batch(command, options, {prompt, messages, raw});
  declare(command, options.compute);
  command.footer(
      "Without --prompt, --messages or --file: a chat on a terminal, else the prompt is read from standard input.\n"
      "Examples:\n"
      "  lomu generate --model SmolLM2.gguf --prompt \"Why is the sky blue?\"\n"
      "  lomu generate --model SmolLM2.gguf --adapter runs/quickstart --greedy < question.txt\n"
      "  lomu generate --model SmolLM2.gguf --adapter runs/quickstart --file test.jsonl --score\n"
      "  lomu generate --model SmolLM2.gguf");
  return command;
}

}  // namespace lomu
