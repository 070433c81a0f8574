// One conversation with a model: tokens in, text out as it comes. Keeps the keys and values of what it has seen, so
// that the next turn of a chat computes only what is new. Many prompts at once are batch_generator.h.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/session/model_session.h"
#include "models/decoder/generation.h"
#include "models/decoder/sampler.h"

namespace lomu {

struct AnswerOptions {
  SamplingOptions sampling;
  std::int64_t max_tokens = 256;
  std::vector<std::int32_t> stop_ids;
};

enum class AnswerEnd : std::uint8_t {
  kStopToken,
  kMaxTokens,
  kContextFull,  ///< prompt and answer have reached the capacity
  kReader,       ///< the reader of the text wanted no more
};

struct Answer {
  std::string text;  ///< valid UTF-8, special tokens left out
  std::int64_t tokens = 0;
  AnswerEnd end = AnswerEnd::kStopToken;
  double first_token_seconds = 0;  ///< from the call to the first token
  double other_seconds = 0;        ///< for the tokens after the first
};

class TextGenerator {
 public:
  /// `capacity`: tokens of prompt and answer together. `session` outlives this.
  TextGenerator(const ModelSession& session, std::int64_t capacity);

  /// Continues `prompt`, which is the whole text so far: what it has in common with the text of the last call is not
  /// computed again. `reader` gets whole characters as they come and returns false to end the answer.
  /// Throws UsageError when the prompt is empty or leaves no room for an answer.
  Answer answer(std::span<const std::int32_t> prompt, const AnswerOptions& options,
                const std::function<bool(std::string_view)>& reader);

 private:
  const ModelSession& session_;
  std::int64_t capacity_;
  GenerationSession generation_;
  std::vector<std::int32_t> cached_;  ///< tokens whose keys and values are kept
};

/// What ends an answer as plain text: the model's own end tokens and the tokenizer's end of text.
std::vector<std::int32_t> plain_stop_ids(const ModelSession& session);

}  // namespace lomu
