#include "engine/report/make_samples.h"

#include <fmt/format.h>

#include <chrono>
#include <filesystem>
#include <map>
#include <system_error>
#include <tuple>

#include "engine/config/load.h"
#include "engine/report/sample_prompts.h"
#include "engine/session/batch_generator.h"
#include "engine/session/model_session.h"
#include "engine/session/text_generator.h"
#include "kernels/error.h"
#include "models/tokenizer/byte_tokenizer.h"

namespace lomu {
namespace {

namespace fs = std::filesystem;

bool is_there(const fs::path& path) {
  std::error_code error;
  return fs::exists(path, error);
}

bool from_scratch(const config::TrainConfig& config) {
  return config.model.start == config::ModelStart::kScratch;
}

Tokenizer tokenizer_of(const config::TrainConfig& config) {
  if (from_scratch(config)) return Tokenizer(byte_tokenizer());
  if (!is_there(config.model.path)) {
    throw FileError("the run's base model is not there any more", config.model.path.string(),
                    hint_for_lost_path(config.model.path));
  }
  return Tokenizer::load(config.model.path);
}

/// The model that a run has made: its base with the adapter, or one of its own.
SessionOptions result_of(const fs::path& run, const config::TrainConfig& config, const ComputeRequest& compute) {
  if (!from_scratch(config) && is_there(run / "adapter" / "adapter_config.json")) {
    return {config.model.path, run / "adapter", compute};
  }
  if (is_there(run / "model" / "config.json")) return {run / "model", {}, compute};
  throw FileError(fmt::format("the run has left no {} yet", from_scratch(config) ? "model" : "adapter"), run.string(),
                  "make the report again when it has ended, or go on with it by lomu train --resume");
}

/// Does `work`; an error becomes what is missing of `to`. `lack` begins the sentence: "No samples".
template <class Work>
void attempt(RunSamples& to, const char* lack, const Work& work) {
  try {
    work();
  } catch (const Error& error) {
    to.missing.push_back({fmt::format("{}: {}", lack, error.what()), error.where(), error.hint()});
  }
}

class SampleMaker {
 public:
  SampleMaker(const SampleOptions& options, const std::function<void(const std::string&)>& progress)
      : options_(options), progress_(progress) {}

  RunSamples of(const fs::path& run) {
    RunSamples made;
    config::TrainConfig config;
    std::vector<SamplePrompt> prompts;
    attempt(made, "No samples", [&] {
      config = config::load_config(run / "config.yaml");
      SamplePrompts found = sample_prompts(config, tokenizer_of(config), static_cast<std::size_t>(options_.count),
                                           static_cast<std::size_t>(options_.tokens));
      made.source = fmt::format("{} Answers are greedy, of {} tokens at most.", found.source, options_.tokens);
      prompts = std::move(found.prompts);
    });
    for (const SamplePrompt& prompt : prompts) made.samples.push_back({prompt.shown, prompt.wanted, {}, {}});
    if (prompts.empty()) return made;
    if (from_scratch(config)) {
      made.notes.emplace_back("The run began from nothing: there is no text before.");
    } else {
      if (!config.adapter.from.empty()) {
        made.notes.push_back(fmt::format("The run went on from an adapter ({}); before is the base model without it.",
                                         config.adapter.from.string()));
      }
      attempt(made, "No text before", [&] {
        const std::vector<std::string> texts = answers_of_base(config.model.path, prompts);
        for (std::size_t i = 0; i < texts.size(); ++i) made.samples[i].before = texts[i];
      });
    }
    attempt(made, "No text after", [&] {
      const SessionOptions result = result_of(run, config, options_.compute);
      const std::vector<std::string> texts = answers(result, prompts, fmt::format("{}, after", run.string()));
      for (std::size_t i = 0; i < texts.size(); ++i) made.samples[i].after = texts[i];
    });
    return made;
  }

 private:
  /// Model, prompt, what ends the answer.
  using Question = std::tuple<fs::path, std::vector<std::int32_t>, std::vector<std::int32_t>>;

  /// Tells `what` is being answered at the start and every two seconds.
  std::vector<std::string> answers(const SessionOptions& model, std::span<const SamplePrompt> prompts,
                                   const std::string& what) {
    progress_(what);
    const ModelSession session = ModelSession::open(model);
    std::vector<BatchPrompt> batch;
    for (const SamplePrompt& prompt : prompts) {
      BatchPrompt& next = batch.emplace_back(BatchPrompt{prompt.ids, prompt.stop_ids});
      const std::vector<std::int32_t> more = plain_stop_ids(session);
      next.stop_ids.insert(next.stop_ids.end(), more.begin(), more.end());
    }
    BatchOptions options;
    options.max_tokens = options_.tokens;
    auto told = std::chrono::steady_clock::now();
    const auto tell = [&](std::size_t done, std::int64_t tokens) {
      const auto now = std::chrono::steady_clock::now();
      if (now - told < std::chrono::seconds(2)) return;
      told = now;
      progress_(fmt::format("{}: {} of {} answers, {} tokens", what, done, prompts.size(), tokens));
    };
    std::vector<std::string> texts;
    for (const BatchAnswer& answer : answer_batch(session, batch, options, tell)) {
      texts.push_back(answer.text + (answer.complete ? "" : " ..."));
    }
    return texts;
  }

  std::vector<std::string> answers_of_base(const fs::path& model, std::span<const SamplePrompt> prompts) {
    const auto question = [&](const SamplePrompt& p) { return Question(model, p.ids, p.stop_ids); };
    std::vector<SamplePrompt> open;
    for (const SamplePrompt& prompt : prompts) {
      if (!before_.contains(question(prompt))) open.push_back(prompt);
    }
    if (!open.empty()) {
      const std::vector<std::string> texts =
          answers({model, {}, options_.compute}, open, fmt::format("{}, before", model.string()));
      for (std::size_t i = 0; i < open.size(); ++i) before_[question(open[i])] = texts[i];
    }
    std::vector<std::string> texts;
    for (const SamplePrompt& prompt : prompts) texts.push_back(before_.at(question(prompt)));
    return texts;
  }

  const SampleOptions& options_;
  const std::function<void(const std::string&)>& progress_;
  std::map<Question, std::string> before_;
};

}  // namespace

std::vector<RunSamples> make_samples(std::span<const RunHistory> runs, const SampleOptions& options,
                                     const std::function<void(const std::string&)>& progress) {
  SampleMaker maker(options, progress);
  std::vector<RunSamples> samples;
  for (const RunHistory& run : runs) samples.push_back(maker.of(run.folder));
  return samples;
}

}  // namespace lomu
