// From a record to the tokens a model sees and the labels a loss looks at. Says which tokens are to be learned and
// which records cannot be used; it reads no files and skips nothing itself.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <variant>
#include <vector>

#include "engine/data/records.h"
#include "models/tokenizer/chat.h"
#include "models/tokenizer/tokenizer.h"

namespace lomu {

/// What of a record is to be learned.
enum class TrainOn : std::uint8_t {
  kAnswers,  ///< what the assistant says with its end-of-turn token; a completion with the end of text; all of a `text`
  kAll,      ///< every token, prompts and headers included
};

/// What to do with a record of more tokens than max_length.
enum class TooLong : std::uint8_t {
  kSkip,      ///< leave it out, count and report it
  kStop,      ///< end the run with an error that names the line
  kTruncate,  ///< keep the first max_length tokens; its end-of-turn token is then not learned
};

/// Who wrote a token.
enum class TokenRole : std::uint8_t { kSystem, kUser, kAssistant, kPrompt, kCompletion, kText, kLayout };

/// "system", "user", "assistant", "prompt", "completion", "text", "layout" (what the chat layout adds by itself).
std::string_view name_of(TokenRole role);

/// A record as tokens. All vectors have one entry a token. labels[t] is ids[t] or kNotSupervised, not shifted: the
/// model learns to give labels[t] after ids[0 .. t-1], so the label of the first token is never used.
struct Example {
  std::vector<std::int32_t> ids;
  std::vector<std::int32_t> labels;
  std::vector<TokenRole> roles;
  std::size_t cut = 0;  ///< tokens that TooLong::kTruncate took off the end
};

/// The number of labels that a prediction is compared with: those after the first.
std::uint32_t count_supervised(std::span<const std::int32_t> labels);

struct TokenizeOptions {
  TrainOn train_on = TrainOn::kAnswers;
  std::uint32_t max_length = 2048;
  TooLong too_long = TooLong::kSkip;
};

/// Why a record gives no example.
struct Unusable {
  enum class Reason : std::uint8_t { kTooLong, kNothingToLearn };
  Reason reason;
  std::size_t tokens;  ///< of the whole record
};

/// Tokenises records of one model. Const and free of state: several threads may share one.
class RecordTokenizer {
 public:
  /// `chat` may be absent for models without a chat layout; records of messages are then refused.
  RecordTokenizer(Tokenizer tokenizer, std::optional<ChatFormat> chat, TokenizeOptions options);

  /// Every token of the record, whatever its length: for `inspect`.
  ///
  /// Messages are laid out by the chat format. `prompt` and `completion` as strings are joined as they are, `text` is
  /// taken as it is; both get the tokenizer's beginning-of-text token when it adds one to every text, and an
  /// end-of-text token, which is learned. A token that begins in the prompt and reaches into the completion is not
  /// learned. Throws FormatError (`where` names the record) for messages without a chat layout, or text that the
  /// tokenizer gives up on, UnsupportedError when the tokenizer has no end-of-text token and the record needs one.
  [[nodiscard]] Example tokenize(const Record& record, const std::string& where) const;

  /// The example to train on, or why there is none. Applies max_length and too_long; with TooLong::kStop throws
  /// FormatError.
  [[nodiscard]] std::variant<Example, Unusable> example(const Record& record, const std::string& where) const;

  /// A text without records, cut into examples of max_length tokens one after the other, every token learned; nothing
  /// is added to it. What is left at the end is an example of its own if anything can be learned from it.
  [[nodiscard]] std::vector<Example> windows(std::string_view text) const;

  /// Changes whenever the examples of some record could: tokenizer, chat layout, options.
  [[nodiscard]] std::uint64_t fingerprint() const;

 private:
  [[nodiscard]] Example chat_example(const ChatRecord& record, const std::string& where) const;
  [[nodiscard]] Example plain_example(std::string text, std::size_t learn_from, TokenRole before, TokenRole after,
                                      const std::string& where) const;

  Tokenizer tokenizer_;
  std::optional<ChatFormat> chat_;
  TokenizeOptions options_;
};

}  // namespace lomu
