// The stages of a tokenizer.json (normalizer, pre_tokenizer, model, post_processor, decoder, added_tokens) as data.
// Every type and option that Lomu does not implement is refused here, by name.
#pragma once

#include <string>

#include "models/files/json_value.h"
#include "models/tokenizer/tokenizer_spec.h"

namespace lomu {

/// Reads a whole tokenizer.json. Its truncation and padding are ignored: they are habits of the Python class, not of
/// the model. `where` names the file in messages. Throws FormatError, UnsupportedError.
TokenizerSpec read_pipeline_json(const JsonValue& root, const std::string& where);

}  // namespace lomu
