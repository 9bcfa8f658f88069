// SPDX-License-Identifier: GPL-2.0-only
#include "core/text.hpp"

#include <algorithm>
#include <array>
#include <clocale>
#include <cwchar>
#include <iterator>
#include <locale.h>

#include <fmt/format.h>

#include "core/lines.hpp"

namespace netctl {

namespace {

struct CodePoints {
    char32_t first;
    char32_t last;
};

/// Characters beyond ASCII that are never shown as they are. UAX #9 has the ones that turn the
/// direction; Trojan Source (CVE-2021-42574) is what they are good for.
constexpr std::array hidden{
    CodePoints{0x0080, 0x009f},   // C1 controls: U+009B begins an escape sequence
    CodePoints{0x061c, 0x061c},   // Arabic letter mark
    CodePoints{0x180e, 0x180e},   // Mongolian vowel separator
    CodePoints{0x200b, 0x200b},   // zero width space
    CodePoints{0x200e, 0x200f},   // direction marks
    CodePoints{0x2028, 0x202e},   // line and paragraph separator, embeddings and overrides
    CodePoints{0x2060, 0x206f},   // word joiner, invisible operators, isolates, deprecated ones
    CodePoints{0xfeff, 0xfeff},   // byte order mark
    CodePoints{0xfff9, 0xfffb},   // interlinear marks
    CodePoints{0xe0000, 0xe0fff}, // tags, and what is ignored by default
};

char32_t code_point(std::string_view sequence) {
    const auto byte = [&](std::size_t i) -> char32_t {
        return static_cast<unsigned char>(sequence[i]);
    };
    switch (sequence.size()) {
    case 1: return byte(0);
    case 2: return (byte(0) & 0x1f) << 6 | (byte(1) & 0x3f);
    case 3: return (byte(0) & 0x0f) << 12 | (byte(1) & 0x3f) << 6 | (byte(2) & 0x3f);
    default:
        return (byte(0) & 0x07) << 18 | (byte(1) & 0x3f) << 12 | (byte(2) & 0x3f) << 6 |
               (byte(3) & 0x3f);
    }
}

bool is_hidden(char32_t point) {
    if (point < 0x80)
        return point < 0x20 || point == 0x7f;
    const auto* const range = std::lower_bound(
        hidden.begin(), hidden.end(), point,
        [](const CodePoints& points, char32_t wanted) { return points.last < wanted; });
    return range != hidden.end() && range->first <= point;
}

bool is_plain(char c) {
    return c >= 0x20 && c < 0x7f;
}

/// Of plain ASCII at the beginning.
std::size_t plain_length(std::string_view text) {
    std::size_t length = 0;
    while (length < text.size() && is_plain(text[length]))
        ++length;
    return length;
}

void append_byte(std::string& out, char c) {
    constexpr std::string_view digits = "0123456789abcdef";
    const auto byte = static_cast<unsigned char>(c);
    const char escaped[] = {'\\', 'x', digits[byte >> 4], digits[byte & 15]};
    out.append(escaped, sizeof escaped);
}

/// As UTF-16, as JSON has it.
void append_json_point(std::string& out, char32_t point) {
    if (point >= 0x10000) {
        fmt::format_to(std::back_inserter(out), "\\u{:04x}",
                       0xd800 + ((static_cast<std::uint32_t>(point) - 0x10000) >> 10));
        point = 0xdc00 + ((point - 0x10000) & 0x3ff);
    }
    fmt::format_to(std::back_inserter(out), "\\u{:04x}", static_cast<std::uint32_t>(point));
}

/// glibc's tables of Unicode, whatever the user's locale is.
unsigned width_of(char32_t point) {
    static const locale_t unicode = newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr);
    if (unicode == nullptr)
        return 1;
    const locale_t before = uselocale(unicode);
    const int width = wcwidth(static_cast<wchar_t>(point));
    uselocale(before);
    return width < 0 ? 1 : static_cast<unsigned>(width);
}

/// Calls `visit` with each character of shown text and its columns until it returns false.
template <class Visit> void for_each_character(std::string_view text, Visit visit) {
    while (!text.empty()) {
        const std::size_t length = std::max<std::size_t>(utf8_length(text), 1);
        const std::string_view character = text.substr(0, length);
        if (!visit(character, is_plain(text[0]) ? 1 : width_of(code_point(character))))
            return;
        text.remove_prefix(length);
    }
}

} // namespace

std::size_t utf8_length(std::string_view text) {
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
    const unsigned char first = byte(0);
    const std::size_t length = first < 0x80   ? 1
                               : first < 0xc2 ? 0
                               : first < 0xe0 ? 2
                               : first < 0xf0 ? 3
                               : first < 0xf5 ? 4
                                              : 0;
    if (length == 0 || text.size() < length)
        return 0;
    for (std::size_t i = 1; i < length; ++i)
        if ((byte(i) & 0xc0) != 0x80)
            return 0;
    if ((first == 0xe0 && byte(1) < 0xa0) || (first == 0xed && byte(1) > 0x9f) ||
        (first == 0xf0 && byte(1) < 0x90) || (first == 0xf4 && byte(1) > 0x8f))
        return 0;
    return length;
}

bool is_utf8(std::string_view text) {
    while (!text.empty()) {
        const std::size_t length = utf8_length(text);
        if (length == 0)
            return false;
        text.remove_prefix(length);
    }
    return true;
}

std::size_t shown_length(std::string_view text) {
    const std::size_t length = utf8_length(text);
    return length != 0 && !is_hidden(code_point(text.substr(0, length))) ? length : 0;
}

void append_shown(std::string& out, std::string_view text) {
    while (!text.empty()) {
        // Most text is plain: take it in runs.
        const std::size_t plain = plain_length(text);
        out.append(text.substr(0, plain));
        text.remove_prefix(plain);
        if (text.empty())
            break;
        if (const std::size_t length = shown_length(text)) {
            out.append(text.substr(0, length));
            text.remove_prefix(length);
            continue;
        }
        // The bytes of a hidden character are each no UTF-8 of their own: one at a time will do.
        append_byte(out, text[0]);
        text.remove_prefix(1);
    }
}

std::string shown(std::string_view text) {
    std::string out;
    append_shown(out, text);
    return out;
}

std::size_t columns(std::string_view shown) {
    const std::size_t plain = plain_length(shown);
    std::size_t count = plain;
    for_each_character(shown.substr(plain), [&](std::string_view, unsigned width) {
        count += width;
        return true;
    });
    return count;
}

Text Text::first_columns(std::size_t count) const {
    std::size_t bytes = 0;
    for_each_character(text_, [&](std::string_view character, unsigned width) {
        if (width > count)
            return false;
        count -= width;
        bytes += character.size();
        return true;
    });
    return trusted(text_.substr(0, bytes));
}

std::string rule_quoted(std::string_view text) {
    std::string out = "\"";
    while (!text.empty()) {
        const std::size_t length = shown_length(text);
        if (text[0] == '"' || text[0] == '\\')
            out += '\\';
        if (length == 0)
            append_byte(out, text[0]);
        else
            out.append(text.substr(0, length));
        text.remove_prefix(std::max<std::size_t>(length, 1));
    }
    return out + '"';
}

void append_json_string(std::string& out, std::string_view text) {
    out += '"';
    while (!text.empty()) {
        // Most text is plain: take it in runs.
        std::size_t plain = 0;
        while (plain < text.size() && is_plain(text[plain]) && text[plain] != '"' &&
               text[plain] != '\\')
            ++plain;
        out.append(text.substr(0, plain));
        text.remove_prefix(plain);
        if (text.empty())
            break;
        const std::size_t length = utf8_length(text);
        if (text[0] == '"' || text[0] == '\\') {
            out += '\\';
            out += text[0];
        } else if (length == 0) { // a byte of Latin-1
            const auto byte = static_cast<unsigned char>(text[0]);
            if (is_hidden(byte)) {
                append_json_point(out, byte);
            } else {
                out += static_cast<char>(0xc0 | byte >> 6);
                out += static_cast<char>(0x80 | (byte & 0x3f));
            }
        } else if (const char32_t point = code_point(text.substr(0, length)); is_hidden(point)) {
            append_json_point(out, point);
        } else {
            out.append(text.substr(0, length));
        }
        text.remove_prefix(std::max<std::size_t>(length, 1));
    }
    out += '"';
}

std::string json_shown(std::string document) {
    // Outside of strings JSON has nothing that would not be shown but its line feeds, and within
    // strings those are escaped already.
    const auto stays = [](char c) { return is_plain(c) || c == '\n'; };
    if (std::all_of(document.begin(), document.end(), stays))
        return document;
    std::string out;
    for (std::string_view text = document; !text.empty();) {
        const std::size_t length = std::max<std::size_t>(utf8_length(text), 1);
        const char32_t point = code_point(text.substr(0, length));
        if (point != '\n' && is_hidden(point))
            append_json_point(out, point);
        else
            out.append(text.substr(0, length));
        text.remove_prefix(length);
    }
    return out;
}

Text Text::lines(std::string_view text) {
    Text lines;
    for (const NumberedLine& line : numbered_lines(text))
        lines += format("{}\n", line.text);
    return lines;
}

} // namespace netctl
