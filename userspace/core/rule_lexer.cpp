// SPDX-License-Identifier: GPL-2.0-only
#include "core/rule_lexer.hpp"

#include <algorithm>
#include <cstdint>

#include <fmt/format.h>

namespace netctl {

namespace {

constexpr std::size_t shown_columns = 96;

bool is_blank(char c) {
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/// Bytes of the UTF-8 sequence at `at`; 0 if there is no valid one (RFC 3629, table 3-7 of Unicode:
/// no overlong forms, no surrogates, nothing above U+10FFFF).
std::size_t utf8_length(std::string_view text, std::size_t at) {
    const auto byte = [&](std::size_t i) -> unsigned {
        return at + i < text.size() ? static_cast<unsigned char>(text[at + i]) : 0u;
    };
    const auto follows = [&](std::size_t i, unsigned low = 0x80, unsigned high = 0xbf) {
        return byte(i) >= low && byte(i) <= high;
    };
    const unsigned first = byte(0);
    if (first < 0x80)
        return 1;
    if (first >= 0xc2 && first <= 0xdf)
        return follows(1) ? 2 : 0;
    if (first >= 0xe0 && first <= 0xef)
        return follows(1, first == 0xe0 ? 0xa0 : 0x80, first == 0xed ? 0x9f : 0xbf) && follows(2)
                   ? 3
                   : 0;
    if (first >= 0xf0 && first <= 0xf4)
        return follows(1, first == 0xf0 ? 0x90 : 0x80, first == 0xf4 ? 0x8f : 0xbf) && follows(2) &&
                       follows(3)
                   ? 4
                   : 0;
    return 0;
}

/// Whether a control character stands at `at`: C0, DEL, or C1 (U+0080 to U+009F).
bool is_control(std::string_view text, std::size_t at) {
    const auto byte = static_cast<unsigned char>(text[at]);
    const auto next = static_cast<unsigned char>(at + 1 < text.size() ? text[at + 1] : 0);
    return byte < 0x20 || byte == 0x7f || (byte == 0xc2 && next >= 0x80 && next <= 0x9f);
}

/// One shown column: a character of the text, or a stand-in for what a terminal should not get.
struct Column {
    std::size_t begin = 0;
    std::string text;
};

std::vector<Column> columns_of(std::string_view text) {
    std::vector<Column> columns;
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t length = utf8_length(text, at);
        if (is_blank(text[at]))
            columns.push_back({at, " "});
        else if (length == 0 || is_control(text, at))
            columns.push_back({at, "?"});
        else
            columns.push_back({at, std::string(text.substr(at, length))});
        at += std::max<std::size_t>(length, 1);
    }
    return columns;
}

class Lexer {
  public:
    explicit Lexer(std::string_view text) : text_(text) {}

    Result<std::vector<Token>> run() {
        NETCTL_TRY(check_characters());
        tokens_.reserve(16);
        while (at_ < text_.size()) {
            const char c = text_[at_];
            if (is_blank(c) || (c == ',' && in_braces_)) {
                at_++;
            } else if (c == '#') {
                at_ = std::min(text_.find('\n', at_), text_.size());
            } else if (c == '{' || c == '}') {
                in_braces_ = c == '{';
                add(in_braces_ ? TokenKind::open : TokenKind::close, std::string(1, c), at_++);
            } else if (c == '"') {
                NETCTL_TRY(quoted());
            } else {
                NETCTL_TRY(word());
            }
        }
        add(TokenKind::end, "", at_);
        return std::move(tokens_);
    }

  private:
    Result<> check_characters() const {
        for (std::size_t at = 0; at < text_.size();) {
            if (text_[at] >= ' ' && text_[at] <= '~') {
                at++;
                continue;
            }
            const std::size_t length = utf8_length(text_, at);
            if (length == 0)
                return rule_error(text_, {at, at + 1},
                                  fmt::format("byte 0x{:02x} is no UTF-8 text",
                                              static_cast<unsigned char>(text_[at])));
            if (is_control(text_, at) && !is_blank(text_[at]))
                return rule_error(text_, {at, at + 1},
                                  fmt::format("a rule cannot hold the control character 0x{:02x}",
                                              static_cast<unsigned char>(text_[at])));
            at += length;
        }
        return {};
    }

    bool ends_word(char c) const {
        return is_blank(c) || c == '{' || c == '}' || (c == ',' && in_braces_);
    }

    Result<> word() {
        const std::size_t begin = at_;
        while (at_ < text_.size() && !ends_word(text_[at_])) {
            if (text_[at_] == '"')
                return rule_error(
                    text_, {at_, at_ + 1}, "a quote within a word",
                    "allowed: a quoted text that is parted from other words by blanks");
            at_++;
        }
        add(TokenKind::word, std::string(text_.substr(begin, at_ - begin)), begin);
        return {};
    }

    Result<> quoted() {
        const std::size_t begin = at_++;
        std::string content;
        while (at_ < text_.size() && text_[at_] != '"') {
            if (text_[at_] == '\\') {
                if (at_ + 1 >= text_.size() || (text_[at_ + 1] != '"' && text_[at_ + 1] != '\\'))
                    return rule_error(text_, {at_, std::min(at_ + 2, text_.size())},
                                      "unknown escape in a quoted text", "allowed: \\\" and \\\\");
                at_++;
            } else if (is_control(text_, at_)) {
                return rule_error(text_, {at_, at_ + 1},
                                  "a quoted text cannot hold a tab or the end of a line");
            }
            content += text_[at_++];
        }
        if (at_ == text_.size())
            return rule_error(text_, {begin, begin + 1}, "this quote is not closed");
        at_++;
        if (at_ < text_.size() && !ends_word(text_[at_]))
            return rule_error(text_, {at_, at_ + 1}, "a blank is missing behind the closing quote");
        add(TokenKind::quoted, std::move(content), begin);
        return {};
    }

    void add(TokenKind kind, std::string content, std::size_t begin) {
        const std::size_t end =
            kind == TokenKind::open || kind == TokenKind::close ? begin + 1 : at_;
        tokens_.push_back({kind, std::move(content), {begin, end}});
    }

    std::string_view text_;
    std::size_t at_ = 0;
    bool in_braces_ = false;
    std::vector<Token> tokens_;
};

} // namespace

std::string shortened(std::string_view text) {
    constexpr std::size_t longest = 64;
    if (text.size() <= longest)
        return std::string(text);
    std::size_t end = 0;
    while (end < longest)
        end += std::max<std::size_t>(utf8_length(text, end), 1);
    return std::string(text.substr(0, end)) + "…";
}

Result<std::vector<Token>> lex_rule(std::string_view text) {
    return Lexer(text).run();
}

Error rule_error(std::string_view text, Place place, const std::string& message,
                 const std::string& allowed, std::string hint) {
    // A character has at most four bytes: what is further away is not shown.
    constexpr std::size_t near = 4 * shown_columns;
    const auto continues = [&](std::size_t at) {
        return (static_cast<unsigned char>(text[at]) & 0xc0) == 0x80;
    };
    std::size_t start = place.begin > near ? place.begin - near : 0;
    while (start > 0 && start < place.begin && continues(start))
        start++;
    std::size_t stop = std::min(text.size(), place.begin + near);
    while (stop > place.begin && stop < text.size() && continues(stop))
        stop--;
    const std::vector<Column> columns = columns_of(text.substr(start, stop - start));
    const auto column_at = [&](std::size_t byte) {
        byte = std::max(byte, start) - start;
        const auto found =
            std::lower_bound(columns.begin(), columns.end(), byte,
                             [](const Column& column, std::size_t b) { return column.begin < b; });
        return static_cast<std::size_t>(found - columns.begin());
    };
    const std::size_t from = column_at(place.begin);
    const std::size_t to = std::max(column_at(place.end), from + 1);

    std::size_t first = 0;
    std::size_t last = columns.size();
    if (columns.size() > shown_columns) {
        first = from > shown_columns / 2 ? from - shown_columns / 2 : 0;
        first = std::min(first, columns.size() - shown_columns);
        last = first + shown_columns;
    }
    const bool cut = start > 0 || first > 0;
    std::string line = cut ? "…" : "";
    std::string carets(cut ? 1 : 0, ' ');
    for (std::size_t i = first; i < last; i++)
        line += columns[i].text;
    if (last < columns.size() || stop < text.size())
        line += "…";
    carets.append(from - first, ' ');
    carets += '^';
    carets.append(std::min(to, std::max(last, from + 1)) - from - 1, '~');

    std::string what = fmt::format("{}\n  {}\n  {}", message, line, carets);
    if (!allowed.empty())
        what += "\n" + allowed;
    return Error::usage(std::move(what), std::move(hint));
}

} // namespace netctl
