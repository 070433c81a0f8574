// What a pattern of a parameter group says: which parameters it means by their names.
#pragma once

#include <string_view>

namespace lomu {

/// The word for a parameter's place in a block or model: q, k, v, o, gate, up, down, embedding, head, norm or bias,
/// from its full name as Hugging Face writes it ("model.layers.0.self_attn.q_proj" is q, "model.norm.weight" is norm).
/// Empty when the name is none of these.
std::string_view site_word(std::string_view name);

/// Whether `pattern` means this parameter: a word of site_word (norms, as adapter.full has it, is norm), or the full
/// name with * for any text and ? for any character; ".weight" at the end of a name may be left out of the pattern.
bool matches_parameter(std::string_view pattern, std::string_view name);

}  // namespace lomu
