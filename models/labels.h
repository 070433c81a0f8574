// How tokens say whether a loss looks at them. Hugging Face's convention, shared by data, chat layouts and decoder.
#pragma once

#include <cstdint>

namespace lomu {

/// Label of a token that is not supervised.
inline constexpr std::int32_t kNotSupervised = -100;

}  // namespace lomu
