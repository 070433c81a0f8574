#include "engine/session/text_generator.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <limits>

#include "kernels/error.h"
#include "models/tokenizer/utf8.h"

namespace lomu {
namespace {

using Clock = std::chrono::steady_clock;

// Tokens of a prompt that run through the model at once: enough for full matrix products, little memory.
constexpr std::int64_t kChunkTokens = 256;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

TextGenerator::TextGenerator(const ModelSession& session, std::int64_t capacity)
    : session_(session),
      capacity_(capacity),
      generation_(session.model(), session.ops(), session.memory(), {1, capacity, std::min(capacity, kChunkTokens)}) {}

Answer TextGenerator::answer(std::span<const std::int32_t> prompt, const AnswerOptions& options,
                             const std::function<bool(std::string_view)>& reader) {
  const auto start = Clock::now();
  if (prompt.empty()) throw UsageError("there is nothing to continue", "prompt", "give some text");
  if (static_cast<std::int64_t>(prompt.size()) >= capacity_) {
    throw UsageError(fmt::format("a prompt of {} tokens leaves no room in a context of {}", prompt.size(), capacity_),
                     "prompt", "shorten it, or start anew");
  }
  const Tokenizer& tokenizer = session_.tokenizer();

  // At least the last token has to be run again: its logits are what the answer starts from.
  const auto same = std::mismatch(prompt.begin(), prompt.end() - 1, cached_.begin(), cached_.end()).first;
  cached_.resize(static_cast<std::size_t>(same - prompt.begin()));
  generation_.truncate(0, static_cast<std::int64_t>(cached_.size()));

  Answer answer;
  Utf8Stream characters;
  const auto hand_out = [&](const std::string& text) {
    answer.text += text;
    return text.empty() || reader(text);
  };
  std::vector<std::int32_t> next(same, prompt.end());
  for (;;) {
    const SequenceInput input{0, next};
    const Tensor logits = generation_.append({&input, 1});
    cached_.insert(cached_.end(), next.begin(), next.end());
    const std::int32_t token = choose_token(logits, 0, options.sampling, 0, generation_.length(0));
    ++answer.tokens;
    (answer.tokens == 1 ? answer.first_token_seconds : answer.other_seconds) =
        seconds_since(start) - (answer.tokens == 1 ? 0 : answer.first_token_seconds);
    if (std::find(options.stop_ids.begin(), options.stop_ids.end(), token) != options.stop_ids.end()) break;
    if (!tokenizer.is_special(token) && !hand_out(characters.add(tokenizer.bytes_of(token)))) {
      answer.end = AnswerEnd::kReader;
      break;
    }
    if (answer.tokens == options.max_tokens) {
      answer.end = AnswerEnd::kMaxTokens;
      break;
    }
    if (generation_.length(0) == capacity_) {
      answer.end = AnswerEnd::kContextFull;
      break;
    }
    next.assign(1, token);
  }
  hand_out(characters.finish());
  return answer;
}

std::vector<std::int32_t> plain_stop_ids(const ModelSession& session) {
  std::vector<std::int32_t> ids;
  for (const std::int64_t id : session.files().stop_ids()) {
    if (id >= 0 && id <= std::numeric_limits<std::int32_t>::max()) ids.push_back(static_cast<std::int32_t>(id));
  }
  if (const auto eos = session.tokenizer().eos()) ids.push_back(*eos);
  return ids;
}

}  // namespace lomu
