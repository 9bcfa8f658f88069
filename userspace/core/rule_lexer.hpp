// SPDX-License-Identifier: GPL-2.0-only
//
// Rule text -> tokens, and errors that show a place in the text.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.hpp"

namespace netctl {

/// Bytes [begin, end) of a rule's text.
struct Place {
    std::size_t begin = 0;
    std::size_t end = 0;
};

enum class TokenKind {
    word,
    quoted, ///< "…"; `text` is what stands between the quotes, escapes resolved
    open,   ///< {
    close,  ///< }
    end,    ///< of the text; the last token
};

struct Token {
    TokenKind kind{};
    std::string text;
    Place place;
    /// A word or a quoted string.
    bool is_value() const { return kind == TokenKind::word || kind == TokenKind::quoted; }
    /// An unquoted word that reads so.
    bool is(std::string_view word) const { return kind == TokenKind::word && text == word; }
};

/// Splits a rule's text. Words are parted by blanks and braces; within braces by commas, too;
/// a word that starts with `#` begins a comment up to the end of the line. Within quotes `\"`, `\\`
/// and `\xNN` stand for a byte, as rule_quoted() writes them (core/text.hpp). Fails on text that is
/// not UTF-8, on control characters other than blanks, and on a quote that is not closed.
Result<std::vector<Token>> lex_rule(std::string_view text);

/// The text, or its beginning and an ellipsis, so that it fits into a message. Takes UTF-8.
std::string shortened(std::string_view text);

/// An error of kind usage whose `what` is the message, the text, carets under the place, and, if
/// not empty, what is allowed there, each on its own line. Long text is cut around the place.
Error rule_error(std::string_view text, Place place, const Text& message, const Text& allowed = {},
                 Text hint = {});

} // namespace netctl
