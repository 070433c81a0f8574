#include "engine/session/batch_generator.h"

#include <fmt/format.h>

#include <algorithm>

#include "kernels/error.h"
#include "models/decoder/generation.h"
#include "models/decoder/sampler.h"

namespace lomu {
namespace {

// Tokens that run through the model at once while prompts are read.
constexpr std::int64_t kChunkTokens = 512;

/// Room for the longest prompt and its answer, inside the model's context.
std::int64_t room_needed(std::span<const BatchPrompt> prompts, std::int64_t context, std::int64_t max_tokens) {
  std::int64_t longest = 0;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    const auto length = static_cast<std::int64_t>(prompts[i].ids.size());
    if (length == 0 || length >= context) {
      throw UsageError(fmt::format("a prompt of {} tokens cannot be answered in a context of {}", length, context),
                       fmt::format("prompt {}", i + 1));
    }
    longest = std::max(longest, length);
  }
  return std::min(context, longest + max_tokens);
}

/// A place in the generation session, and the answer that is being made there.
struct Slot {
  std::size_t prompt = 0;
  bool busy = false;
  std::vector<std::int32_t> next;  ///< what is run next: the prompt, then one token after the other
  std::vector<std::int32_t> ids;   ///< the answer so far
};

class Batch {
 public:
  Batch(const ModelSession& session, std::span<const BatchPrompt> prompts, const BatchOptions& options)
      : session_(session),
        prompts_(prompts),
        max_tokens_(options.max_tokens),
        sequences_(std::min(options.sequences, static_cast<std::int64_t>(prompts.size()))),
        room_(room_needed(prompts, session.config().max_position, options.max_tokens)),
        generation_(session.model(), session.ops(), session.memory(),
                    {sequences_, room_, std::max(sequences_, kChunkTokens)}),
        slots_(static_cast<std::size_t>(sequences_)),
        answers_(prompts.size()) {}

  std::vector<BatchAnswer> run(const std::function<void(std::size_t, std::int64_t)>& progress) {
    while (done_ < prompts_.size()) {
      refill();
      step();
      progress(done_, tokens_);
    }
    return std::move(answers_);
  }

 private:
  void refill() {
    for (std::size_t i = 0; i < slots_.size(); ++i) {
      if (slots_[i].busy || next_prompt_ == prompts_.size()) continue;
      generation_.truncate(static_cast<std::int64_t>(i), 0);
      slots_[i] = {next_prompt_, true, prompts_[next_prompt_].ids, {}};
      ++next_prompt_;
    }
  }

  void step() {
    std::vector<SequenceInput> inputs;
    std::vector<std::size_t> which;
    for (std::size_t i = 0; i < slots_.size(); ++i) {
      if (!slots_[i].busy) continue;
      inputs.push_back({static_cast<std::int64_t>(i), slots_[i].next});
      which.push_back(i);
    }
    const Tensor logits = generation_.append(inputs);
    for (std::size_t row = 0; row < which.size(); ++row) {
      accept(which[row], choose_token(logits, static_cast<std::int64_t>(row), {}, 0, 0));
    }
  }

  void accept(std::size_t index, std::int32_t token) {
    Slot& slot = slots_[index];
    ++tokens_;
    ++answers_[slot.prompt].tokens;
    const auto& stop_ids = prompts_[slot.prompt].stop_ids;
    if (std::find(stop_ids.begin(), stop_ids.end(), token) != stop_ids.end()) {
      answers_[slot.prompt].complete = true;
      return finish(slot);
    }
    slot.ids.push_back(token);
    const bool full = generation_.length(static_cast<std::int64_t>(index)) == room_;
    if (full || answers_[slot.prompt].tokens == max_tokens_) return finish(slot);
    slot.next.assign(1, token);
  }

  void finish(Slot& slot) {
    answers_[slot.prompt].text = session_.tokenizer().decode(slot.ids, true);
    slot.busy = false;
    ++done_;
  }

  const ModelSession& session_;
  std::span<const BatchPrompt> prompts_;
  std::int64_t max_tokens_;
  std::int64_t sequences_;
  std::int64_t room_;
  GenerationSession generation_;
  std::vector<Slot> slots_;
  std::vector<BatchAnswer> answers_;
  std::size_t next_prompt_ = 0;
  std::size_t done_ = 0;
  std::int64_t tokens_ = 0;
};

}  // namespace

std::vector<BatchAnswer> answer_batch(const ModelSession& session, std::span<const BatchPrompt> prompts,
                                      const BatchOptions& options,
                                      const std::function<void(std::size_t, std::int64_t)>& progress) {
  if (prompts.empty()) return {};
  return Batch(session, prompts, options).run(progress);
}

}  // namespace lomu
