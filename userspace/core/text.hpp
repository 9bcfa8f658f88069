// SPDX-License-Identifier: GPL-2.0-only
//
// The room that strangers' text goes through (I12): names of processes, files, cgroups, interfaces,
// headers, and whatever others wrote into maps. How far a string is shown, what stands in its place
// if not, how wide it is, how it is quoted in a rule or in JSON.
//
// Shown as they are: characters of valid UTF-8. Shown as \xNN, byte by byte: control characters (C0,
// DEL, and C1, U+0080 to U+009F), line and paragraph separators, characters that turn the direction of
// what stands around them, invisible ones that only mislead (U+200B, U+2060 to U+2064, U+FEFF, tags,
// interlinear marks), and bytes that are no UTF-8. What is shown once does not change if it is shown again.
#pragma once

#include <concepts>
#include <cstddef>
#include <ostream>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include <fmt/format.h>

namespace netctl {

/// The length of the UTF-8 sequence at the beginning of `text`, which is not empty; 0 if there is no
/// valid one (RFC 3629, table 3-7 of Unicode: no overlong forms, no surrogates, nothing above U+10FFFF).
std::size_t utf8_length(std::string_view text);
/// Whether all of it is such sequences.
bool is_utf8(std::string_view text);
/// The length of the character at the beginning of `text` if it is shown as it is, else 0.
std::size_t shown_length(std::string_view text);

/// Appends `text` as it is shown. For streams of 100,000 lines a second, too: plain text is copied in runs.
void append_shown(std::string& out, std::string_view text);
std::string shown(std::string_view text);

/// Columns of a terminal that shown text takes: two for wide characters, none for those that combine.
std::size_t columns(std::string_view shown);

/// In quotes, with \" and \\ and \xNN, as the rule language reads it back byte by byte.
std::string rule_quoted(std::string_view text);

/// As a JSON string with its quotes; what would not be shown is \uNNNN. A byte that is no UTF-8 is read
/// as Latin-1, so that any name can be told from any other.
void append_json_string(std::string& out, std::string_view text);
/// A JSON document with \uNNNN for each character in it that would not be shown, line feeds aside.
std::string json_shown(std::string document);

/// What an argument of Text::format() is to fmt: numbers stay, all else becomes what is shown of it.
template <class T>
using ShownArgument =
    std::conditional_t<std::is_arithmetic_v<T> && !std::same_as<T, char>, T, std::string>;

/// Text that may reach a terminal or a file. Made from a string, it is what is shown of it, line feeds
/// included; made by format(), the format is ours and stands as it is, and its arguments are shown.
class Text {
  public:
    Text() = default;
    template <class S>
        requires(std::convertible_to<const S&, std::string_view> && !std::same_as<S, Text>)
    Text(const S& text) : text_(shown(std::string_view(text))) {}

    /// As fmt::format(), which checks the format when it is compiled.
    template <class... Arguments>
    static Text format(fmt::format_string<ShownArgument<Arguments>...> format,
                       const Arguments&... arguments) {
        return trusted(fmt::format(format, argument(arguments)...));
    }
    /// Text of our own that no stranger had a part in, or that was shown piece by piece. Only core/
    /// and what renders streams may say so (scripts/layering).
    static Text trusted(std::string text) {
        Text made;
        made.text_ = std::move(text);
        return made;
    }

    /// Text of several lines, each made fit to be shown by itself; the last one ends like the others.
    static Text lines(std::string_view text);

    /// For whoever renders 100,000 lines a second: what is appended here is of our own, or went through
    /// append_shown(). As with trusted(), who may do so is listed.
    std::string& trusted_bytes() { return text_; }
    void clear() { text_.clear(); }

    const std::string& string() const { return text_; }
    operator const std::string&() const { return text_; }
    bool empty() const { return text_.empty(); }
    /// Bytes.
    std::size_t size() const { return text_.size(); }
    std::size_t find(std::string_view part) const { return text_.find(part); }
    /// The beginning that fits into so many columns.
    Text first_columns(std::size_t count) const;

    Text& operator+=(const Text& more) {
        text_ += more.text_;
        return *this;
    }
    friend Text operator+(Text first, const Text& second) { return first += second; }
    bool operator==(const Text& other) const { return text_ == other.text_; }
    template <class S>
        requires(std::convertible_to<const S&, std::string_view>)
    bool operator==(const S& other) const { return text_ == std::string_view(other); }
    friend std::ostream& operator<<(std::ostream& out, const Text& text) {
        return out << text.text_;
    }

  private:
    template <class T> static ShownArgument<T> argument(const T& value) {
        if constexpr (std::is_arithmetic_v<ShownArgument<T>>)
            return value;
        else if constexpr (std::is_same_v<T, Text>)
            return value.text_;
        else if constexpr (std::is_convertible_v<const T&, std::string_view>)
            return shown(std::string_view(value));
        else // a joined list, for example
            return shown(fmt::format("{}", T(value)));
    }

    std::string text_;
};

} // namespace netctl

template <> struct fmt::formatter<netctl::Text> : fmt::formatter<std::string_view> {
    template <class C> auto format(const netctl::Text& text, C& context) const {
        return fmt::formatter<std::string_view>::format(text.string(), context);
    }
};
