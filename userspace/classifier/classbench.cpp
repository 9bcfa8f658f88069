// SPDX-License-Identifier: GPL-2.0-only
#include "classifier/classbench.hpp"

#include <algorithm>
#include <charconv>
#include <optional>

#include <fmt/format.h>

namespace netctl::classifier {

namespace {

/// Reads a line from left to right. Whatever fails leaves it in a state where all else fails too.
class Line {
  public:
    explicit Line(std::string_view text) : left_(text) {}

    bool literal(char c) {
        skip_blanks();
        if (left_.empty() || left_.front() != c)
            return false;
        left_.remove_prefix(1);
        return true;
    }
    std::optional<std::uint64_t> number(std::uint64_t highest, int base = 10) {
        skip_blanks();
        if (base == 16 && (left_.starts_with("0x") || left_.starts_with("0X")))
            left_.remove_prefix(2);
        std::uint64_t value = 0;
        auto [end, error] = std::from_chars(left_.data(), left_.data() + left_.size(), value, base);
        if (error != std::errc{} || value > highest)
            return {};
        left_.remove_prefix(static_cast<std::size_t>(end - left_.data()));
        return value;
    }
    std::string_view word() {
        skip_blanks();
        std::string_view word = left_.substr(0, left_.find_first_of(" \t\r"));
        left_.remove_prefix(word.size());
        return word;
    }
    bool at_end() {
        skip_blanks();
        return left_.empty();
    }

  private:
    void skip_blanks() {
        std::size_t blanks = left_.find_first_not_of(" \t\r");
        left_.remove_prefix(std::min(blanks, left_.size()));
    }
    std::string_view left_;
};

/// A prefix whose host bits need not be zero: published sets have such.
std::optional<Prefix> prefix(std::string_view word) {
    std::size_t slash = word.find('/');
    if (slash == std::string_view::npos)
        return {};
    Result<Address> address = Address::parse(word.substr(0, slash));
    std::optional<std::uint64_t> length = Line(word.substr(slash + 1)).number(128);
    if (!address || !length || *length > address->bits())
        return {};
    Prefix prefix{*address, static_cast<std::uint8_t>(*length)};
    for (unsigned bit = prefix.length; bit < address->bits(); ++bit)
        prefix.address.bytes[bit / 8] &= static_cast<std::uint8_t>(~(0x80 >> bit % 8));
    return prefix;
}

std::optional<Match> ports(Line& line, Key key) {
    auto low = line.number(65535);
    bool colon = line.literal(':');
    auto high = line.number(65535);
    if (!low || !colon || !high || *low > *high)
        return {};
    Match match;
    match.key = key;
    match.ranges = {{*low, *high}};
    return match;
}

/// The rule, or what is wrong with the line.
std::optional<std::string> parse_line(std::string_view text, Rule& rule) {
    Line line(text);
    if (!line.literal('@'))
        return "it does not start with '@'";
    for (Key key : {Key::src, Key::dst}) {
        std::string_view word = line.word();
        std::optional<Prefix> found = prefix(word);
        if (!found)
            return fmt::format("'{}' is no prefix", word);
        Match match;
        match.key = key;
        match.prefixes = {*found};
        rule.matches.push_back(std::move(match));
    }
    for (Key key : {Key::sport, Key::dport}) {
        std::optional<Match> match = ports(line, key);
        if (!match)
            return fmt::format("the {} range is not 'LOW : HIGH'",
                               key == Key::sport ? "source port" : "destination port");
        if (match->ranges.front() != Range{0, 65535})
            rule.matches.push_back(std::move(*match));
    }
    auto proto = line.number(255, 16);
    bool slash = line.literal('/');
    auto mask = line.number(255, 16);
    if (!proto || !slash || !mask || (*mask != 0 && *mask != 255))
        return "the protocol is not 'PROTO/MASK' in hexadecimal with mask 00 or FF";
    if (*mask == 255) {
        Match match;
        match.key = Key::proto;
        match.ranges = {{*proto, *proto}};
        rule.matches.push_back(std::move(match));
    }
    return {};
}

} // namespace

Result<std::vector<Rule>> parse_classbench(std::string_view text, std::string_view source,
                                           ActionKind action) {
    std::vector<Rule> rules;
    for (std::size_t number = 1; !text.empty(); ++number) {
        std::string_view line = text.substr(0, text.find('\n'));
        text.remove_prefix(std::min(line.size() + 1, text.size()));
        if (Line(line).at_end())
            continue;
        Rule rule;
        rule.actions.emplace_back().kind = action;
        if (std::optional<std::string> wrong = parse_line(line, rule))
            return Error::usage(
                fmt::format("{}:{}: not a ClassBench rule: {}", source, number, *wrong),
                "a rule is '@SRC/LEN DST/LEN LOW : HIGH LOW : HIGH PROTO/MASK FLAGS/MASK'");
        rules.push_back(std::move(rule));
    }
    return rules;
}

} // namespace netctl::classifier
