// Questions about one character, answered as the tokenizers library (and Rust below it) answers them.
#pragma once

namespace lomu {

/// The White_Space property: Rust's char::is_whitespace, \s of its regular expressions and of Oniguruma.
bool is_white_space(char32_t c);

/// \w of Rust's regex crate: Alphabetic, M, Nd, Pc, Join_Control. Decides what a single_word token may touch.
bool is_word_character(char32_t c);

/// Rust's char::is_numeric: what the Digits step takes for a digit ("½" and "Ⅷ" too).
bool is_numeric(char32_t c);

/// What the Punctuation step takes for punctuation: ASCII punctuation and symbols, and the P categories.
bool is_punctuation(char32_t c);

/// A combining mark that the library's normalizers neither reorder nor compose, because their Unicode is older.
bool is_unordered_mark(char32_t c);

}  // namespace lomu
