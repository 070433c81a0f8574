// Conversations as the text a model was trained on, with the byte ranges a loss may look at.
// Two layouts are built in, ChatML and Llama 3; a template engine for the models' own Jinja sources is to become a
// third ChatLayout behind the same ChatFormat. Tools, documents and images are not rendered.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "models/labels.h"
#include "models/tokenizer/tokenizer.h"

namespace lomu {

struct Message {
  std::string role;  ///< "system", "user", "assistant", or another name the layout writes as it is
  std::string content;
};

/// A conversation as text. Ranges are bytes of `text`, in order and without overlap.
struct RenderedChat {
  struct Range {
    std::size_t begin, end;
    std::size_t message;  ///< index into the messages given to render()
  };
  std::string text;
  std::vector<Range> supervised;  ///< what the assistant says, its end-of-turn token included, the newline after it not
  std::vector<Range> messages;    ///< each message with its header and end; a default system line belongs to none
};

/// One way to lay out a conversation.
class ChatLayout {
 public:
  virtual ~ChatLayout() = default;
  [[nodiscard]] virtual std::string_view name() const = 0;
  [[nodiscard]] virtual RenderedChat render(std::span<const Message> messages, bool add_generation_prompt) const = 0;
  /// The token that ends a turn, as text: "<|im_end|>".
  [[nodiscard]] virtual std::string_view end_of_turn() const = 0;
};

class ChatFormat {
 public:
  /// `name`: "chatml", "llama3", or "auto", which looks at the tokens and the chat template of the model.
  /// Throws UsageError for another name and for a layout whose tokens the vocabulary lacks, UnsupportedError when
  /// "auto" finds neither; the message says why.
  static ChatFormat choose(const Tokenizer& tokenizer, std::string_view name);

  /// Lays out the conversation; `add_generation_prompt` opens the assistant's turn at the end. Encode the text without
  /// add_special_tokens: it holds them. Throws UsageError for a message without a role.
  [[nodiscard]] RenderedChat render(std::span<const Message> messages, bool add_generation_prompt) const;

  /// Tokens after which generation stops: the end of a turn and the model's EOS.
  [[nodiscard]] std::vector<std::int32_t> stop_ids() const { return stop_ids_; }
  [[nodiscard]] std::string_view name() const { return layout_->name(); }

 private:
  ChatFormat(std::shared_ptr<const ChatLayout> layout, std::vector<std::int32_t> stop_ids)
      : layout_(std::move(layout)), stop_ids_(std::move(stop_ids)) {}

  std::shared_ptr<const ChatLayout> layout_;
  std::vector<std::int32_t> stop_ids_;
};

inline constexpr std::int32_t kNoMessage = -1;

/// A conversation as tokens. All vectors have one entry a token; labels are not shifted: labels[t] is ids[t] or
/// kNotSupervised.
struct SupervisedTokens {
  std::vector<std::int32_t> ids;
  std::vector<std::int32_t> labels;
  std::vector<std::int32_t>
      messages;  ///< index of the message the token belongs to, or kNoMessage: its role is messages[i].role
};

/// Encodes the whole text once, as the template of the model would see it, and labels the tokens by where they begin.
///
/// A token that begins inside a supervised range is supervised, even when it ends beyond it: the model has to produce
/// it there. A token that begins before the range and reaches into it is not: when generating, its first bytes are
/// given with the prompt, so the model never gets to choose it, and to train it would be to train the writing of the
/// prompt. Such tokens are rare: they need a vocabulary entry that joins the newline of the header with the first
/// characters of the answer ("\n\n").
SupervisedTokens tokenize_supervised(const Tokenizer& tokenizer, const RenderedChat& chat);

}  // namespace lomu
