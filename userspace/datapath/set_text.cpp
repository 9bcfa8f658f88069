// SPDX-License-Identifier: GPL-2.0-only
#include "datapath/set_text.hpp"

#include <algorithm>
#include <charconv>
#include <limits>
#include <optional>

#include <fmt/format.h>

#include "core/rule_lexer.hpp"
#include "datapath/set_text_reader.hpp"

namespace netctl::datapath {

namespace {

constexpr std::string_view list_blanks = " \t\r\v\f";
constexpr std::uint64_t longest_range = 65536;

std::string_view trimmed(std::string_view text) {
    const std::size_t first = text.find_first_not_of(list_blanks);
    if (first == std::string_view::npos)
        return {};
    return text.substr(first, text.find_last_not_of(list_blanks) - first + 1);
}

/// Takes the first word off `text`.
std::string_view take_word(std::string_view& text) {
    text = trimmed(text);
    const std::size_t end = std::min(text.find_first_of(list_blanks), text.size());
    const std::string_view word = text.substr(0, end);
    text.remove_prefix(end);
    text = trimmed(text);
    return word;
}

std::string_view without_comment(std::string_view line) {
    for (std::size_t at = 0; at < line.size(); at++) {
        const bool word_begins =
            at == 0 || list_blanks.find(line[at - 1]) != std::string_view::npos;
        if (line[at] == '#' || line[at] == ';' || (word_begins && line.substr(at, 2) == "//"))
            return line.substr(0, at);
    }
    return line;
}

std::optional<std::uint64_t> number_in(std::string_view text) {
    std::uint64_t number = 0;
    const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (status != std::errc{} || end != text.data() + text.size())
        return std::nullopt;
    return number;
}

/// Whether a range has at most `longest_range` addresses.
bool is_short(const Address& low, const Address& high) {
    const unsigned bytes = low.bits() / 8;
    std::uint64_t distance = 0;
    for (unsigned i = 0; i < bytes; i++) {
        if (i + 4 < bytes && low.bytes[i] != high.bytes[i])
            return false;
        distance = (distance << 8) + high.bytes[i] - low.bytes[i];
    }
    return distance < longest_range;
}

Error too_long() {
    return Error::usage(fmt::format("this range has more than {} elements", longest_range),
                        "a set of type cidr holds it as prefixes");
}

} // namespace

Result<std::uint32_t> parse_ttl(std::string_view text) {
    const std::size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
    const auto number = number_in(text.substr(0, digits));
    std::uint64_t unit = digits == text.size() ? 1 : 0;
    for (const NamedRange& candidate : ttl_units())
        if (candidate.name == text.substr(digits) && number != 0U)
            unit = candidate.low;
    if (!number || unit == 0 || *number > longest_ttl / unit)
        return Error::usage(
            fmt::format("'{}' is no time to live", text),
            fmt::format("0 to {} seconds, which is a hundred years, or a number with s, m, h or d; "
                        "0 is for ever",
                        longest_ttl));
    return static_cast<std::uint32_t>(*number * unit);
}

Result<> ElementReader::add_range(std::string_view low, std::string_view high, std::uint32_t ttl,
                                  bool absent) {
    const auto put = [&](const SetElement& element) {
        read_.elements.push_back({element, ttl, absent});
    };
    const Error backwards =
        Error::usage(fmt::format("the range {}-{} ends before it begins", low, high));
    if (type_ == SetType::port) {
        const auto first =
            std::get<std::uint16_t>(NETCTL_TRY(parse_element(type_, std::string(low))));
        const auto last =
            std::get<std::uint16_t>(NETCTL_TRY(parse_element(type_, std::string(high))));
        if (first > last)
            return backwards;
        for (unsigned port = first; port <= last; port++)
            put(static_cast<std::uint16_t>(port));
        return {};
    }
    const Address first = NETCTL_TRY(Address::parse(low)), last = NETCTL_TRY(Address::parse(high));
    if (first.family != last.family)
        return Error::usage(fmt::format("{} and {} are of different IP versions", low, high));
    if (last < first)
        return backwards;
    if (type_ == SetType::cidr) {
        for (const Prefix& prefix : prefixes_of_range(first, last))
            put(prefix);
        return {};
    }
    if (!is_short(first, last))
        return too_long();
    const auto whole = static_cast<std::uint8_t>(first.bits());
    for (Address address = first;;) {
        put(Prefix{address, whole});
        if (address == last)
            return {};
        for (unsigned byte = address.bits() / 8; byte-- > 0 && ++address.bytes[byte] == 0;) {
        }
    }
}

Result<> ElementReader::add(std::string_view text, std::uint32_t ttl, bool absent) {
    const std::size_t dash = text.find('-');
    auto element = dash != std::string_view::npos && type_ != SetType::port
                       ? Result<SetElement>(Error::usage("a range"))
                       : parse_element(type_, std::string(text));
    if (element) {
        read_.elements.push_back({*element, ttl, absent});
        return {};
    }
    // A service's name may have a dash, too.
    const bool range = dash != std::string_view::npos &&
                       (type_ != SetType::port || number_in(trimmed(text.substr(0, dash))));
    if (!range)
        return std::move(element).error();
    return add_range(trimmed(text.substr(0, dash)), trimmed(text.substr(dash + 1)), ttl, absent);
}

void ElementReader::bad(const std::string& where, Error error) {
    read_.bad++;
    if (read_.errors.size() < most_errors)
        read_.errors.push_back(std::move(error).within(where));
}

void ElementReader::bad_line(std::size_t number, std::string_view line, std::string_view part,
                             const Error& error) {
    if (read_.errors.size() >= most_errors) {
        read_.bad++;
        return;
    }
    const std::size_t end = line.find_last_not_of(list_blanks) + 1;
    line = line.substr(0, end);
    const auto begin = static_cast<std::size_t>(part.data() - line.data());
    // As it is shown, so that the caret stands right.
    const std::size_t shown_begin = shown(line.substr(0, begin)).size();
    const Place place{shown_begin, shown_begin + shown(part).size()};
    Error with_caret = rule_error(shown(line), place, error.what, {}, error.hint);
    bad(fmt::format("{}:{}", source_, number), std::move(with_caret));
}

Result<> ElementReader::suffix(std::string_view words, std::uint32_t& ttl, bool& absent,
                               bool& expired) {
    while (!words.empty()) {
        const std::string_view word = take_word(words);
        if (word == "absent") {
            absent = true;
        } else if (word == "expired") {
            expired = true;
        } else if (word == "expires" && take_word(words) == "in") {
            ttl = NETCTL_TRY(parse_ttl(take_word(words)));
            expired = expired || ttl == 0;
            if (take_word(words) != "s")
                return Error::usage("'expires in' is followed by a number of seconds and 's'");
        } else {
            return Error::usage(fmt::format("'{}' behind an element", word),
                                "one element a line; comments begin with '#', ';' or '//'");
        }
    }
    return {};
}

Result<> ElementReader::ipset(std::string_view rest, std::string_view& part) {
    const std::string_view name = take_word(rest);
    if (ipset_name_.empty())
        ipset_name_ = name;
    if (name != ipset_name_) {
        part = name;
        return Error::usage(
            fmt::format("this is of another set than '{}', with which the list begins",
                        ipset_name_),
            "`ipset save NAME` writes one set");
    }
    const std::string_view element = take_word(rest);
    part = element;
    std::uint32_t ttl = 0;
    bool absent = false;
    while (!rest.empty()) {
        const std::string_view word = take_word(rest);
        if (word == "timeout") {
            part = rest.substr(0, std::min(rest.find_first_of(list_blanks), rest.size()));
            ttl = NETCTL_TRY(parse_ttl(take_word(rest)));
            part = element;
        } else if (word == "nomatch") {
            absent = true;
        } else if (word == "comment") {
            if (!rest.starts_with('"')) {
                take_word(rest);
                continue;
            }
            const std::size_t quote = rest.find('"', 1);
            rest = quote == std::string_view::npos ? std::string_view() : rest.substr(quote + 1);
        } else if (word == "packets" || word == "bytes" || word == "skbmark" || word == "skbprio" ||
                   word == "skbqueue") {
            take_word(rest);
        } else {
            part = word;
            return Error::usage(fmt::format("'{}' is nothing that an element of a set has", word));
        }
    }
    return add(element, ttl, absent);
}

Result<> ElementReader::line(std::string_view line, std::string_view& part) {
    std::string_view rest = line;
    const std::string_view word = take_word(rest);
    if (!rest.empty() && (word == "add" || word == "create"))
        return word == "add" ? ipset(rest, part) : Result<>();
    part = word;
    // A range may have blanks in it.
    if (rest.starts_with('-')) {
        const std::size_t second = rest.find_first_not_of(" \t-");
        if (second != std::string_view::npos) {
            const std::size_t end = std::min(rest.find_first_of(list_blanks, second), rest.size());
            part = {word.data(), static_cast<std::size_t>(rest.data() + end - word.data())};
            rest = trimmed(rest.substr(end));
        }
    }
    const std::string_view element = part;
    std::uint32_t ttl = 0;
    bool absent = false, expired = false;
    if (!rest.empty()) {
        part = rest;
        NETCTL_TRY(suffix(rest, ttl, absent, expired));
        part = element;
    }
    return expired ? Result<>() : add(element, ttl, absent);
}

void ElementReader::lines(std::string_view text, std::size_t first) {
    std::size_t number = first - 1;
    for (std::size_t begin = 0; begin < text.size();) {
        const std::size_t end = std::min(text.find('\n', begin), text.size());
        const std::string_view whole = text.substr(begin, end - begin);
        begin = end + 1;
        number++;
        const std::string_view content = trimmed(without_comment(whole));
        if (content.empty())
            continue;
        std::string_view part = content;
        auto read = line(content, part);
        if (!read)
            bad_line(number, whole, part, read.error());
    }
}

void sort_listed(std::vector<ListedElement>& elements) {
    std::stable_sort(
        elements.begin(), elements.end(),
        [](const ListedElement& a, const ListedElement& b) { return a.element < b.element; });
    // Seen from behind the last of equal ones is the first.
    const auto first = std::unique(
        elements.rbegin(), elements.rend(),
        [](const ListedElement& a, const ListedElement& b) { return a.element == b.element; });
    elements.erase(elements.begin(), first.base());
}

std::optional<std::uint32_t> go_duration(std::string_view text) {
    const bool over = text.starts_with('-');
    if (over)
        text.remove_prefix(1);
    double seconds = 0;
    if (text.empty())
        return std::nullopt;
    while (!text.empty()) {
        double number = 0;
        const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), number);
        if (status != std::errc{})
            return std::nullopt;
        text.remove_prefix(static_cast<std::size_t>(end - text.data()));
        struct Unit {
            std::string_view name;
            double seconds;
        };
        constexpr Unit units[] = {{"ms", 1e-3}, {"us", 1e-6}, {"ns", 1e-9},
                                  {"h", 3600},  {"m", 60},    {"s", 1}};
        const auto* unit = std::find_if(std::begin(units), std::end(units), [&](const Unit& one) {
            return text.starts_with(one.name);
        });
        if (unit == std::end(units))
            return std::nullopt;
        text.remove_prefix(unit->name.size());
        seconds += number * unit->seconds;
    }
    if (over)
        return 0;
    return static_cast<std::uint32_t>(
        std::clamp(seconds, 1.0, double{std::numeric_limits<std::uint32_t>::max()}));
}

std::vector<Prefix> prefixes_of_range(const Address& low, const Address& high) {
    const auto last_of = [](const Address& first, unsigned length) {
        Address last = first;
        for (unsigned bit = length; bit < first.bits(); bit++)
            last.bytes[bit / 8] |= static_cast<std::uint8_t>(0x80 >> bit % 8);
        return last;
    };
    std::vector<Prefix> prefixes;
    for (Address first = low; first <= high;) {
        unsigned length = first.bits();
        while (length > 0 && !first.bit(length - 1) && last_of(first, length - 1) <= high)
            length--;
        prefixes.push_back({first, static_cast<std::uint8_t>(length)});
        first = last_of(first, length);
        if (first == high)
            break;
        for (unsigned byte = first.bits() / 8; byte-- > 0 && ++first.bytes[byte] == 0;) {
        }
    }
    return prefixes;
}

ReadElements read_elements(SetType type, std::string_view text, std::string_view source) {
    constexpr std::string_view byte_order_mark = "\xef\xbb\xbf";
    if (text.starts_with(byte_order_mark))
        text.remove_prefix(byte_order_mark.size());
    ElementReader reader(type, source);
    if (!reader.json(text))
        reader.lines(text);
    return std::move(reader).finish();
}

} // namespace netctl::datapath
