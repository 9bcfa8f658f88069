// SPDX-License-Identifier: GPL-2.0-only
//
// Second pass of the parser: the values of a rule's keys.
#include <algorithm>
#include <charconv>
#include <grp.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pwd.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "core/rule_parser.hpp"
#include "core/rule_values.hpp"
#include "core/suggest.hpp"

namespace netctl {

namespace {

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

/// Ports that a service name stands for, by protocol (host byte order).
struct ServicePorts {
    std::optional<std::uint16_t> tcp, udp, sctp;
};

ServicePorts service_ports(const std::string& name) {
    const auto port = [&](const char* protocol) -> std::optional<std::uint16_t> {
        servent entry{};
        servent* found = nullptr;
        std::array<char, 4096> room{};
        if (getservbyname_r(name.c_str(), protocol, &entry, room.data(), room.size(), &found) !=
                0 ||
            found == nullptr)
            return std::nullopt;
        const auto network = static_cast<std::uint16_t>(entry.s_port);
        return static_cast<std::uint16_t>(network << 8 | network >> 8);
    };
    ServicePorts ports{port("tcp"), port("udp"), port("sctp")};
    if (!ports.tcp && !ports.udp && !ports.sctp)
        if (const NamedRange* known = find_named(common_services(), name))
            ports.tcp = ports.udp = static_cast<std::uint16_t>(known->low);
    return ports;
}

} // namespace

std::vector<Range> normalised(std::vector<Range> ranges) {
    if (ranges.size() <= 1)
        return ranges;
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

std::vector<Prefix> normalised(std::vector<Prefix> prefixes) {
    if (prefixes.size() <= 1)
        return prefixes;
    // By address and then by length: a prefix comes right behind those that hold it.
    std::sort(prefixes.begin(), prefixes.end());
    std::vector<Prefix> kept;
    for (const Prefix& prefix : prefixes)
        if (kept.empty() || !kept.back().contains(prefix.address))
            kept.push_back(prefix);
    return kept;
}

namespace {

class ValueReader {
  public:
    ValueReader(const RuleSource& source, bool structure_is_whole, Rule& rule)
        : source_(source), structure_is_whole_(structure_is_whole), rule_(rule) {}

    Result<> run(std::span<const Clause> clauses) {
        // In the order of the text, so that of several errors the first is shown; values that
        // depend on others come last.
        std::vector<const Clause*> order;
        order.reserve(clauses.size());
        rule_.matches.reserve(clauses.size());
        for (const Clause& clause : clauses)
            order.push_back(&clause);
        std::sort(order.begin(), order.end(), [](const Clause* a, const Clause* b) {
            return std::pair(depends(*a), a->place.begin) < std::pair(depends(*b), b->place.begin);
        });
        for (const Clause* clause : order) {
            Match match = NETCTL_TRY(read_value(*clause));
            const auto behind =
                std::find_if(rule_.matches.begin(), rule_.matches.end(),
                             [&](const Match& other) { return other.key > match.key; });
            rule_.matches.insert(behind, std::move(match));
        }
        return {};
    }

  private:
    static int depends(const Clause& clause) {
        switch (clause.key->key) {
        case Key::sport:
        case Key::dport:
        case Key::icmp_type: return 1;
        case Key::icmp_code: return 2;
        default: return 0;
        }
    }

    Result<Match> read_value(const Clause& clause) {
        const KeyInfo& key = *clause.key;
        Match match;
        match.key = key.key;
        match.negated = clause.negated;
        const Token& first = source_.tokens[clause.first];
        if (key.form == ValueForm::path) {
            match.path = NETCTL_TRY(read_path(key, first));
            return match;
        }
        if (key.form == ValueForm::mark) {
            match.masked = NETCTL_TRY(read_mark(source_, first, allowed(key, source_.hook)));
            return match;
        }
        if (key.form == ValueForm::flags) {
            match.masked = NETCTL_TRY(read_flags(key, first));
            return match;
        }
        for (std::size_t i = clause.first; i < clause.last; i++) {
            const Token& item = source_.tokens[i];
            if (item.is("not"))
                return clause.braced
                           ? source_.error_at(item.place, "'not' within a list",
                                              allowed(key, source_.hook),
                                              "'not' goes before the list and negates all of it")
                           : source_.error_at(item.place, "'not' is given twice",
                                              allowed(key, source_.hook));
            if (item.kind == TokenKind::word && item.text.starts_with('@')) {
                if (!takes_sets(source_.hook))
                    return source_.error_at(
                        item.place,
                        fmt::format("rules of {} look into no sets", to_string(source_.hook)),
                        allowed(key, source_.hook));
                if (!key.takes_set())
                    return source_.error_at(item.place, fmt::format("'{}' takes no set", key.name),
                                            allowed(key, source_.hook));
                if (clause.last - clause.first > 1)
                    return source_.error_at(item.place, "a set within a list",
                                            allowed(key, source_.hook),
                                            "write one rule for the set and one for the list");
                match.set = NETCTL_TRY(read_set_name(source_, item));
                return match;
            }
            if (key.form == ValueForm::vlan && item.is("none")) {
                if (clause.last - clause.first > 1)
                    return source_.error_at(item.place, "'none' within a list",
                                            allowed(key, source_.hook),
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
        return source_.error_at(
            clause.place, "this can never match: it excludes every value",
            allowed(*clause.key, source_.hook),
            clause.key->form == ValueForm::vlan ? "'vlan none' matches packets without a tag" : "");
    }

    Result<Prefix> read_prefix(const KeyInfo& key, const Token& item) const {
        Result<Prefix> prefix = Prefix::parse(item.text);
        if (!prefix) {
            Text hint = prefix.error().hint;
            if (item.text == "any" || item.text == "all")
                hint = fmt::format("leave '{}' out to match any", key.name);
            else if (item.text.find(',') != std::string::npos)
                hint = list_hint(key);
            return source_.error_at(
                item.place,
                item.text.size() <= INET6_ADDRSTRLEN
                    ? prefix.error().what
                    : Text::format("{} is not an IPv4 or IPv6 address", source_.shown(item)),
                allowed(key, source_.hook), hint);
        }
        static const Prefix mapped = *Prefix::parse("::ffff:0:0/96");
        if (!is_of_packets(source_.hook) && prefix->length >= mapped.length &&
            mapped.contains(prefix->address)) {
            Prefix ipv4{{Family::ipv4, {}}, static_cast<std::uint8_t>(prefix->length - 96)};
            std::copy_n(prefix->address.bytes.begin() + 12, 4, ipv4.address.bytes.begin());
            return source_.error_at(
                item.place,
                fmt::format("this can never match: {} sees IPv4-mapped addresses as IPv4",
                            to_string(source_.hook)),
                allowed(key, source_.hook), fmt::format("write {}", ipv4.to_string()));
        }
        if (source_.hook == Hook::policy && prefix->length == prefix->address.bits() &&
            prefix->address == Address{prefix->address.family, {}})
            return source_.error_at(
                item.place,
                fmt::format("this can never match: policy sees {} as what it leads to, this host",
                            prefix->address.to_string()),
                allowed(key, source_.hook),
                prefix->address.family == Family::ipv4 ? "write 127.0.0.1" : "write ::1");
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
            return source_.error_at(item.place,
                                    fmt::format("{} is not a value of '{}'{}", source_.shown(item),
                                                key.name, did_you_mean(word, value_words(key.key))),
                                    allowed(key, source_.hook),
                                    word.find(',') != std::string_view::npos ? list_hint(key)
                                    : is_colon_range(key, word)
                                        ? fmt::format("a range is written {}-{}",
                                                      word.substr(0, word.find(':')),
                                                      word.substr(word.find(':') + 1))
                                        : "");
        if (*low > key.max || *high > key.max)
            return source_.error_at(
                item.place,
                fmt::format("{} is too large for '{}'", *low > key.max ? *low : *high, key.name),
                allowed(key, source_.hook));
        if (*low > *high)
            return source_.error_at(item.place,
                                    fmt::format("the range {} runs backwards", source_.shown(item)),
                                    allowed(key, source_.hook),
                                    fmt::format("write {}-{}", shortened(word.substr(dash + 1)),
                                                shortened(word.substr(0, dash))));
        return Range{*low, *high};
    }

    /// `80:90`, as iptables has it.
    static bool is_colon_range(const KeyInfo& key, std::string_view word) {
        const std::size_t colon = word.find(':');
        return key.form != ValueForm::macs && colon != std::string_view::npos &&
               whole_number(word.substr(0, colon)) && whole_number(word.substr(colon + 1));
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
            return source_.error_at(item.place,
                                    fmt::format("there is no user {}", source_.shown(item)),
                                    allowed(key, source_.hook));
        case ValueForm::groups:
            if (const group* entry = getgrnam(name.c_str()))
                return number(entry->gr_gid);
            return source_.error_at(item.place,
                                    fmt::format("there is no group {}", source_.shown(item)),
                                    allowed(key, source_.hook));
        case ValueForm::icmp:
            return key.key == Key::icmp_type ? read_icmp_type(item) : read_icmp_code(item);
        default: return std::optional<Range>();
        }
    }

    Result<std::optional<std::uint16_t>> read_service(const Token& item) const {
        const ServicePorts known = service_ports(item.text);
        std::vector<std::uint16_t> ports;
        const auto add = [&](const std::optional<std::uint16_t>& port) {
            if (port && std::find(ports.begin(), ports.end(), *port) == ports.end())
                ports.push_back(*port);
        };
        if (leaves(rule_, protocol_tcp))
            add(known.tcp);
        if (leaves(rule_, protocol_udp))
            add(known.udp);
        if (leaves(rule_, protocol_sctp))
            add(known.sctp);
        if (ports.empty()) { // a name of other protocols only: still the port that is meant
            add(known.tcp);
            add(known.udp);
            add(known.sctp);
        }
        if (ports.size() > 1 && structure_is_whole_)
            return source_.error_at(item.place,
                                    fmt::format("{} is port {}, depending on the protocol",
                                                source_.shown(item), fmt::join(ports, " or ")),
                                    "allowed: the number, or the name together with one 'proto'");
        return ports.empty() ? std::nullopt : std::optional(ports.front());
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
        const auto range =
            NETCTL_TRY(choose_icmp(item, found, [](const IcmpCode& code) { return code.code; }));
        if (!range || !structure_is_whole_)
            return range;
        const auto chosen = std::find_if(found.begin(), found.end(), [&](const IcmpCode* code) {
            return code->protocol == possible_icmp(rule_).only();
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
            return source_.error_at(
                item.place,
                fmt::format("{} is a code of the type '{}', which this rule does not "
                            "name",
                            source_.shown(item), type_name(**chosen)),
                fmt::format("allowed: a number, or the name together with 'icmp-type "
                            "{}'",
                            type_name(**chosen)));
        return range;
    }

    /// Picks by protocol among the meanings of a name.
    template <class Entry, class Number>
    Result<std::optional<Range>>
    choose_icmp(const Token& item, const std::vector<const Entry*>& found, Number number) const {
        if (found.empty())
            return std::optional<Range>();
        const IcmpKinds kinds = possible_icmp(rule_);
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
            return source_.error_at(item.place,
                                    fmt::format("{} does not exist in {}", source_.shown(item),
                                                protocol == protocol_icmp ? "icmp" : "icmp6"),
                                    fmt::format("it is {}", fmt::join(meanings, " and ")));
        return source_.error_at(
            item.place,
            fmt::format("{} is {}, and the rule does not say which", source_.shown(item),
                        fmt::join(meanings, " and ")),
            found.size() > 1
                ? "allowed: a number, or the name together with 'proto "
                  "icmp' or 'proto icmp6'"
                : fmt::format("allowed: a number, or the name together "
                              "with 'proto {}'",
                              found.front()->protocol == protocol_icmp ? "icmp" : "icmp6"));
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
            return source_.error_at(token.place, "a mask without flags looks at none of them",
                                    allowed(key, source_.hook),
                                    "'proto tcp' matches TCP whatever its flags");
        if ((value & ~mask) != 0)
            return source_.error_at(token.place,
                                    "this can never match: the value has flags outside of its mask",
                                    allowed(key, source_.hook));
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
                return source_.error_at(place,
                                        fmt::format("'{}' is no TCP flag{}", shortened(name),
                                                    did_you_mean(name, words)),
                                        allowed(key, source_.hook));
            }
            flags |= static_cast<std::uint32_t>(flag != nullptr ? flag->low : *number);
            at = comma + 1;
        }
        return flags;
    }

    Result<std::string> read_path(const KeyInfo& key, const Token& token) const {
        constexpr std::size_t max_path = 4095;
        if (!token.text.starts_with('/') || token.text.size() > max_path)
            return source_.error_at(token.place,
                                    fmt::format("{} is no absolute path", source_.shown(token)),
                                    allowed(key, source_.hook), "a path with blanks is quoted");
        std::string path;
        for (std::size_t at = 1; at <= token.text.size();) {
            const std::size_t slash = std::min(token.text.find('/', at), token.text.size());
            const std::string part = token.text.substr(at, slash - at);
            if (part == "." || part == "..")
                return source_.error_at(token.place, fmt::format("'{}' within a path", part),
                                        "allowed: a path that names each directory");
            if (!part.empty())
                path += "/" + part;
            at = slash + 1;
        }
        return path.empty() ? "/" : path;
    }

    const RuleSource& source_;
    bool structure_is_whole_;
    Rule& rule_; ///< `matches` holds what has been read so far, in the order of Key
};

} // namespace

Result<std::string> read_set_name(const RuleSource& source, const Token& item) {
    const std::string name = item.text.substr(1);
    const bool good = !name.empty() && name.size() <= max_set_name &&
                      std::all_of(name.begin(), name.end(), [](char c) {
                          return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                                 (c >= '0' && c <= '9') || c == '_' || c == '-';
                      });
    if (!good)
        return source.error_at(
            item.place, fmt::format("{} is no name of a set", source.shown(item)),
            fmt::format("allowed: @ and 1 to {} of A-Z a-z 0-9 _ -", max_set_name));
    return name;
}

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

const NamedRange* find_named(std::span<const NamedRange> names, std::string_view name) {
    const auto found = std::find_if(names.begin(), names.end(), [&](const NamedRange& candidate) {
        return candidate.name == name;
    });
    return found == names.end() ? nullptr : &*found;
}

std::string allowed(const KeyInfo& key, Hook hook) {
    return fmt::format("allowed for {}: {}{}", key.name, value(key, hook),
                       takes_sets(hook) ? "; 'not' before it negates" : "");
}

Result<Masked> read_mark(const RuleSource& source, const Token& token,
                         const std::string& allowed_text) {
    const std::size_t slash = token.text.find('/');
    const auto value = whole_number(std::string_view(token.text).substr(0, slash));
    const auto mask = slash == std::string::npos
                          ? std::optional<std::uint64_t>(0xffffffff)
                          : whole_number(std::string_view(token.text).substr(slash + 1));
    if (!value || !mask || *value > 0xffffffff || *mask > 0xffffffff)
        return source.error_at(token.place, fmt::format("{} is no mark", source.shown(token)),
                               allowed_text + "; numbers up to 0xffffffff");
    if (*mask == 0)
        return source.error_at(token.place, "a mask of 0 selects no bit", allowed_text);
    if ((*value & ~*mask) != 0)
        return source.error_at(token.place, "the value has bits outside of its mask", allowed_text,
                               fmt::format("0x{:x}/0x{:x} has them all", *value, *mask | *value));
    return Masked{static_cast<std::uint32_t>(*value), static_cast<std::uint32_t>(*mask)};
}

Result<> read_values(const RuleSource& source, std::span<const Clause> clauses,
                     bool structure_is_whole, Rule& rule) {
    return ValueReader(source, structure_is_whole, rule).run(clauses);
}

} // namespace netctl
