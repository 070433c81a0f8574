// The chat layouts that are built in.
#pragma once

#include <memory>
#include <string_view>

#include "models/tokenizer/chat.h"

namespace lomu {

/// ChatML: <|im_start|>role\ncontent<|im_end|>\n. What differs between the models that use it is read off their
/// template: the system line written when a conversation has none (SmolLM2, Qwen2.5), and the thinking block that Qwen3
/// puts in front of answers after the last question. Without a template there is neither. Roles are written as they
/// are, "tool" too.
std::shared_ptr<const ChatLayout> make_chatml(std::string_view chat_template);

/// Llama 3: <|begin_of_text|>, then <|start_header_id|>role<|end_header_id|>\n\ncontent<|eot_id|>, contents trimmed.
/// That is Llama 3's own template; those of 3.1 and later put a system header with dates in front, which this layout
/// does not write.
std::shared_ptr<const ChatLayout> make_llama3();

}  // namespace lomu
