// SPDX-License-Identifier: GPL-2.0-only
//
// First pass of the parser: which words of a rule belong to which key, action or modifier.
#include "core/rule_parser.hpp"

#include <algorithm>
#include <charconv>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "core/lines.hpp"
#include "core/suggest.hpp"

namespace netctl {

namespace {

/// Rates and bursts beyond this are mistakes, and within it no sum of nanoseconds overflows.
constexpr std::uint64_t max_limit_count = 1'000'000'000;
constexpr std::uint64_t max_burst_ns = 100ull * 365 * 86400 * 1'000'000'000;
constexpr std::uint64_t max_rate = 10'000'000'000'000;
constexpr std::uint64_t max_rate_burst = 0xffffffff;
constexpr std::uint64_t max_limit_bytes = 1U << 30; // of a burst
constexpr std::size_t max_targets = 16;             // NC_RD_TO_TARGETS
constexpr std::uint64_t max_weight = 100;
constexpr std::uint64_t max_every_s = 3600;
constexpr std::size_t max_http_path = 100;

/// Words of other tools, and what they are called here.
struct Synonym {
    std::string_view word;
    std::string_view packets;     ///< in xdp and tc
    std::string_view connections; ///< in the others
};
constexpr Synonym synonyms[] = {
    {"accept", "pass", "allow"}, {"permit", "pass", "allow"},   {"allow", "pass", "allow"},
    {"pass", "pass", "allow"},   {"ok", "pass", "allow"},       {"deny", "drop", "deny"},
    {"drop", "drop", "deny"},    {"reject", "reject", "deny"},  {"block", "drop", "deny"},
    {"discard", "drop", "deny"}, {"saddr", "src", ""},          {"daddr", "dst", "dst"},
    {"source", "src", ""},       {"destination", "dst", "dst"}, {"from", "src", ""},
    {"to", "dst", "dst"},        {"port", "dport", "dport"},    {"protocol", "proto", "proto"},
    {"tcp-flags", "flags", ""},  {"user", "", "uid"},           {"group", "", "gid"},
    {"fragment", "frag", ""},    {"length", "len", ""},         {"ethertype", "ether-type", ""},
};

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

/// `a,b` is a and b; empty ones count.
std::vector<std::string_view> split_at_commas(std::string_view text) {
    std::vector<std::string_view> parts;
    for (;;) {
        const std::size_t comma = std::min(text.find(','), text.size());
        parts.push_back(text.substr(0, comma));
        if (comma == text.size())
            return parts;
        text.remove_prefix(comma + 1);
    }
}

class Parser {
  public:
    enum class For { rules, keys };
    Parser(std::string_view text, Hook hook, std::vector<std::string>* notes, For what = For::rules)
        : source_{text, hook}, hook_(hook), notes_(notes), what_(what) {}

    Result<Rule> run() {
        source_.tokens = NETCTL_TRY(lex_rule(source_.text));
        const Result<> structure = read_structure();
        // A value is always left of the place where the structure broke: it is told first.
        NETCTL_TRY(read_values(source_, clauses_, structure.has_value(), rule_));
        if (!structure)
            return structure.error();
        NETCTL_TRY(check_fields(source_, clauses_, rule_));
        if (hook_ == Hook::to)
            NETCTL_TRY(check_target());
        if (rule_.limit && rule_.limit->over_syncookie)
            NETCTL_TRY(check_over_syncookie());
        if (notes_ != nullptr)
            add_notes();
        return std::move(rule_);
    }

  private:
    const Token& peek() const { return source_.tokens[next_]; }
    const Token& take() {
        return source_.tokens[next_ + 1 < source_.tokens.size() ? next_++ : next_];
    }
    bool accept(std::string_view word) {
        if (!peek().is(word))
            return false;
        take();
        return true;
    }

    Text allowed_words() const {
        Text words = Text::format("keys of {}: {}\nactions of {}: {}", to_string(hook_),
                                  fmt::join(key_names(hook_), " "), to_string(hook_),
                                  fmt::join(action_names(hook_), " "));
        words += Text::format("\nmodifiers:");
        for (const ModifierInfo& modifier : rule_modifiers())
            if (modifier.in(hook_))
                words += Text::format(" {}", modifier.name);
        return words;
    }
    Text allowed_actions() const {
        return Text::format("actions of {}: {}", to_string(hook_),
                            fmt::join(action_names(hook_), " "));
    }

    // ---- first pass ----

    Result<> read_structure() {
        clauses_.reserve(8);
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
                if (actions_begun() || find_clause(clauses_, key->key) != nullptr)
                    key = nullptr;
                else
                    action = nullptr;
            }
            if (token.text == "then")
                NETCTL_TRY(read_then(token));
            else if (token.text == "set" && sets_something())
                NETCTL_TRY(read_set(token));
            else if (const ModifierInfo* modifier = find_modifier(token.text);
                     modifier != nullptr && modifier->in(hook_))
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

    bool sets_something() const {
        return std::any_of(rule_actions().begin(), rule_actions().end(),
                           [this](const ActionInfo& a) { return a.set && a.in(hook_); });
    }

    /// `set mark 7`: what is set can be nothing but an action.
    Result<> read_set(const Token& set) {
        const Token& word = take();
        const ActionInfo* action = word.kind == TokenKind::word ? find_action(word.text) : nullptr;
        if (action == nullptr || !action->set || !action->in(hook_)) {
            std::vector<std::string> names;
            for (const ActionInfo& about : rule_actions())
                if (about.set && about.in(hook_))
                    names.emplace_back(about.name);
            return source_.error_at(word.place,
                                    fmt::format("'set' is followed by {}{}", source_.shown(word),
                                                did_you_mean(word.text, names)),
                                    fmt::format("allowed: set {}", fmt::join(names, "|")));
        }
        return read_action(*action,
                           {TokenKind::word, word.text, {set.place.begin, word.place.end}});
    }

    /// What is right, and may not be what was meant.
    void add_notes() {
        const bool sets = std::any_of(rule_.actions.begin(), rule_.actions.end(),
                                      [](const Action& a) { return info(a.kind).set; });
        for (const Clause& clause : clauses_) {
            const ActionInfo* action = find_action(clause.key->name);
            if (action != nullptr && action->set && action->in(hook_) && !then_ && !sets)
                notes_->push_back(fmt::format(
                    "'{0}' is a condition here: it matches packets that have it; to set it write "
                    "'set {0}'",
                    source_.slice(clause.place)));
        }
        const Match* proto = rule_.find(Key::proto);
        const Families families = possible_families(rule_);
        const bool addresses = rule_.find(Key::src) != nullptr || rule_.find(Key::dst) != nullptr;
        if (proto == nullptr || proto->negated || !addresses || proto->ranges.size() != 1)
            return;
        const Range only = proto->ranges.front();
        if (only == Range{protocol_icmp, protocol_icmp} && !families.ipv4)
            notes_->emplace_back("'icmp' is of IPv4 and the addresses are of IPv6: its ICMP is "
                                 "'proto icmp6'");
        if (only == Range{protocol_icmp6, protocol_icmp6} && !families.ipv6)
            notes_->emplace_back("'icmp6' is of IPv6 and the addresses are of IPv4: its ICMP is "
                                 "'proto icmp'");
    }

    bool actions_begun() const { return then_.has_value() || !rule_.actions.empty(); }

    /// A token in the place of a key or an action that is neither.
    Error misplaced(const Token& token) const {
        const std::string& word = token.text;
        std::string hint;
        if (token.kind == TokenKind::open || token.kind == TokenKind::close ||
            token.kind == TokenKind::quoted)
            return source_.error_at(token.place,
                                    fmt::format("{} stands where a key or an action is expected",
                                                token.kind == TokenKind::quoted
                                                    ? "a quoted text"
                                                    : source_.shown(token)),
                                    allowed_words());
        if (word == "not" || word == "!")
            return source_.error_at(
                token.place, "'not' stands where a key or an action is expected", allowed_words(),
                "'not' goes between a key and its value: src not 192.0.2.1");
        const KeyInfo* key = find_key(word);
        const ActionInfo* action = find_action(word);
        const ModifierInfo* modifier = find_modifier(word);
        if (key != nullptr || action != nullptr || modifier != nullptr) {
            const std::uint8_t hooks = (key != nullptr ? key->hooks : 0) |
                                       (action != nullptr ? action->hooks : 0) |
                                       (modifier != nullptr ? modifier->hooks : 0);
            std::vector<std::string_view> others;
            for (const Hook other : all_hooks)
                if ((hooks & static_cast<std::uint8_t>(other)) != 0)
                    others.push_back(to_string(other));
            return source_.error_at(
                token.place,
                fmt::format("{} has no {} '{}'; only {} {} it", to_string(hook_),
                            key != nullptr      ? "key"
                            : action != nullptr ? "action"
                                                : "modifier",
                            word, listed(others), others.size() == 1 ? "has" : "have"),
                key == nullptr ? allowed_actions() : allowed_words(), synonym_hint(word));
        }
        hint = synonym_hint(word);
        if (hint.empty())
            hint = foreign_hint(word);
        if (hint.empty() && !clauses_.empty() && looks_like_value(word))
            hint = fmt::format("several values are written as a list: {} {{A, B}}; a shell expands "
                               "{{A,B}} unless it is quoted or has blanks",
                               clauses_.back().key->name);
        std::vector<std::string> words = rule_words(hook_);
        return source_.error_at(token.place,
                                fmt::format("{} is neither a key nor an action of {}{}",
                                            source_.shown(token), to_string(hook_),
                                            hint.empty() ? did_you_mean(word, words) : ""),
                                allowed_words(), hint);
    }

    static std::string listed(const std::vector<std::string_view>& names) {
        if (names.size() < 3)
            return fmt::format("{}", fmt::join(names, " and "));
        return fmt::format("{} and {}", fmt::join(names.begin(), names.end() - 1, ", "),
                           names.back());
    }

    std::string synonym_hint(std::string_view word) const {
        for (const Synonym& synonym : synonyms) {
            const std::string_view ours =
                is_of_packets(hook_) ? synonym.packets : synonym.connections;
            const KeyInfo* key = find_key(ours);
            const ActionInfo* action = find_action(ours);
            const bool is_there =
                (key != nullptr && key->in(hook_)) || (action != nullptr && action->in(hook_));
            if (synonym.word == word && is_there && ours != word)
                return fmt::format("{} calls it '{}'", to_string(hook_), ours);
        }
        return {};
    }

    /// What to write instead of a word of nft or iptables.
    std::string foreign_hint(std::string_view word) const {
        const std::string next = peek().kind == TokenKind::word ? peek().text : std::string();
        constexpr std::string_view none;
        const auto is_key = [this](std::string_view name) {
            const KeyInfo* key = find_key(name);
            return key != nullptr && key->in(hook_);
        };
        if (word == "ip" || word == "ip6")
            return next == "saddr" || next == "daddr"
                       ? fmt::format("'{} {}' is '{}': addresses tell their IP version", word, next,
                                     next == "saddr" && is_key("src") ? "src" : "dst")
                       : "leave it out: addresses tell their IP version, and 'ether-type' that of "
                         "rules without addresses";
        if (find_named(info(Key::proto).names, word) != nullptr && is_key("proto"))
            return fmt::format("the protocol is a key of its own: proto {}{}", word,
                               is_key(next) ? fmt::format(" {} …", next) : "");
        if (word == "state" || word == "ctstate" || word == "-m" || (word == "ct" && !is_key("ct")))
            return is_key("socket")
                       ? "what this host has a connection or a listener for is 'socket "
                         "established' and 'socket listening'; the first packet of a "
                         "TCP connection is 'flags syn/syn,ack'; what connection tracking knows is "
                         "'ct established'"
                       : "these rules ask before there is a connection";
        if (word == "with" && final_action() != nullptr &&
            final_action()->kind == ActionKind::reject)
            return "leave it out: the protocol tells the answer, a reset for TCP and port "
                   "unreachable for all else";
        constexpr std::pair<std::string_view, std::string_view> options[] = {
            {"-s", "src"},
            {"--source", "src"},
            {"-d", "dst"},
            {"--destination", "dst"},
            {"-p", "proto"},
            {"--protocol", "proto"},
            {"--dport", "dport"},
            {"--sport", "sport"},
            {"--dports", "dport"},
            {"--sports", "sport"},
            {"--icmp-type", "icmp-type"},
            {"--tcp-flags", "flags"},
            {"--mark", "mark"},
            {"-j", none},
            {"-i", none},
            {"-o", none},
        };
        for (const auto& [option, key] : options) {
            if (word != option)
                continue;
            if (option == "-j")
                return "an action stands alone, without '-j'";
            if (key.empty())
                return "rules belong to the interface that they are added to";
            if (is_key(key))
                return fmt::format("{} calls it '{}'", to_string(hook_), key);
        }
        return {};
    }

    static bool looks_like_value(std::string_view word) {
        return word.starts_with('@') || (word.front() >= '0' && word.front() <= '9') ||
               Prefix::parse(word).has_value();
    }

    Result<> read_then(const Token& token) {
        if (then_)
            return source_.error_at(token.place, "'then' is given twice");
        if (!rule_.actions.empty())
            return source_.error_at(token.place, "'then' comes before the first action");
        then_ = token.place;
        return {};
    }

    Result<> read_clause(const KeyInfo& key, const Token& word) {
        if (find_clause(clauses_, key.key) != nullptr)
            return source_.error_at(
                word.place, fmt::format("'{}' is given twice", key.name), {},
                key.takes_list()
                    ? fmt::format("several values are written as a list: {} {{A, B}}", key.name)
                    : "");
        if (then_)
            return source_.error_at(word.place, fmt::format("the key '{}' behind 'then'", key.name),
                                    "allowed behind 'then': actions and modifiers");
        Clause clause;
        clause.key = &key;
        const Place negation = peek().place;
        clause.negated = accept("not");
        if (clause.negated && !takes_sets(hook_))
            return source_.error_at(negation,
                                    fmt::format("rules of {} have no 'not'", to_string(hook_)),
                                    allowed(key, hook_),
                                    "the first rule that matches decides: write one for what is "
                                    "meant otherwise before it");
        if (peek().kind == TokenKind::word && peek().text.starts_with('!'))
            return source_.error_at(
                peek().place,
                fmt::format("'{}' needs a value, but here is {}", key.name, source_.shown(peek())),
                allowed(key, hook_), fmt::format("write: {} not VALUE", key.name));
        clause.value.begin = peek().place.begin;
        if (peek().kind == TokenKind::open) {
            const Place brace = take().place;
            clause.braced = true;
            clause.first = next_;
            while (peek().is_value())
                take();
            clause.last = next_;
            if (peek().kind == TokenKind::open)
                return source_.error_at(peek().place, "a list within a list", allowed(key, hook_));
            if (peek().kind == TokenKind::end)
                return source_.error_at(brace, "this list is not closed",
                                        "allowed: values parted by commas or blanks, and then '}'");
            clause.value.end = take().place.end;
            if (clause.first == clause.last)
                return source_.error_at({brace.begin, clause.value.end},
                                        "an empty list matches nothing", allowed(key, hook_));
            if (!key.takes_list())
                return source_.error_at({brace.begin, clause.value.end},
                                        fmt::format("'{}' takes no list", key.name),
                                        allowed(key, hook_), "write one rule for each value");
        } else if (peek().is_value()) {
            clause.first = next_;
            clause.value.end = take().place.end;
            clause.last = next_;
        } else {
            return source_.error_at(
                peek().place,
                fmt::format("'{}' needs a value, but here is {}", key.name, source_.shown(peek())),
                allowed(key, hook_));
        }
        clause.place = {word.place.begin, clause.value.end};
        clauses_.push_back(clause);
        return {};
    }

    Result<> read_action(const ActionInfo& about, const Token& word) {
        if (const Action* final = final_action()) {
            const std::string_view end = info(final->kind).name;
            return source_.error_at(
                word.place,
                fmt::format("'{}' behind '{}', which ends the actions", about.name, end), {},
                about.final ? "a rule has one final action"
                : find_key(about.name) == nullptr
                    ? fmt::format("write it before '{}'", end)
                    : fmt::format("to set it write 'set {1} …' before '{0}', to match it write it "
                                  "before 'then {0}'",
                                  end, about.name));
        }
        for (const Action& action : rule_.actions)
            if (action.kind == about.kind)
                return source_.error_at(word.place,
                                        fmt::format("the action '{}' is given twice", about.name));
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
            const Masked mark = NETCTL_TRY(read_mark(source_, token, argument_allowed(about)));
            action.number = mark.value;
            action.mask = mark.mask;
            break;
        }
        case ActionKind::priority: action.number = NETCTL_TRY(read_priority(about)); break;
        case ActionKind::dscp: {
            const Token token = NETCTL_TRY(read_argument(about));
            const auto number = whole_number(token.text);
            const NamedRange* named = find_named(info(Key::dscp).names, token.text);
            if (named == nullptr && (!number || *number > info(Key::dscp).max))
                return source_.error_at(
                    token.place,
                    fmt::format("{} is no DSCP{}", source_.shown(token),
                                did_you_mean(token.text, value_words(Key::dscp))),
                    argument_allowed(about));
            action.number = named != nullptr ? named->low : *number;
            break;
        }
        case ActionKind::rate: NETCTL_TRY(read_rate(about, action)); break;
        case ActionKind::target: NETCTL_TRY(read_target(about, action)); break;
        default: break;
        }
        rule_.actions.push_back(std::move(action));
        return {};
    }

    /// The limit is to be one of SYNs: what else is over it would be dropped, packets of connections too.
    Result<> check_over_syncookie() const {
        constexpr std::uint32_t syn = 2;
        if (rule_.actions.back().kind == ActionKind::syncookie)
            return source_.error_at(limit_place_,
                                    "'over syncookie' on a rule that ends in 'syncookie'", {},
                                    "write pass for what is within the rate");
        const Match* flags = rule_.find(Key::flags);
        if (flags == nullptr || flags->negated || !flags->masked ||
            (flags->masked->value & syn) == 0)
            return source_.error_at(limit_place_, "'over syncookie' on a rule that is not of SYNs",
                                    {}, "write flags syn/syn,ack before it");
        return {};
    }

    /// Whether what the rule is about can go to the target, and what goes there stays there.
    Result<> check_target() const {
        const std::vector<Target>& targets = rule_.actions.back().targets;
        const Match* dst = rule_.find(Key::dst);
        if (dst == nullptr)
            return source_.error_at({0, source_.text.size()},
                                    "'dst' is missing: which address the target stands for",
                                    allowed(info(Key::dst), hook_));
        if (const Match* proto = rule_.find(Key::proto))
            for (const Range& range : proto->ranges)
                if (range.low != range.high ||
                    (range.low != protocol_tcp && range.low != protocol_udp))
                    return source_.error_at(
                        find_clause(clauses_, Key::proto)->value,
                        "only tcp and udp can be sent elsewhere",
                        "allowed for proto: tcp, udp, or both by leaving it out");
        const Match* dport = rule_.find(Key::dport);
        bool inside = false;
        for (const Prefix& prefix : dst->prefixes) {
            for (const Target& target : targets) {
                if (prefix.address.family != target.address.family)
                    return source_.error_at(
                        target_place_,
                        fmt::format("dst {} and target {} are of different families",
                                    prefix.to_string(), target.address.to_string()),
                        {}, "a socket of one family cannot connect to an address of the other");
                inside = inside || (prefix.contains(target.address) &&
                                    (dport == nullptr || holds(*dport, target.port)));
            }
        }
        if (inside)
            return source_.error_at(target_place_,
                                    "the target is itself a destination that the rule rewrites", {},
                                    "narrow dst or dport, so that connections to the target stay");
        return {};
    }

    const Action* final_action() const {
        return !rule_.actions.empty() && info(rule_.actions.back().kind).final
                   ? &rule_.actions.back()
                   : nullptr;
    }

    std::string argument_allowed(const ActionInfo& action) const {
        return fmt::format("allowed: {} {}", action.spelling(), argument(action, hook_));
    }

    Result<Token> read_argument(const ActionInfo& action) {
        if (!peek().is_value())
            return source_.error_at(peek().place,
                                    fmt::format("'{}' needs an argument, but here is {}",
                                                action.name, source_.shown(peek())),
                                    argument_allowed(action));
        return take();
    }

    Result<std::string> read_device(const ActionInfo& action) {
        const Token token = NETCTL_TRY(read_argument(action));
        const std::string& name = token.text;
        // What the kernel's dev_valid_name() takes; control characters never come this far.
        if (name.empty() || name.size() > max_device_name || name == "." || name == ".." ||
            name.find_first_of("/: ") != std::string::npos)
            return source_.error_at(
                token.place, fmt::format("{} cannot be an interface", source_.shown(token)),
                fmt::format("allowed: a name of 1 to {} characters without '/', ':' "
                            "and blanks",
                            max_device_name));
        return name;
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
        return source_.error_at(token.place, fmt::format("{} is no priority", source_.shown(token)),
                                argument_allowed(action) + "; MAJOR and MINOR are hexadecimal");
    }

    Result<Target> parse_one_target(const ActionInfo& about, const Token& token,
                                    std::string_view word) {
        const std::size_t colon = std::min(word.rfind(':'), word.size());
        std::string_view address = word.substr(0, colon);
        const bool bracketed = address.starts_with('[') && address.ends_with(']');
        if (bracketed)
            address = address.substr(1, address.size() - 2);
        const Result<Address> parsed = Address::parse(address);
        const auto port = whole_number(word.substr(std::min(colon + 1, word.size())));
        if (!parsed || (parsed->family == Family::ipv6) != bracketed || !port || *port == 0 ||
            *port > 65535)
            return source_.error_at(token.place,
                                    fmt::format("'{}' is no address with a port", word),
                                    argument_allowed(about), "as in 127.0.0.1:8080 or [::1]:8080");
        return Target{*parsed, static_cast<std::uint16_t>(*port)};
    }

    Result<> read_target(const ActionInfo& about, Action& action) {
        const Token token = NETCTL_TRY(read_argument(about));
        target_place_ = token.place;
        for (const std::string_view word : split_at_commas(token.text)) {
            Target target = NETCTL_TRY(parse_one_target(about, token, word));
            if (std::find(action.targets.begin(), action.targets.end(), target) !=
                action.targets.end())
                return source_.error_at(token.place, fmt::format("target {} is given twice", word),
                                        {}, "'weight' tells how often each is chosen");
            action.targets.push_back(target);
        }
        if (action.targets.size() > max_targets)
            return source_.error_at(token.place,
                                    fmt::format("{} targets are too many", action.targets.size()),
                                    fmt::format("allowed: 1 to {}", max_targets));
        if (accept("weight"))
            NETCTL_TRY(read_weights(about, action));
        if (accept("by")) {
            const Token source = peek();
            if (!accept("source"))
                return source_.error_at(
                    source.place,
                    fmt::format("targets are not chosen by {}", source_.shown(source)),
                    "allowed: by source; without it they come in turn");
            action.by_source = true;
        }
        if (accept("health"))
            NETCTL_TRY(read_health(action.health.emplace()));
        else if (const Token fail = peek(); accept("fail"))
            return source_.error_at(fail.place, "'fail' needs 'health' before it",
                                    "allowed: health tcp|http PATH [every TIME] [fail open|refuse]",
                                    "without it no target is known to be down");
        return {};
    }

    Result<> read_health(Health& health) {
        const Token how = peek();
        if (accept("http")) {
            const Token path = peek();
            const auto printed = [](char c) { return c > ' ' && c <= '~'; };
            if (!path.is_value() || !path.text.starts_with('/') ||
                path.text.size() > max_http_path ||
                !std::all_of(path.text.begin(), path.text.end(), printed))
                return source_.error_at(
                    path.place, fmt::format("{} is no path to ask for", source_.shown(path)),
                    fmt::format("allowed: up to {} characters of ASCII without blanks, from '/' "
                                "on: /healthz",
                                max_http_path));
            health.path = take().text;
        } else if (!accept("tcp")) {
            return source_.error_at(
                how.place, fmt::format("targets are not asked by {}", source_.shown(how)),
                "allowed: health tcp, or health http PATH as in health http /healthz");
        }
        if (accept("every")) {
            const Token time = peek();
            const auto seconds = time.is_value() ? number_with_unit(time.text, ttl_units())
                                                 : std::optional<std::uint64_t>();
            if (!seconds || *seconds == 0 || *seconds > max_every_s)
                return source_.error_at(
                    time.place, fmt::format("{} is no time between questions", source_.shown(time)),
                    "allowed: a whole number with s, m or h, 1s to 1h: every 2s");
            take();
            health.every_s = static_cast<std::uint32_t>(*seconds);
        }
        if (accept("fail")) {
            const Token what = peek();
            health.open = accept("open");
            if (!health.open && !accept("refuse"))
                return source_.error_at(
                    what.place, fmt::format("'fail' does not know {}", source_.shown(what)),
                    "allowed: fail refuse (as without), or fail open: with all targets down a "
                    "connection goes to the address that it asked for");
        }
        return {};
    }

    /// One for each target, in their order.
    Result<> read_weights(const ActionInfo& about, Action& action) {
        const Token token = NETCTL_TRY(read_argument(about));
        const std::vector<std::string_view> words = split_at_commas(token.text);
        for (std::size_t i = 0; i < words.size(); i++) {
            const auto weight = whole_number(words[i]);
            if (words.size() != action.targets.size() || !weight || *weight == 0 ||
                *weight > max_weight)
                return source_.error_at(
                    token.place, fmt::format("{} are no weights", source_.shown(token)),
                    fmt::format("allowed: for each target a number of 1 to {}: 3,1", max_weight));
            action.targets[i].weight = static_cast<std::uint16_t>(*weight);
        }
        return {};
    }

    Result<> read_rate(const ActionInfo& about, Action& action) {
        const Token rate = NETCTL_TRY(read_argument(about));
        const auto bits = number_with_unit(rate.text, rate_units());
        if (!bits || *bits < 8 || *bits > max_rate)
            return source_.error_at(
                rate.place, fmt::format("{} is no rate", source_.shown(rate)),
                "allowed: a whole number with bit, kbit, mbit, gbit or tbit (powers of "
                "1000), 8bit to 10tbit: 100mbit");
        action.number = *bits;
        if (!accept("burst"))
            return {};
        const Token burst = NETCTL_TRY(read_argument(about));
        const auto bytes = number_with_unit(burst.text, size_units());
        if (!bytes || *bytes == 0 || *bytes > max_rate_burst)
            return source_.error_at(burst.place,
                                    fmt::format("{} is no size of a burst", source_.shown(burst)),
                                    "allowed: bytes, or with k (1024) or m (1048576): 64k");
        action.burst = *bytes;
        return {};
    }

    Result<> read_modifier(const ModifierInfo& modifier, const Token& word) {
        const bool twice = (modifier.modifier == Modifier::limit && rule_.limit) ||
                           (modifier.modifier == Modifier::log && rule_.log) ||
                           (modifier.modifier == Modifier::comment && has_comment_);
        if (twice)
            return source_.error_at(word.place, fmt::format("'{}' is given twice", modifier.name));
        switch (modifier.modifier) {
        case Modifier::log: rule_.log = true; return {};
        case Modifier::comment: return read_comment();
        case Modifier::limit: return read_limit(modifier, word);
        }
        return {};
    }

    Result<> read_comment() {
        if (!peek().is_value())
            return source_.error_at(
                peek().place,
                fmt::format("'comment' needs a text, but here is {}", source_.shown(peek())),
                "allowed: a word, or a text in double quotes");
        const Token& token = take();
        if (token.text.size() > max_comment_bytes)
            return source_.error_at(token.place,
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
            return source_.error_at(
                peek().place,
                fmt::format("'limit' needs a rate, but here is {}", source_.shown(peek())),
                allowed_text);
        const Token& token = take();
        const std::string_view rate = token.text;
        const std::size_t slash = rate.find('/');
        if (const auto bits = slash == std::string_view::npos && !whole_number(rate)
                                  ? number_with_unit(rate, rate_units())
                                  : std::nullopt)
            return read_bits_limit(token, *bits, word);
        const auto count = whole_number(rate.substr(0, slash));
        const NamedRange* unit = slash == std::string_view::npos
                                     ? nullptr
                                     : find_named(limit_units(), rate.substr(slash + 1));
        if (!count || unit == nullptr)
            return source_.error_at(token.place,
                                    fmt::format("{} is no rate of packets", source_.shown(token)),
                                    allowed_text);
        if (*count == 0 || *count > max_limit_count)
            return source_.error_at(token.place, fmt::format("a rate of {}", *count),
                                    fmt::format("allowed: 1 to {}", max_limit_count),
                                    *count == 0
                                        ? fmt::format("to let nothing through, write '{}'",
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
                    return source_.error_at(burst.place,
                                            fmt::format("{} is no burst", source_.shown(burst)),
                                            fmt::format("allowed: 1 to {}", max_limit_count));
                if (*number > max_burst_ns / limit.period_ns * limit.count)
                    return source_.error_at(
                        burst.place, "at this rate the burst would take more than 100 years");
                limit.burst = *number;
            } else if (!NETCTL_TRY(read_accounting(limit))) {
                break;
            }
        }
        if (!has_burst)
            limit.burst = default_burst(limit);
        rule_.limit = limit;
        limit_place_ = {word.place.begin, source_.tokens[next_ - 1].place.end};
        return {};
    }

    /// `limit RATE [burst SIZE] [per …]`, behind the rate.
    Result<> read_bits_limit(const Token& rate, std::uint64_t bits, const Token& word) {
        if (hook_ == Hook::policy)
            return source_.error_at(rate.place, "policy limits connections, which have no size",
                                    "allowed: limit N/s|min|hour|day [burst N]");
        if (bits < 64 || bits > max_rate)
            return source_.error_at(rate.place, fmt::format("{} is no rate", source_.shown(rate)),
                                    "allowed: 64bit to 10tbit");
        Limit limit;
        limit.bits = true;
        limit.count = bits;
        limit.period_ns = 1'000'000'000;
        for (;;) {
            if (limit.burst == 0 && accept("burst")) {
                const Token& burst = take();
                const auto bytes =
                    burst.is_value() ? number_with_unit(burst.text, size_units()) : std::nullopt;
                if (!bytes || *bytes == 0 || *bytes > max_limit_bytes)
                    return source_.error_at(
                        burst.place, fmt::format("{} is no size of a burst", source_.shown(burst)),
                        "allowed: bytes, or with k (1024) or m (1048576): 64k");
                limit.burst = *bytes;
            } else if (!NETCTL_TRY(read_accounting(limit))) {
                break;
            }
        }
        // A quarter of a second, and two of the largest packets that the stack handles as one.
        if (limit.burst == 0)
            limit.burst = std::max<std::uint64_t>(128 << 10, bits / 8 / 4);
        rule_.limit = limit;
        limit_place_ = {word.place.begin, source_.tokens[next_ - 1].place.end};
        return {};
    }

    /// What a limit of packets and one of bits may both go on with; false if it does not.
    Result<bool> read_accounting(Limit& limit) {
        if (limit.per.of == Accounts::Of::rule && peek().is("per")) {
            limit.per = NETCTL_TRY(read_accounts());
            return true;
        }
        if (!peek().is("over"))
            return false;
        const Place over = take().place;
        if (hook_ == Hook::policy)
            return source_.error_at(over, "policy has no limit with 'over'",
                                    "allowed: limit N/s|min|hour|day [burst N]");
        const Token what = peek();
        const bool cookie = what.is("syncookie");
        if (!cookie && !what.is("add"))
            return source_.error_at(what.place,
                                    fmt::format("'over' is followed by 'add'{}, but here is {}",
                                                hook_ == Hook::xdp ? " or 'syncookie'" : "",
                                                source_.shown(what)),
                                    over_allowed());
        if (cookie ? limit.over_syncookie : limit.over.has_value())
            return source_.error_at({over.begin, what.place.end},
                                    fmt::format("'over {}' is given twice", what.text));
        if (cookie && hook_ != Hook::xdp)
            return source_.error_at(
                what.place,
                fmt::format("{} has no 'over syncookie'; only xdp has it", to_string(hook_)),
                over_allowed());
        take();
        if (cookie)
            limit.over_syncookie = true;
        else
            limit.over = NETCTL_TRY(read_over_add(limit, over));
        return true;
    }

    std::string_view over_allowed() const {
        return hook_ == Hook::xdp ? "allowed: over add @SET ttl TIME, as in over add @banned ttl "
                                    "10m; over syncookie"
                                  : "allowed: over add @SET ttl TIME, as in over add @banned ttl "
                                    "10m";
    }

    /// `@SET ttl TIME`, behind `over add`
    Result<OverAdd> read_over_add(const Limit& limit, const Place& over) {
        const auto wrong = [&](const Token& token, const std::string& what) {
            return source_.error_at(token.place,
                                    fmt::format("{}, but here is {}", what, source_.shown(token)),
                                    over_allowed());
        };
        if (limit.per.of == Accounts::Of::rule)
            return source_.error_at(over, "'over add' without an account that is over the limit",
                                    "allowed: per src or per dst before it, whose address goes "
                                    "into the set");
        const Token set = peek();
        if (!set.is_value() || !set.text.starts_with('@'))
            return wrong(set, "'over add' needs a set");
        next_++;
        OverAdd add;
        add.set = NETCTL_TRY(read_set_name(source_, set));
        if (!accept("ttl"))
            return wrong(peek(), "the time to live in the set is missing");
        const Token time = peek();
        const auto seconds = time.is_value() && time.text != "0"
                                 ? number_with_unit(time.text, ttl_units())
                                 : whole_number(time.text);
        if (!time.is_value() || !seconds || *seconds > max_ttl ||
            (*seconds == 0 && time.text != "0"))
            return source_.error_at(time.place,
                                    fmt::format("{} is no time to live", source_.shown(time)),
                                    "allowed: a whole number with s, m, h or d, up to a hundred "
                                    "years: 10m; 0 is for ever");
        next_++;
        add.ttl = static_cast<std::uint32_t>(*seconds);
        return add;
    }

    /// `per src[/LEN]|dst[/LEN][,dport]`
    Result<Accounts> read_accounts() {
        const Place per = take().place;
        const Token token = peek().is_value() ? take() : peek();
        const auto wrong = [&](const std::string& what) {
            return source_.error_at(token.place, what,
                                    "allowed: per src or dst; /LEN behind it, of IPv4 up to 32, of "
                                    "IPv6 above it, or of both "
                                    "as in src/24/64; ,dport behind that");
        };
        std::string_view text = token.text;
        Accounts accounts;
        if (text.ends_with(",dport")) {
            accounts.dport = true;
            text.remove_suffix(6);
        }
        const std::size_t slash = std::min(text.find('/'), text.size());
        const std::string_view side = text.substr(0, slash);
        if (!token.is_value() || (side != "src" && side != "dst"))
            return wrong(fmt::format("'per' is followed by {}", source_.shown(token)));
        if (hook_ == Hook::policy)
            return source_.error_at({per.begin, token.place.end},
                                    fmt::format("policy has no limit 'per {}'", side),
                                    "allowed: limit N/s|min|hour|day [burst N]");
        accounts.of = side == "src" ? Accounts::Of::src : Accounts::Of::dst;
        if (slash == text.size())
            return accounts;
        const std::string_view lengths = text.substr(slash + 1);
        const std::size_t second = std::min(lengths.find('/'), lengths.size());
        const bool both = second < lengths.size();
        const auto first_length = whole_number(lengths.substr(0, second));
        const auto second_length = both ? whole_number(lengths.substr(second + 1)) : 128;
        const std::uint64_t most = both ? 32 : 128;
        if (!first_length || *first_length == 0 || *first_length > most || !second_length ||
            *second_length == 0 || *second_length > 128)
            return wrong(fmt::format("{} has no prefix lengths", source_.shown(token)));
        if (both || *first_length <= 32)
            accounts.ipv4_bits = static_cast<std::uint8_t>(*first_length);
        else
            accounts.ipv6_bits = static_cast<std::uint8_t>(*first_length);
        if (both)
            accounts.ipv6_bits = static_cast<std::uint8_t>(*second_length);
        return accounts;
    }

    /// What the rate gives in a second, and at least 5: enough that traffic which keeps the rate
    /// on average is not punished for the shape of its bursts.
    static std::uint64_t default_burst(const Limit& limit) {
        constexpr std::uint64_t second = 1'000'000'000;
        return std::max<std::uint64_t>(5, limit.count / (limit.period_ns / second));
    }

    Result<> finish_actions() {
        if (what_ == For::keys && (!then_ || !rule_.actions.empty()))
            return {};
        if (rule_.actions.empty() && hook_ == Hook::redirect && !clauses_.empty())
            rule_.actions.emplace_back().kind = ActionKind::allow;
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
            return source_.error_at(
                limit_place_,
                fmt::format("'limit' on a rule that ends in '{}'", info(final.kind).name),
                fmt::format("a limit {} what exceeds it", policy ? "denies" : "drops"),
                fmt::format("to {} only what exceeds a rate write: {} {}", policy ? "deny" : "drop",
                            policy ? "allow" : "pass", source_.slice(limit_place_)));
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
        const Place end{source_.text.size(), source_.text.size()};
        if (then_)
            return source_.error_at(end, "an action is missing behind 'then'", allowed_actions());
        if (clauses_.empty() || !could_be_action(clauses_.back()))
            return source_.error_at(end, "the rule has no action", allowed_actions());
        const Clause clause = clauses_.back();
        clauses_.pop_back();
        if (!clauses_.empty() && could_be_action(clauses_.back()))
            return source_.error_at(
                {clauses_.back().place.begin, clause.place.end},
                fmt::format("'{}' may be a key or an action here", clauses_.back().key->name), {},
                fmt::format("write '{} set {}' to match and set, 'set {} set {}' to set both",
                            source_.slice(clauses_.back().place), source_.slice(clause.place),
                            source_.slice(clauses_.back().place), source_.slice(clause.place)));
        const std::size_t resume = next_;
        next_ = clause.first;
        const Token word{TokenKind::word, std::string(clause.key->name), clause.place};
        Result<> read = read_action(*find_action(clause.key->name), word);
        next_ = resume;
        return read;
    }

    RuleSource source_;
    Hook hook_;
    std::vector<std::string>* notes_; ///< may be null
    For what_;
    std::size_t next_ = 0;
    std::vector<Clause> clauses_;
    std::optional<Place> then_;
    Place limit_place_, target_place_;
    bool has_comment_ = false;
    Rule rule_;
};

} // namespace

std::string RuleSource::shown(const Token& token) const {
    if (token.kind == TokenKind::end)
        return "the end of the rule";
    const std::string written = shortened(slice(token.place));
    return token.kind == TokenKind::quoted ? written : fmt::format("'{}'", written);
}

const Clause* find_clause(std::span<const Clause> clauses, Key key) {
    const auto found = std::find_if(clauses.begin(), clauses.end(),
                                    [key](const Clause& clause) { return clause.key->key == key; });
    return found == clauses.end() ? nullptr : &*found;
}

Result<Rule> parse_rule(std::string_view text, Hook hook, std::vector<std::string>* notes) {
    return Parser(text, hook, notes).run();
}

Result<Rule> parse_filter(std::string_view text, Hook hook) {
    Rule rule = NETCTL_TRY(Parser(text, hook, nullptr, Parser::For::keys).run());
    Rule keys;
    keys.matches = std::move(rule.matches);
    return keys;
}

Result<std::vector<Rule>> parse_rules(std::string_view text, Hook hook, std::string_view source) {
    std::vector<Rule> rules;
    for (const auto& [number, line] : numbered_lines(text)) {
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
