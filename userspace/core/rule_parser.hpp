// SPDX-License-Identifier: GPL-2.0-only
//
// What the parser's three passes share. The first (rule_parser.cpp) tells which words belong to
// which key, action or modifier. The second (rule_values.cpp) reads the keys' values, some of which
// depend on other keys of the rule: names of ICMP types on `proto`. The third (rule_checks.cpp)
// refuses what no packet can match.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/rule.hpp"
#include "core/rule_keys.hpp"
#include "core/rule_lexer.hpp"

namespace netctl {

/// A key and the tokens of its value.
struct Clause {
    const KeyInfo* key = nullptr;
    bool negated = false;
    bool braced = false;
    Place place; ///< of the key and its value
    Place value;
    std::size_t first = 0; ///< tokens_[first, last) are the value's items
    std::size_t last = 0;
};

/// A rule's text and tokens, with the errors that can be said about them.
struct RuleSource {
    std::string_view text;
    Hook hook{};
    std::vector<Token> tokens{};

    Error error_at(Place place, const Text& message, const Text& allowed = {},
                   Text hint = {}) const {
        return rule_error(text, place, message, allowed, std::move(hint));
    }
    std::string_view slice(Place place) const {
        return text.substr(place.begin, place.end - place.begin);
    }
    /// What the user sees of a token, in quotes; or that the rule ends there.
    std::string shown(const Token& token) const;
};

/// What a key takes in a hook, as a line of an error.
std::string allowed(const KeyInfo& key, Hook hook);

/// The clause of a key, or null.
const Clause* find_clause(std::span<const Clause> clauses, Key key);

/// Decimal, or hexadecimal behind `0x`; nothing if there is anything else in the text.
std::optional<std::uint64_t> whole_number(std::string_view text);

/// The name in `@NAME`.
Result<std::string> read_set_name(const RuleSource& source, const Token& item);

/// By name; null if there is none.
const NamedRange* find_named(std::span<const NamedRange> names, std::string_view name);

/// `NUMBER[/MASK]`; `allowed_text` says in an error what it is part of.
Result<Masked> read_mark(const RuleSource& source, const Token& token,
                         const std::string& allowed_text);

/// Second pass: fills `rule.matches`. If the structure is not whole, other keys may be missing, so
/// nothing is said about values that depend on them.
Result<> read_values(const RuleSource& source, std::span<const Clause> clauses,
                     bool structure_is_whole, Rule& rule);

/// Third pass: an error if it is certain from the text alone that no packet matches.
Result<> check_fields(const RuleSource& source, std::span<const Clause> clauses, const Rule& rule);

/// A rule for its keys alone: it needs no action, and has none; an action or modifier that stands there is read as in
/// parse_rule(), and left out.
Result<Rule> parse_filter(std::string_view text, Hook hook);

/// Whether a match on numbers holds for one that has the field.
bool holds(const Match& match, std::uint64_t number);

/// Whether the rule's `proto` leaves this protocol.
bool leaves(const Rule& rule, std::uint8_t protocol);

/// Which of the two families a packet may have that matches the addresses and `ether-type`.
struct Families {
    bool ipv4 = true;
    bool ipv6 = true;
};
Families possible_families(const Rule& rule);

/// Which of ICMP and ICMPv6 a packet may be that matches the rule.
struct IcmpKinds {
    bool icmp = true;
    bool icmp6 = true;
    /// The protocol, if it is certain; else 0.
    std::uint8_t only() const { return icmp == icmp6 ? 0 : icmp ? protocol_icmp : protocol_icmp6; }
};
IcmpKinds possible_icmp(const Rule& rule);

} // namespace netctl
