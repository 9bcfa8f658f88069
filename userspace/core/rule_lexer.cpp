// SPDX-License-Identifier: GPL-2.0-only
#include "core/rule_lexer.hpp"

#include <algorithm>
#include <charconv>
#include <cstdint>

#include <fmt/format.h>

namespace netctl {

namespace {

constexpr std::size_t shown_glyphs = 96;

bool is_blank(char c) {
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/// Whether a control character stands at `at`: C0, DEL, or C1 (U+0080 to U+009F).
bool is_control(std::string_view text, std::size_t at) {
    const auto byte = static_cast<unsigned char>(text[at]);
    const auto next = static_cast<unsigned char>(at + 1 < text.size() ? text[at + 1] : 0);
    return byte < 0x20 || byte == 0x7f || (byte == 0xc2 && next >= 0x80 && next <= 0x9f);
}

/// One character of the text as it is shown in an error, or a stand-in for what is not shown.
struct Glyph {
    std::size_t begin = 0;
    std::string text;
    std::size_t width = 1; ///< columns
};

std::vector<Glyph> glyphs_of(std::string_view text) {
    std::vector<Glyph> glyphs;
    for (std::size_t at = 0; at < text.size();) {
        const std::string_view rest = text.substr(at);
        if (is_blank(text[at])) {
            glyphs.push_back({at, " "});
        } else if (const std::size_t length = shown_length(rest); length == 0) {
            glyphs.push_back({at, "?"});
        } else {
            const std::string_view character = rest.substr(0, length);
            glyphs.push_back({at, std::string(character), columns(character)});
        }
        at += std::max<std::size_t>(utf8_length(rest), 1);
    }
    return glyphs;
}

std::size_t width_of(const std::vector<Glyph>& glyphs, std::size_t from, std::size_t to) {
    std::size_t width = 0;
    for (std::size_t i = from; i < std::min(to, glyphs.size()); i++)
        width += glyphs[i].width;
    return width;
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
            const std::size_t length = utf8_length(text_.substr(at));
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
                content += NETCTL_TRY(escaped());
                continue;
            }
            if (is_control(text_, at_)) {
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

    /// What the escape at at_ stands for; goes on behind it.
    Result<char> escaped() {
        const std::string_view rest = text_.substr(at_);
        if (rest.size() >= 2 && (rest[1] == '"' || rest[1] == '\\')) {
            at_ += 2;
            return rest[1];
        }
        unsigned byte = 0;
        if (rest.size() >= 4 && rest[1] == 'x') {
            const auto [end, status] = std::from_chars(rest.data() + 2, rest.data() + 4, byte, 16);
            if (status == std::errc{} && end == rest.data() + 4 && byte != 0) {
                at_ += 4;
                return static_cast<char>(byte);
            }
        }
        const std::size_t shown = rest.size() >= 2 && rest[1] == 'x' ? 4 : 2;
        return rule_error(text_, {at_, std::min(at_ + shown, text_.size())},
                          "unknown escape in a quoted text",
                          "allowed: \\\", \\\\, and \\x with two hexadecimal digits, not \\x00");
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
        end += std::max<std::size_t>(utf8_length(text.substr(end)), 1);
    return std::string(text.substr(0, end)) + "…";
}

Result<std::vector<Token>> lex_rule(std::string_view text) {
    return Lexer(text).run();
}

Error rule_error(std::string_view text, Place place, const Text& message, const Text& allowed,
                 Text hint) {
    // A character has at most four bytes: what is further away is not shown.
    constexpr std::size_t near = 4 * shown_glyphs;
    const auto continues = [&](std::size_t at) {
        return (static_cast<unsigned char>(text[at]) & 0xc0) == 0x80;
    };
    std::size_t start = place.begin > near ? place.begin - near : 0;
    while (start > 0 && start < place.begin && continues(start))
        start++;
    std::size_t stop = std::min(text.size(), place.begin + near);
    while (stop > place.begin && stop < text.size() && continues(stop))
        stop--;
    const std::vector<Glyph> glyphs = glyphs_of(text.substr(start, stop - start));
    const auto glyph_at = [&](std::size_t byte) {
        byte = std::max(byte, start) - start;
        const auto found =
            std::lower_bound(glyphs.begin(), glyphs.end(), byte,
                             [](const Glyph& glyph, std::size_t b) { return glyph.begin < b; });
        return static_cast<std::size_t>(found - glyphs.begin());
    };
    const std::size_t from = glyph_at(place.begin);
    const std::size_t to = std::max(glyph_at(place.end), from + 1);

    std::size_t first = 0;
    std::size_t last = glyphs.size();
    if (glyphs.size() > shown_glyphs) {
        first = from > shown_glyphs / 2 ? from - shown_glyphs / 2 : 0;
        first = std::min(first, glyphs.size() - shown_glyphs);
        last = first + shown_glyphs;
    }
    const bool cut = start > 0 || first > 0;
    std::string line = cut ? "…" : "";
    std::string carets(cut ? 1 : 0, ' ');
    for (std::size_t i = first; i < last; i++)
        line += glyphs[i].text;
    if (last < glyphs.size() || stop < text.size())
        line += "…";
    carets.append(width_of(glyphs, first, from), ' ');
    carets += '^';
    const std::size_t marked = width_of(glyphs, from, std::min(to, last));
    carets.append(std::max<std::size_t>(marked, 1) - 1, '~');

    Text what = Text::format("{}\n  {}\n  {}", message, line, carets);
    if (!allowed.empty())
        what += Text::format("\n{}", allowed);
    return Error::usage(std::move(what), std::move(hint));
}

} // namespace netctl
