// SPDX-License-Identifier: GPL-2.0-only
//
// Tokens -> rule, in three passes: which words belong to which key, action or modifier; what the
// keys' values are, some of which depend on other keys of the rule (names of ICMP types on
// `proto`); and whether any packet could match all of it.
#include <algorithm>
#include <bitset>
#include <charconv>
#include <grp.h>
#include <netdb.h>
#include <pwd.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "core/rule.hpp"
#include "core/rule_keys.hpp"
#include "core/rule_lexer.hpp"
#include "core/suggest.hpp"

namespace netctl {

namespace {

/// Rates and bursts beyond this are mistakes, and within it no sum of nanoseconds overflows.
constexpr std::uint64_t max_limit_count = 1'000'000'000;
constexpr std::uint64_t max_burst_ns = 100ull * 365 * 86400 * 1'000'000'000;
constexpr std::uint64_t max_rate = 10'000'000'000'000;
constexpr std::uint64_t max_rate_burst = 0xffffffff;

/// Words of other tools, and what they are called here.
struct Synonym {
    std::string_view word;
    std::string_view packets; ///< in xdp and tc
    std::string_view policy;
};
constexpr Synonym synonyms[] = {
    {"accept", "pass", "allow"},     {"permit", "pass", "allow"},  {"allow", "pass", "allow"},
    {"pass", "pass", "allow"},       {"ok", "pass", "allow"},      {"deny", "drop", "deny"},
    {"drop", "drop", "deny"},        {"reject", "drop", "deny"},   {"block", "drop", "deny"},
    {"discard", "drop", "deny"},     {"saddr", "src", ""},         {"daddr", "dst", "dst"},
    {"source", "src", ""},           {"destination", "dst", "dst"}, {"from", "src", ""},
    {"to", "dst", "dst"},            {"port", "dport", "dport"},   {"protocol", "proto", "proto"},
    {"tcp-flags", "flags", ""},      {"user", "", "uid"},          {"group", "", "gid"},
    {"fragment", "frag", ""},        {"length", "len", ""},        {"ethertype", "ether-type", ""},
};

std::optional<std::uint64_t> whole_number(std::string_view text) {
    int base = 10;
    if (text.starts_with("0x") || text.starts_with("0X")) {
        base = 16;
        text.remove_prefix(2);
    }
    std::uint64_t number = 0;
    const auto [end, status] =
        std::from_chars(text.data(), text.data() + text.size(), number, base);
    if (text.empty() || status != std::errc{} || end != text.data() + text.size())
        return std::nullopt;
    return number;
}

/// A number with one of the units behind it: `100mbit`.
std::optional<std::uint64_t> number_with_unit(std::string_view text,
                                              std::span<const NamedRange> units) {
    const std::size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
    const auto number = whole_number(text.substr(0, digits));
    const auto unit = std::find_if(units.begin(), units.end(), [&](const NamedRange& candidate) {
        return candidate.name == text.substr(digits);
    });
    std::uint64_t product = 0;
    if (!number || unit == units.end() || __builtin_mul_overflow(*number, unit->low, &product))
        return std::nullopt;
    return product;
}

std::optional<std::uint64_t> mac_address(std::string_view text) {
    std::uint64_t mac = 0;
    if (text.size() != 17)
        return std::nullopt;
    for (std::size_t i = 0; i < 17; i += 3) {
        unsigned byte = 0;
        const auto [end, status] = std::from_chars(&text[i], &text[i] + 2, byte, 16);
        if (status != std::errc{} || end != &text[i] + 2 || (i < 15 && text[i + 2] != ':'))
            return std::nullopt;
        mac = mac << 8 | byte;
    }
    return mac;
}

const NamedRange* find_named(std::span<const NamedRange> names, std::string_view name) {
    const auto found = std::find_if(names.begin(), names.end(), [&](const NamedRange& candidate) {
        return candidate.name == name;
    });
    return found == names.end() ? nullptr : &*found;
}

/// Ports that a service name stands for, by protocol (host byte order).
struct ServicePorts {
    std::optional<std::uint16_t> tcp, udp, sctp;
};

ServicePorts service_ports(const std::string& name) {
    const auto port = [&](const char* protocol) -> std::optional<std::uint16_t> {
        const servent* entry = getservbyname(name.c_str(), protocol);
        if (entry == nullptr)
            return std::nullopt;
        const auto network = static_cast<std::uint16_t>(entry->s_port);
        return static_cast<std::uint16_t>(network << 8 | network >> 8);
    };
    ServicePorts ports{port("tcp"), port("udp"), port("sctp")};
    if (!ports.tcp && !ports.udp && !ports.sctp)
        if (const NamedRange* known = find_named(common_services(), name))
            ports.tcp = ports.udp = static_cast<std::uint16_t>(known->low);
    return ports;
}

std::vector<Range> normalised(std::vector<Range> ranges) {
    std::sort(ranges.begin(), ranges.end());
    std::vector<Range> merged;
    for (const Range& range : ranges) {
        if (!merged.empty() && range.low <= merged.back().high + 1)
            merged.back().high = std::max(merged.back().high, range.high);
        else
            merged.push_back(range);
    }
    return merged;
}

/// Sorted by address and then by length, a prefix comes right behind those that cover it.
std::vector<Prefix> normalised(std::vector<Prefix> prefixes) {
    std::sort(prefixes.begin(), prefixes.end());
    std::vector<Prefix> kept;
    for (const Prefix& prefix : prefixes)
        if (kept.empty() || !kept.back().contains(prefix.address))
            kept.push_back(prefix);
    return kept;
}

bool contains(const std::vector<Range>& ranges, std::uint64_t number) {
    return std::any_of(ranges.begin(), ranges.end(), [number](const Range& range) {
        return range.low <= number && number <= range.high;
    });
}

/// Whether a match on numbers holds for one that has the field.
bool holds(const Match& match, std::uint64_t number) {
    return contains(match.ranges, number) != match.negated;
}

class Parser {
  public:
    Parser(std::string_view text, Hook hook) : text_(text), hook_(hook) {}

    Result<Rule> run() {
        tokens_ = NETCTL_TRY(lex_rule(text_));
        const Result<> structure = read_structure();
        // A value is always left of the place where the structure broke.
        structure_is_whole_ = structure.has_value();
        NETCTL_TRY(read_values());
        if (!structure)
            return structure.error();
        NETCTL_TRY(check_fields());
        return std::move(rule_);
    }

  private:
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

    const Token& peek() const { return tokens_[next_]; }
    const Token& take() { return tokens_[next_ + 1 < tokens_.size() ? next_++ : next_]; }
    bool accept(std::string_view word) {
        if (!peek().is(word))
            return false;
        take();
        return true;
    }

    Error error_at(Place place, const std::string& message, const std::string& allowed = {},
                   std::string hint = {}) const {
        return rule_error(text_, place, message, allowed, std::move(hint));
    }
    std::string_view slice(Place place) const {
        return text_.substr(place.begin, place.end - place.begin);
    }
    /// What the user sees of a token: quoted, or that the rule ends there.
    std::string shown(const Token& token) const {
        if (token.kind == TokenKind::end)
            return "the end of the rule";
        return token.kind == TokenKind::quoted ? std::string(slice(token.place))
                                               : fmt::format("'{}'", slice(token.place));
    }
    static std::string allowed(const KeyInfo& key) {
        return fmt::format("allowed for {}: {}; 'not' before it negates", key.name, key.value);
    }
    std::string allowed_words() const {
        std::string words = fmt::format("keys of {}: {}\nactions of {}: {}", to_string(hook_),
                                        fmt::join(key_names(hook_), " "), to_string(hook_),
                                        fmt::join(action_names(hook_), " "));
        words += "\nmodifiers:";
        for (const ModifierInfo& modifier : rule_modifiers())
            words += fmt::format(" {}", modifier.name);
        return words;
    }
    std::string allowed_actions() const {
        return fmt::format("actions of {}: {}", to_string(hook_),
                           fmt::join(action_names(hook_), " "));
    }

    // ---- first pass ----

    Result<> read_structure() {
        while (peek().kind != TokenKind::end) {
            const Token& token = take();
            if (token.kind != TokenKind::word)
                return misplaced(token);
            const KeyInfo* key = find_key(token.text);
            const ActionInfo* action = find_action(token.text);
            if (key != nullptr && !key->in(hook_))
                key = nullptr;
            if (action != nullptr && !action->in(hook_))
                action = nullptr;
            if (key != nullptr && action != nullptr) {
                // `mark` and `dscp`: a key at first, and the action once actions have begun, or
                // once the rule has that key.
                if (actions_begun() || find_clause(key->key) != nullptr)
                    key = nullptr;
                else
                    action = nullptr;
            }
            if (token.text == "then")
                NETCTL_TRY(read_then(token));
            else if (const ModifierInfo* modifier = find_modifier(token.text))
                NETCTL_TRY(read_modifier(*modifier, token));
            else if (action != nullptr)
                NETCTL_TRY(read_action(*action, token));
            else if (key != nullptr)
                NETCTL_TRY(read_clause(*key, token));
            else
                return misplaced(token);
        }
        return finish_actions();
    }

    bool actions_begun() const { return then_.has_value() || !rule_.actions.empty(); }

    const Clause* find_clause(Key key) const {
        const auto found = std::find_if(clauses_.begin(), clauses_.end(), [key](const Clause& c) {
            return c.key->key == key;
        });
        return found == clauses_.end() ? nullptr : &*found;
    }

    /// A token in the place of a key or an action that is neither.
    Error misplaced(const Token& token) const {
        const std::string& word = token.text;
        std::string hint;
        if (token.kind == TokenKind::open || token.kind == TokenKind::close ||
            token.kind == TokenKind::quoted)
            return error_at(token.place,
                            fmt::format("{} stands where a key or an action is expected",
                                        token.kind == TokenKind::quoted ? "a quoted text"
                                                                        : shown(token)),
                            allowed_words());
        if (word == "not" || word == "!")
            return error_at(token.place,
                            "'not' stands where a key or an action is expected", allowed_words(),
                            "'not' goes between a key and its value: src not 192.0.2.1");
        const KeyInfo* key = find_key(word);
        const ActionInfo* action = find_action(word);
        if (key != nullptr || action != nullptr) {
            const std::uint8_t hooks = (key != nullptr ? key->hooks : 0) |
                                       (action != nullptr ? action->hooks : 0);
            std::vector<std::string_view> others;
            for (const Hook other : {Hook::xdp, Hook::tc, Hook::policy})
                if ((hooks & static_cast<std::uint8_t>(other)) != 0)
                    others.push_back(to_string(other));
            return error_at(token.place,
                            fmt::format("{} has no {} '{}'; only {} {} it", to_string(hook_),
                                        key == nullptr ? "action" : "key", word,
                                        fmt::join(others, " and "),
                                        others.size() == 1 ? "has" : "have"),
                            key == nullptr ? allowed_actions() : allowed_words(),
                            synonym_hint(word));
        }
        hint = synonym_hint(word);
        if (hint.empty() && !clauses_.empty() && looks_like_value(word))
            hint = fmt::format("several values are written as a list: {} {{A, B}}; a shell expands "
                               "{{A,B}} unless it is quoted or has blanks",
                               clauses_.back().key->name);
        std::vector<std::string> words = rule_words(hook_);
        return error_at(token.place,
                        fmt::format("'{}' is neither a key nor an action of {}{}", word,
                                    to_string(hook_), hint.empty() ? did_you_mean(word, words) : ""),
                        allowed_words(), hint);
    }

    std::string synonym_hint(std::string_view word) const {
        for (const Synonym& synonym : synonyms) {
            const std::string_view ours =
                hook_ == Hook::policy ? synonym.policy : synonym.packets;
            if (synonym.word == word && !ours.empty() && ours != word)
                return fmt::format("{} calls it '{}'", to_string(hook_), ours);
        }
        return {};
    }

    static bool looks_like_value(std::string_view word) {
        return word.starts_with('@') || (word.front() >= '0' && word.front() <= '9') ||
               Prefix::parse(word).has_value();
    }

    Result<> read_then(const Token& token) {
        if (then_)
            return error_at(token.place, "'then' is given twice");
        if (!rule_.actions.empty())
            return error_at(token.place, "'then' comes before the first action");
        then_ = token.place;
        return {};
    }

    Result<> read_clause(const KeyInfo& key, const Token& word) {
        if (find_clause(key.key) != nullptr)
            return error_at(word.place, fmt::format("'{}' is given twice", key.name), {},
                            key.takes_list()
                                ? fmt::format("several values are written as a list: {} {{A, B}}",
                                              key.name)
                                : "");
        if (then_)
            return error_at(word.place, fmt::format("the key '{}' behind 'then'", key.name),
                            "allowed behind 'then': actions and modifiers");
        Clause clause;
        clause.key = &key;
        clause.negated = accept("not");
        if (peek().kind == TokenKind::word && peek().text.starts_with('!'))
            return error_at(peek().place, fmt::format("'{}' needs a value, but here is {}",
                                                      key.name, shown(peek())),
                            allowed(key), fmt::format("write: {} not VALUE", key.name));
        clause.value.begin = peek().place.begin;
        if (peek().kind == TokenKind::open) {
            const Place brace = take().place;
            clause.braced = true;
            clause.first = next_;
            while (peek().is_value())
                take();
            clause.last = next_;
            if (peek().kind == TokenKind::open)
                return error_at(peek().place, "a list within a list", allowed(key));
            if (peek().kind == TokenKind::end)
                return error_at(brace, "this list is not closed",
                                "allowed: values parted by commas or blanks, and then '}'");
            clause.value.end = take().place.end;
            if (clause.first == clause.last)
                return error_at({brace.begin, clause.value.end}, "an empty list matches nothing",
                                allowed(key));
            if (!key.takes_list())
                return error_at({brace.begin, clause.value.end},
                                fmt::format("'{}' takes no list", key.name), allowed(key),
                                "write one rule for each value");
        } else if (peek().is_value()) {
            clause.first = next_;
            clause.value.end = take().place.end;
            clause.last = next_;
        } else {
            return error_at(peek().place,
                            fmt::format("'{}' needs a value, but here is {}", key.name,
                                        shown(peek())),
                            allowed(key));
        }
        clause.place = {word.place.begin, clause.value.end};
        clauses_.push_back(clause);
        return {};
    }

    Result<> read_action(const ActionInfo& about, const Token& word) {
        if (const Action* final = final_action()) {
            const std::string_view end = info(final->kind).name;
            return error_at(
                word.place, fmt::format("'{}' behind '{}', which ends the actions", about.name, end),
                {},
                about.final ? "a rule has one final action"
                : find_key(about.name) == nullptr
                    ? fmt::format("write it before '{}'", end)
                    : fmt::format("to set it write it before '{0}' and behind 'then', to match it "
                                  "write it before 'then {0}'",
                                  end));
        }
        for (const Action& action : rule_.actions)
            if (action.kind == about.kind)
                return error_at(word.place, fmt::format("the action '{}' is given twice",
                                                        about.name));
        Action action;
        action.kind = about.kind;
        switch (about.kind) {
        case ActionKind::redirect:
        case ActionKind::mirror:
            action.device = NETCTL_TRY(read_device(about));
            if (about.kind == ActionKind::redirect && hook_ == Hook::tc) {
                action.to_ingress = accept("ingress");
                if (!action.to_ingress)
                    accept("egress");
            }
            break;
        case ActionKind::mark: {
            const Token token = NETCTL_TRY(read_argument(about));
            const Masked mark = NETCTL_TRY(read_mark(token, argument_allowed(about)));
            action.number = mark.value;
            action.mask = mark.mask;
            break;
        }
        case ActionKind::priority:
            action.number = NETCTL_TRY(read_priority(about));
            break;
        case ActionKind::dscp: {
            const Token token = NETCTL_TRY(read_argument(about));
            const auto number = whole_number(token.text);
            const NamedRange* named = find_named(info(Key::dscp).names, token.text);
            if (named == nullptr && (!number || *number > info(Key::dscp).max))
                return error_at(token.place,
                                fmt::format("{} is no DSCP{}", shown(token),
                                            did_you_mean(token.text, value_words(Key::dscp))),
                                argument_allowed(about));
            action.number = named != nullptr ? named->low : *number;
            break;
        }
        case ActionKind::rate:
            NETCTL_TRY(read_rate(about, action));
            break;
        default:
            break;
        }
        rule_.actions.push_back(std::move(action));
        return {};
    }

    const Action* final_action() const {
        return !rule_.actions.empty() && info(rule_.actions.back().kind).final
                   ? &rule_.actions.back()
                   : nullptr;
    }

    std::string argument_allowed(const ActionInfo& action) const {
        return fmt::format("allowed: {} {}", action.name, argument(action, hook_));
    }

    Result<Token> read_argument(const ActionInfo& action) {
        if (!peek().is_value())
            return error_at(peek().place,
                            fmt::format("'{}' needs an argument, but here is {}", action.name,
                                        shown(peek())),
                            argument_allowed(action));
        return take();
    }

    Result<std::string> read_device(const ActionInfo& action) {
        const Token token = NETCTL_TRY(read_argument(action));
        const std::string& name = token.text;
        // What the kernel's dev_valid_name() takes; control characters never come this far.
        if (name.empty() || name.size() > max_device_name || name == "." || name == ".." ||
            name.find_first_of("/: ") != std::string::npos)
            return error_at(token.place, fmt::format("{} cannot be an interface", shown(token)),
                            fmt::format("allowed: a name of 1 to {} characters without '/', ':' "
                                        "and blanks",
                                        max_device_name));
        return name;
    }

    Result<Masked> read_mark(const Token& token, const std::string& allowed_text) const {
        const std::size_t slash = token.text.find('/');
        const auto value = whole_number(std::string_view(token.text).substr(0, slash));
        const auto mask = slash == std::string::npos
                              ? std::optional<std::uint64_t>(0xffffffff)
                              : whole_number(std::string_view(token.text).substr(slash + 1));
        if (!value || !mask || *value > 0xffffffff || *mask > 0xffffffff)
            return error_at(token.place, fmt::format("{} is no mark", shown(token)),
                            allowed_text + "; numbers up to 0xffffffff");
        if (*mask == 0)
            return error_at(token.place, "a mask of 0 selects no bit", allowed_text);
        if ((*value & ~*mask) != 0)
            return error_at(token.place, "the value has bits outside of its mask", allowed_text,
                            fmt::format("0x{:x}/0x{:x} has them all", *value, *mask | *value));
        return Masked{static_cast<std::uint32_t>(*value), static_cast<std::uint32_t>(*mask)};
    }

    Result<std::uint64_t> read_priority(const ActionInfo& action) {
        const Token token = NETCTL_TRY(read_argument(action));
        const std::string_view word = token.text;
        const std::size_t colon = word.find(':');
        if (colon == std::string_view::npos) {
            if (const auto number = whole_number(word); number && *number <= 0xffffffff)
                return *number;
        } else {
            // Both parts are hexadecimal, as everywhere in tc.
            std::uint32_t parts[2] = {0, 0};
            bool good = true;
            const std::string_view texts[2] = {word.substr(0, colon), word.substr(colon + 1)};
            for (int i = 0; i < 2; i++) {
                const char* end = texts[i].data() + texts[i].size();
                const auto [stop, status] = std::from_chars(texts[i].data(), end, parts[i], 16);
                // The minor number may be left out: `1:` is 1:0.
                const bool empty_minor = i == 1 && texts[i].empty();
                good &= empty_minor || (status == std::errc{} && stop == end && parts[i] <= 0xffff);
            }
            if (good)
                return std::uint64_t{parts[0]} << 16 | parts[1];
        }
        return error_at(token.place, fmt::format("{} is no priority", shown(token)),
                        argument_allowed(action) + "; MAJOR and MINOR are hexadecimal");
    }

    Result<> read_rate(const ActionInfo& about, Action& action) {
        const Token rate = NETCTL_TRY(read_argument(about));
        const auto bits = number_with_unit(rate.text, rate_units());
        if (!bits || *bits < 8 || *bits > max_rate)
            return error_at(rate.place, fmt::format("{} is no rate", shown(rate)),
                            "allowed: a whole number with bit, kbit, mbit, gbit or tbit (powers of "
                            "1000), 8bit to 10tbit: 100mbit");
        action.number = *bits;
        if (!accept("burst"))
            return {};
        const Token burst = NETCTL_TRY(read_argument(about));
        const auto bytes = number_with_unit(burst.text, size_units());
        if (!bytes || *bytes == 0 || *bytes > max_rate_burst)
            return error_at(burst.place, fmt::format("{} is no size of a burst", shown(burst)),
                            "allowed: bytes, or with k (1024) or m (1048576): 64k");
        action.burst = *bytes;
        return {};
    }

    Result<> read_modifier(const ModifierInfo& modifier, const Token& word) {
        const bool twice = (modifier.modifier == Modifier::limit && rule_.limit) ||
                           (modifier.modifier == Modifier::log && rule_.log) ||
                           (modifier.modifier == Modifier::comment && has_comment_);
        if (twice)
            return error_at(word.place, fmt::format("'{}' is given twice", modifier.name));
        switch (modifier.modifier) {
        case Modifier::log:
            rule_.log = true;
            return {};
        case Modifier::comment:
            return read_comment();
        case Modifier::limit:
            return read_limit(modifier, word);
        }
        return {};
    }

    Result<> read_comment() {
        if (!peek().is_value())
            return error_at(peek().place,
                            fmt::format("'comment' needs a text, but here is {}", shown(peek())),
                            "allowed: a word, or a text in double quotes");
        const Token& token = take();
        if (token.text.size() > max_comment_bytes)
            return error_at(token.place,
                            fmt::format("a comment of {} bytes", token.text.size()),
                            fmt::format("allowed: up to {} bytes", max_comment_bytes));
        rule_.comment = token.text;
        has_comment_ = true;
        return {};
    }

    Result<> read_limit(const ModifierInfo& modifier, const Token& word) {
        const std::string allowed_text =
            fmt::format("allowed: {} {}", modifier.name, modifier.argument);
        if (!peek().is_value())
            return error_at(peek().place,
                            fmt::format("'limit' needs a rate, but here is {}", shown(peek())),
                            allowed_text);
        const Token& token = take();
        const std::string_view rate = token.text;
        const std::size_t slash = rate.find('/');
        const auto count = whole_number(rate.substr(0, slash));
        const NamedRange* unit =
            slash == std::string_view::npos ? nullptr
                                            : find_named(limit_units(), rate.substr(slash + 1));
        if (!count || unit == nullptr)
            return error_at(token.place, fmt::format("{} is no rate of packets", shown(token)),
                            allowed_text);
        if (*count == 0 || *count > max_limit_count)
            return error_at(token.place, fmt::format("a rate of {}", *count),
                            fmt::format("allowed: 1 to {}", max_limit_count),
                            *count == 0 ? fmt::format("to let nothing through, write '{}'",
                                                      hook_ == Hook::policy ? "deny" : "drop")
                                        : "");
        Limit limit;
        limit.count = *count;
        limit.period_ns = unit->low;
        bool has_burst = false;
        for (;;) {
            if (!has_burst && accept("burst")) {
                has_burst = true;
                const Token& burst = take();
                const auto number = whole_number(burst.text);
                if (!burst.is_value() || !number || *number == 0 || *number > max_limit_count)
                    return error_at(burst.place, fmt::format("{} is no burst", shown(burst)),
                                    fmt::format("allowed: 1 to {}", max_limit_count));
                if (*number > max_burst_ns / limit.period_ns * limit.count)
                    return error_at(burst.place,
                                    "at this rate the burst would take more than 100 years");
                limit.burst = *number;
            } else if (!limit.per_source && peek().is("per")) {
                const Place per = take().place;
                if (!accept("src"))
                    return error_at(peek().place,
                                    fmt::format("'per' is followed by {}", shown(peek())),
                                    "allowed: per src");
                if (hook_ == Hook::policy)
                    return error_at({per.begin, tokens_[next_ - 1].place.end},
                                    "policy has no limit 'per src': its rules have no source",
                                    "allowed: limit N/s|min|hour|day [burst N]");
                limit.per_source = true;
            } else {
                break;
            }
        }
        if (!has_burst)
            limit.burst = default_burst(limit);
        rule_.limit = limit;
        limit_place_ = {word.place.begin, tokens_[next_ - 1].place.end};
        return {};
    }

    /// What the rate gives in a second, and at least 5: enough that traffic which keeps the rate
    /// on average is not punished for the shape of its bursts.
    static std::uint64_t default_burst(const Limit& limit) {
        constexpr std::uint64_t second = 1'000'000'000;
        return std::max<std::uint64_t>(5, limit.count / (limit.period_ns / second));
    }

    Result<> finish_actions() {
        if (rule_.actions.empty())
            NETCTL_TRY(take_trailing_action());
        if (final_action() == nullptr) {
            Action pass;
            pass.kind = ActionKind::pass;
            rule_.actions.push_back(std::move(pass));
        }
        const Action& final = rule_.actions.back();
        if (rule_.limit && (final.kind == ActionKind::drop || final.kind == ActionKind::deny ||
                            final.kind == ActionKind::audit)) {
            const bool policy = hook_ == Hook::policy;
            return error_at(
                limit_place_,
                fmt::format("'limit' on a rule that ends in '{}'", info(final.kind).name),
                fmt::format("a limit {} what exceeds it", policy ? "denies" : "drops"),
                fmt::format("to {} only what exceeds a rate write: {} {}",
                            policy ? "deny" : "drop", policy ? "allow" : "pass",
                            slice(limit_place_)));
        }
        // Actions that are not final are independent of each other: one order for all of them.
        std::sort(rule_.actions.begin(), rule_.actions.end() - 1,
                  [](const Action& a, const Action& b) { return a.kind < b.kind; });
        return {};
    }

    /// No word of the rule can only be an action. In tc a `mark` or `dscp` that ends the rule is
    /// the action then; two of them could be meant either way.
    Result<> take_trailing_action() {
        const auto could_be_action = [this](const Clause& clause) {
            const ActionInfo* action = find_action(clause.key->name);
            return action != nullptr && action->in(hook_) && !clause.negated && !clause.braced;
        };
        const Place end{text_.size(), text_.size()};
        if (then_)
            return error_at(end, "an action is missing behind 'then'", allowed_actions());
        if (clauses_.empty() || !could_be_action(clauses_.back()))
            return error_at(end, "the rule has no action", allowed_actions());
        const Clause clause = clauses_.back();
        clauses_.pop_back();
        if (!clauses_.empty() && could_be_action(clauses_.back()))
            return error_at(
                {clauses_.back().place.begin, clause.place.end},
                fmt::format("'{}' may be a key or an action here", clauses_.back().key->name), {},
                fmt::format("write '{} then {}' to match and set, 'then {} {}' to set both",
                            slice(clauses_.back().place), slice(clause.place),
                            slice(clauses_.back().place), slice(clause.place)));
        const std::size_t resume = next_;
        next_ = clause.first;
        const Token word{TokenKind::word, std::string(clause.key->name), clause.place};
        const Result<> read = read_action(*find_action(clause.key->name), word);
        next_ = resume;
        return read;
    }

    // ---- second pass ----

    Result<> read_values() {
        std::sort(clauses_.begin(), clauses_.end(),
                  [](const Clause& a, const Clause& b) { return a.key->key < b.key->key; });
        // In the order of the text, so that of several errors the first is shown; values that
        // depend on others come last.
        std::vector<const Clause*> order;
        for (const Clause& clause : clauses_)
            order.push_back(&clause);
        std::sort(order.begin(), order.end(), [](const Clause* a, const Clause* b) {
            return std::pair(depends(*a), a->place.begin) < std::pair(depends(*b), b->place.begin);
        });
        for (const Clause* clause : order) {
            Match match = NETCTL_TRY(read_value(*clause));
            const auto behind = std::find_if(
                rule_.matches.begin(), rule_.matches.end(),
                [&](const Match& other) { return other.key > match.key; });
            rule_.matches.insert(behind, std::move(match));
        }
        return {};
    }

    static int depends(const Clause& clause) {
        switch (clause.key->key) {
        case Key::sport:
        case Key::dport:
        case Key::icmp_type:
            return 1;
        case Key::icmp_code:
            return 2;
        default:
            return 0;
        }
    }

    Result<Match> read_value(const Clause& clause) {
        const KeyInfo& key = *clause.key;
        Match match;
        match.key = key.key;
        match.negated = clause.negated;
        const Token& first = tokens_[clause.first];
        if (key.form == ValueForm::path) {
            match.path = NETCTL_TRY(read_path(key, first));
            return match;
        }
        if (key.form == ValueForm::mark) {
            match.masked = NETCTL_TRY(read_mark(first, allowed(key)));
            return match;
        }
        if (key.form == ValueForm::flags) {
            match.masked = NETCTL_TRY(read_flags(key, first));
            return match;
        }
        for (std::size_t i = clause.first; i < clause.last; i++) {
            const Token& item = tokens_[i];
            if (item.is("not"))
                return clause.braced
                           ? error_at(item.place, "'not' within a list", allowed(key),
                                      "'not' goes before the list and negates all of it")
                           : error_at(item.place, "'not' is given twice", allowed(key));
            if (item.kind == TokenKind::word && item.text.starts_with('@')) {
                if (!key.takes_set())
                    return error_at(item.place, fmt::format("'{}' takes no set", key.name),
                                    allowed(key));
                if (clause.last - clause.first > 1)
                    return error_at(item.place, "a set within a list", allowed(key),
                                    "write one rule for the set and one for the list");
                match.set = NETCTL_TRY(read_set(item));
                return match;
            }
            if (key.form == ValueForm::vlan && item.is("none")) {
                if (clause.last - clause.first > 1)
                    return error_at(item.place, "'none' within a list", allowed(key),
                                    "write one rule for packets without a tag");
                if (match.negated) {
                    match.negated = false;
                    match.ranges = {{0, key.max}};
                } else {
                    match.absent = true;
                }
                return match;
            }
            if (key.form == ValueForm::addresses)
                match.prefixes.push_back(NETCTL_TRY(read_prefix(key, item)));
            else
                match.ranges.push_back(NETCTL_TRY(read_range(key, item)));
        }
        match.prefixes = normalised(std::move(match.prefixes));
        match.ranges = normalised(std::move(match.ranges));
        NETCTL_TRY(check_negation(clause, match));
        return match;
    }

    Result<> check_negation(const Clause& clause, const Match& match) const {
        if (!match.negated)
            return {};
        bool nothing = false;
        if (clause.key->form == ValueForm::addresses)
            nothing = std::all_of(match.prefixes.begin(), match.prefixes.end(),
                                  [](const Prefix& prefix) { return prefix.length == 0; });
        else
            nothing = match.ranges.front() == Range{0, clause.key->max};
        if (!nothing)
            return {};
        return error_at(clause.place, "this can never match: it excludes every value",
                        allowed(*clause.key),
                        clause.key->form == ValueForm::vlan
                            ? "'vlan none' matches packets without a tag"
                            : "");
    }

    Result<std::string> read_set(const Token& item) const {
        const std::string name = item.text.substr(1);
        const bool good =
            !name.empty() && name.size() <= max_set_name &&
            std::all_of(name.begin(), name.end(), [](char c) {
                return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                       (c >= '0' && c <= '9') || c == '_' || c == '-';
            });
        if (!good)
            return error_at(item.place, fmt::format("{} is no name of a set", shown(item)),
                            fmt::format("allowed: @ and 1 to {} of A-Z a-z 0-9 _ -", max_set_name));
        return name;
    }

    Result<Prefix> read_prefix(const KeyInfo& key, const Token& item) const {
        Result<Prefix> prefix = Prefix::parse(item.text);
        if (!prefix) {
            std::string hint = prefix.error().hint;
            if (item.text == "any" || item.text == "all")
                hint = fmt::format("leave '{}' out to match any", key.name);
            else if (item.text.find(',') != std::string::npos)
                hint = list_hint(key);
            return error_at(item.place, prefix.error().what, allowed(key), hint);
        }
        static const Prefix mapped = *Prefix::parse("::ffff:0:0/96");
        if (hook_ == Hook::policy && prefix->length >= mapped.length &&
            mapped.contains(prefix->address)) {
            Prefix ipv4{{Family::ipv4, {}}, static_cast<std::uint8_t>(prefix->length - 96)};
            std::copy_n(prefix->address.bytes.begin() + 12, 4, ipv4.address.bytes.begin());
            return error_at(item.place,
                            "this can never match: policy sees IPv4-mapped addresses as IPv4",
                            allowed(key), fmt::format("write {}", ipv4.to_string()));
        }
        return std::move(prefix).value();
    }

    static std::string list_hint(const KeyInfo& key) {
        return fmt::format("a list is written in braces: {} {{A, B}}", key.name);
    }

    Result<Range> read_range(const KeyInfo& key, const Token& item) {
        // Names first, for they may hold a '-' like a range.
        if (const auto named = NETCTL_TRY(read_name(key, item)))
            return *named;
        const std::string_view word = item.text;
        // A number's first character is never '-', so that negative numbers are told as such.
        const std::size_t dash = word.find('-', 1);
        const auto low = read_number(key, word.substr(0, dash));
        const auto high =
            dash == std::string_view::npos ? low : read_number(key, word.substr(dash + 1));
        if (!low || !high || key.form == ValueForm::names)
            return error_at(item.place,
                            fmt::format("{} is not a value of '{}'{}", shown(item), key.name,
                                        did_you_mean(word, value_words(key.key))),
                            allowed(key),
                            word.find(',') != std::string_view::npos ? list_hint(key) : "");
        if (*low > key.max || *high > key.max)
            return error_at(item.place,
                            fmt::format("{} is too large for '{}'",
                                        word.substr(*low > key.max ? 0 : dash + 1,
                                                    *low > key.max ? dash : word.npos),
                                        key.name),
                            allowed(key));
        if (*low > *high)
            return error_at(item.place, fmt::format("the range {} runs backwards", shown(item)),
                            allowed(key),
                            fmt::format("write {}-{}", word.substr(dash + 1), word.substr(0, dash)));
        return Range{*low, *high};
    }

    static std::optional<std::uint64_t> read_number(const KeyInfo& key, std::string_view text) {
        return key.form == ValueForm::macs ? mac_address(text) : whole_number(text);
    }

    /// A value by name; nothing if the key has no such name.
    Result<std::optional<Range>> read_name(const KeyInfo& key, const Token& item) {
        const std::string& name = item.text;
        const auto number = [](std::uint64_t n) { return std::optional<Range>(Range{n, n}); };
        if (const NamedRange* named = find_named(key.names, name))
            return std::optional<Range>(Range{named->low, named->high});
        const bool starts_like_number = name.empty() || (name[0] >= '0' && name[0] <= '9');
        if (starts_like_number)
            return std::optional<Range>();
        switch (key.form) {
        case ValueForm::ports: {
            const auto port = NETCTL_TRY(read_service(item));
            return port ? number(*port) : std::optional<Range>();
        }
        case ValueForm::users:
            if (const passwd* entry = getpwnam(name.c_str()))
                return number(entry->pw_uid);
            return error_at(item.place, fmt::format("there is no user {}", shown(item)),
                            allowed(key));
        case ValueForm::groups:
            if (const group* entry = getgrnam(name.c_str()))
                return number(entry->gr_gid);
            return error_at(item.place, fmt::format("there is no group {}", shown(item)),
                            allowed(key));
        case ValueForm::icmp:
            return key.key == Key::icmp_type ? read_icmp_type(item) : read_icmp_code(item);
        default:
            return std::optional<Range>();
        }
    }

    Result<std::optional<std::uint16_t>> read_service(const Token& item) const {
        const ServicePorts known = service_ports(item.text);
        const auto protocols = possible_protocols();
        std::vector<std::uint16_t> ports;
        const auto add = [&](const std::optional<std::uint16_t>& port) {
            if (port && std::find(ports.begin(), ports.end(), *port) == ports.end())
                ports.push_back(*port);
        };
        if (protocols[protocol_tcp])
            add(known.tcp);
        if (protocols[protocol_udp])
            add(known.udp);
        if (protocols[protocol_sctp])
            add(known.sctp);
        if (ports.empty()) { // a name of other protocols only: still the port that is meant
            add(known.tcp);
            add(known.udp);
            add(known.sctp);
        }
        if (ports.size() > 1 && structure_is_whole_)
            return error_at(item.place,
                            fmt::format("{} is port {}, depending on the protocol", shown(item),
                                        fmt::join(ports, " or ")),
                            "allowed: the number, or the name together with one 'proto'");
        return ports.empty() ? std::nullopt : std::optional(ports.front());
    }

    /// Protocols that the rule's `proto` leaves.
    std::bitset<256> possible_protocols() const {
        std::bitset<256> protocols;
        const Match* proto = rule_.find(Key::proto);
        for (unsigned i = 0; i < 256; i++)
            protocols[i] = proto == nullptr || holds(*proto, i);
        return protocols;
    }

    /// Which of the two families a packet may have that matches the addresses and ether-type.
    struct Families {
        bool ipv4 = true;
        bool ipv6 = true;
    };
    Families possible_families() const {
        Families families;
        for (const Key key : {Key::src, Key::dst}) {
            const Match* match = rule_.find(key);
            if (match == nullptr || !match->set.empty())
                continue;
            const auto names = [&](Family family) {
                return std::any_of(match->prefixes.begin(), match->prefixes.end(),
                                   [&](const Prefix& p) { return p.address.family == family; });
            };
            families.ipv4 &= names(Family::ipv4);
            families.ipv6 &= names(Family::ipv6);
        }
        if (const Match* type = rule_.find(Key::ether_type)) {
            families.ipv4 &= holds(*type, 0x0800);
            families.ipv6 &= holds(*type, 0x86dd);
        }
        return families;
    }

    /// Which of ICMP and ICMPv6 a packet may be that matches the rule.
    struct IcmpKinds {
        bool icmp = true;
        bool icmp6 = true;
        /// The protocol, if it is certain; else 0.
        std::uint8_t only() const {
            return icmp == icmp6 ? 0 : icmp ? protocol_icmp : protocol_icmp6;
        }
    };
    IcmpKinds possible_icmp() const {
        const auto protocols = possible_protocols();
        const Families families = possible_families();
        return {protocols[protocol_icmp] && families.ipv4,
                protocols[protocol_icmp6] && families.ipv6};
    }

    Result<std::optional<Range>> read_icmp_type(const Token& item) const {
        std::vector<const IcmpType*> found;
        for (const IcmpType& type : icmp_types())
            if (type.name == item.text)
                found.push_back(&type);
        return choose_icmp(item, found, [](const IcmpType& type) { return type.type; });
    }

    Result<std::optional<Range>> read_icmp_code(const Token& item) const {
        std::vector<const IcmpCode*> found;
        for (const IcmpCode& code : icmp_codes())
            if (code.name == item.text)
                found.push_back(&code);
        const auto range = NETCTL_TRY(
            choose_icmp(item, found, [](const IcmpCode& code) { return code.code; }));
        if (!range || !structure_is_whole_)
            return range;
        const auto chosen = std::find_if(found.begin(), found.end(), [&](const IcmpCode* code) {
            return code->protocol == possible_icmp().only();
        });
        const Match* type = rule_.find(Key::icmp_type);
        const auto type_name = [](const IcmpCode& code) {
            for (const IcmpType& candidate : icmp_types())
                if (candidate.protocol == code.protocol && candidate.type == code.type)
                    return candidate.name;
            return std::string_view("?");
        };
        if (chosen != found.end() &&
            (type == nullptr || type->negated ||
             type->ranges != std::vector<Range>{{(*chosen)->type, (*chosen)->type}}))
            return error_at(item.place,
                            fmt::format("{} is a code of the type '{}', which this rule does not "
                                        "name",
                                        shown(item), type_name(**chosen)),
                            fmt::format("allowed: a number, or the name together with 'icmp-type "
                                        "{}'",
                                        type_name(**chosen)));
        return range;
    }

    /// Picks by protocol among the meanings of a name.
    template <class Entry, class Number>
    Result<std::optional<Range>> choose_icmp(const Token& item,
                                             const std::vector<const Entry*>& found,
                                             Number number) const {
        if (found.empty())
            return std::optional<Range>();
        const IcmpKinds kinds = possible_icmp();
        const std::uint8_t protocol = kinds.only();
        // Of a rule that is about neither, the third pass tells; any meaning does until then.
        const bool neither = !kinds.icmp && !kinds.icmp6;
        for (const Entry* entry : found)
            if (entry->protocol == protocol || neither || !structure_is_whole_)
                return std::optional<Range>(Range{number(*entry), number(*entry)});
        std::vector<std::string> meanings;
        for (const Entry* entry : found)
            meanings.push_back(fmt::format("{} in {}", number(*entry),
                                           entry->protocol == protocol_icmp ? "icmp" : "icmp6"));
        if (protocol != 0)
            return error_at(item.place,
                            fmt::format("{} does not exist in {}", shown(item),
                                        protocol == protocol_icmp ? "icmp" : "icmp6"),
                            fmt::format("it is {}", fmt::join(meanings, " and ")));
        return error_at(item.place,
                        fmt::format("{} is {}, and the rule does not say which", shown(item),
                                    fmt::join(meanings, " and ")),
                        found.size() > 1 ? "allowed: a number, or the name together with 'proto "
                                           "icmp' or 'proto icmp6'"
                                         : fmt::format("allowed: a number, or the name together "
                                                       "with 'proto {}'",
                                                       found.front()->protocol == protocol_icmp
                                                           ? "icmp"
                                                           : "icmp6"));
    }

    Result<Masked> read_flags(const KeyInfo& key, const Token& token) const {
        const std::string_view word = token.text;
        const std::size_t slash = word.find('/');
        const std::uint32_t value =
            NETCTL_TRY(read_flag_set(key, token, 0, std::min(slash, word.size())));
        // A bare VALUE asks that all of it be set; a bare `none`, that nothing be.
        std::uint32_t mask = value != 0 ? value : 0xff;
        if (slash != std::string_view::npos)
            mask = NETCTL_TRY(read_flag_set(key, token, slash + 1, word.size()));
        if (mask == 0)
            return error_at(token.place, "a mask without flags looks at none of them", allowed(key),
                            "'proto tcp' matches TCP whatever its flags");
        if ((value & ~mask) != 0)
            return error_at(token.place,
                            "this can never match: the value has flags outside of its mask",
                            allowed(key));
        return Masked{value, mask};
    }

    /// Flags in characters [from, to) of a token.
    Result<std::uint32_t> read_flag_set(const KeyInfo& key, const Token& token, std::size_t from,
                                        std::size_t to) const {
        const std::string_view all = std::string_view(token.text).substr(from, to - from);
        if (all == "none")
            return 0u;
        if (all == "all")
            return 0xffu;
        std::uint32_t flags = 0;
        for (std::size_t at = 0; at <= all.size();) {
            const std::size_t comma = std::min(all.find(',', at), all.size());
            const std::string_view name = all.substr(at, comma - at);
            const NamedRange* flag = find_named(key.names, name);
            const auto number = whole_number(name);
            if (flag == nullptr && (!number || *number > key.max)) {
                std::vector<std::string> words = value_words(key.key);
                words.insert(words.end(), {"none", "all"});
                // Within the quotes of a quoted value the characters may not line up.
                Place place = token.place;
                if (token.kind == TokenKind::word) {
                    place.begin += from + at;
                    place.end = place.begin + std::max<std::size_t>(name.size(), 1);
                }
                return error_at(place,
                                fmt::format("'{}' is no TCP flag{}", name,
                                            did_you_mean(name, words)),
                                allowed(key));
            }
            flags |= static_cast<std::uint32_t>(flag != nullptr ? flag->low : *number);
            at = comma + 1;
        }
        return flags;
    }

    Result<std::string> read_path(const KeyInfo& key, const Token& token) const {
        constexpr std::size_t max_path = 4095;
        if (!token.text.starts_with('/') || token.text.size() > max_path)
            return error_at(token.place, fmt::format("{} is no absolute path", shown(token)),
                            allowed(key), "a path with blanks is quoted");
        std::string path;
        for (std::size_t at = 1; at <= token.text.size();) {
            const std::size_t slash = std::min(token.text.find('/', at), token.text.size());
            const std::string part = token.text.substr(at, slash - at);
            if (part == "." || part == "..")
                return error_at(token.place, fmt::format("'{}' within a path", part),
                                "allowed: a path that names each directory");
            if (!part.empty())
                path += "/" + part;
            at = slash + 1;
        }
        return path.empty() ? "/" : path;
    }

    // ---- third pass ----

    Error never(Key key, const std::string& because) const {
        const Clause* clause = find_clause(key);
        return error_at(clause != nullptr ? clause->place : Place{0, text_.size()},
                        "this rule can never match: " + because);
    }
    std::string value_text(Key key) const {
        const Clause* clause = find_clause(key);
        if (clause == nullptr)
            return {};
        std::string_view text = slice(clause->place);
        constexpr std::size_t longest = 40;
        return text.size() <= longest ? fmt::format("'{}'", text)
                                      : fmt::format("this '{}'", clause->key->name);
    }

    /// Refuses what no packet can match, as far as that is certain from the text alone.
    Result<> check_fields() const {
        const auto has = [this](Key key) { return rule_.find(key) != nullptr; };
        const Families families = possible_families();
        if (has(Key::ether_type) && !families.ipv4 && !families.ipv6) {
            for (const Key key : {Key::src, Key::dst, Key::sport, Key::dport, Key::proto,
                                  Key::flags, Key::icmp_type, Key::icmp_code, Key::frag, Key::dscp})
                if (has(key))
                    return never(key, fmt::format("{} leaves no IP packet that has '{}'",
                                                  value_text(Key::ether_type), to_string(key)));
        }
        if (!families.ipv4 && !families.ipv6 && has(Key::src) && has(Key::dst))
            return never(Key::dst, "src and dst are of different IP versions");
        NETCTL_TRY(check_upper_layer());
        return check_fragments();
    }

    Result<> check_upper_layer() const {
        const auto protocols = possible_protocols();
        std::optional<Key> ports, icmp;
        for (const Key key : {Key::sport, Key::dport})
            if (rule_.find(key) != nullptr)
                ports = ports.value_or(key);
        for (const Key key : {Key::icmp_type, Key::icmp_code})
            if (rule_.find(key) != nullptr)
                icmp = icmp.value_or(key);
        const bool flags = rule_.find(Key::flags) != nullptr;

        if (ports && !protocols[protocol_tcp] && !protocols[protocol_udp] &&
            !protocols[protocol_sctp])
            return never(*ports, fmt::format("only tcp, udp and sctp have ports, and {} leaves "
                                             "none of them",
                                             value_text(Key::proto)));
        if (flags && !protocols[protocol_tcp])
            return never(Key::flags, fmt::format("only tcp has flags, and {} leaves it out",
                                                 value_text(Key::proto)));
        if (icmp && ports)
            return never(*icmp, fmt::format("no packet has both '{}' and '{}'", to_string(*ports),
                                            to_string(*icmp)));
        if (icmp && flags)
            return never(*icmp, fmt::format("no packet has both 'flags' and '{}'",
                                            to_string(*icmp)));
        if (!icmp)
            return {};
        if (!protocols[protocol_icmp] && !protocols[protocol_icmp6])
            return never(*icmp, fmt::format("only icmp and icmp6 have '{}', and {} leaves none of "
                                            "them",
                                            to_string(*icmp), value_text(Key::proto)));
        const IcmpKinds kinds = possible_icmp();
        if (!kinds.icmp && !kinds.icmp6)
            return never(Key::proto, "icmp is of IPv4 and icmp6 of IPv6, and the addresses are not");
        return {};
    }

    Result<> check_fragments() const {
        const Match* frag = rule_.find(Key::frag);
        if (frag == nullptr || holds(*frag, frag_none) || holds(*frag, frag_first))
            return {};
        for (const Key key :
             {Key::sport, Key::dport, Key::flags, Key::icmp_type, Key::icmp_code})
            if (rule_.find(key) != nullptr)
                return never(key, fmt::format("a later fragment has no '{}'", to_string(key)));
        return {};
    }

    std::string_view text_;
    Hook hook_;
    std::vector<Token> tokens_;
    std::size_t next_ = 0;
    std::vector<Clause> clauses_;
    std::optional<Place> then_;
    Place limit_place_;
    bool has_comment_ = false;
    bool structure_is_whole_ = false;
    Rule rule_;
};

} // namespace

Result<Rule> parse_rule(std::string_view text, Hook hook) { return Parser(text, hook).run(); }

Result<std::vector<Rule>> parse_rules(std::string_view text, Hook hook, std::string_view source) {
    std::vector<Rule> rules;
    std::size_t number = 0;
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t end = std::min(text.find('\n', at), text.size());
        const std::string_view line = text.substr(at, end - at);
        at = end + 1;
        number++;
        const std::size_t first = line.find_first_not_of(" \t\r");
        if (first == std::string_view::npos || line[first] == '#')
            continue;
        Result<Rule> rule = parse_rule(line, hook);
        if (!rule)
            return std::move(rule).error().within(fmt::format("{}:{}", source, number));
        rules.push_back(std::move(rule).value());
    }
    return rules;
}

} // namespace netctl
