// SPDX-License-Identifier: GPL-2.0-only
#include "host/import/words.hpp"

#include <algorithm>
#include <charconv>

#include "core/rule_keys.hpp"
#include "core/rule_values.hpp"
#include "datapath/set_text_reader.hpp"

namespace netctl::host {

namespace {

struct Alias {
    std::string_view name, ours;
};

// Names that nft and iptables have for types of ICMP and ICMPv6, where netctl's are others.
constexpr Alias icmp_aliases[] = {
    {"ping", "echo-request"},
    {"pong", "echo-reply"},
    {"ttl-exceeded", "time-exceeded"},
    {"neighbour-solicitation", "neighbor-solicitation"},
    {"neighbour-advertisement", "neighbor-advertisement"},
    {"nd-router-solicit", "router-solicitation"},
    {"nd-router-advert", "router-advertisement"},
    {"nd-neighbor-solicit", "neighbor-solicitation"},
    {"nd-neighbor-advert", "neighbor-advertisement"},
    {"nd-redirect", "redirect"},
    {"mld-listener-query", "mld-query"},
    {"mld-listener-report", "mld-report"},
    {"mld-listener-done", "mld-done"},
    {"mld-listener-reduction", "mld-done"},
    {"mld2-listener-report", "mld2-report"},
    {"router-renumbering", "138"},
    {"ind-neighbor-solicit", "141"},
    {"ind-neighbor-advert", "142"},
    {"info-request", "15"},
    {"info-reply", "16"},
    {"address-mask-request", "17"},
    {"address-mask-reply", "18"},
};

constexpr Alias code_aliases[] = {
    {"frag-needed", "fragmentation-needed"},
    {"network-unreachable", "net-unreachable"},
    {"prot-unreachable", "protocol-unreachable"},
    {"network-prohibited", "net-prohibited"},
    {"communication-prohibited", "admin-prohibited"},
    {"addr-unreachable", "address-unreachable"},
    {"policy-fail", "policy-failed"},
    {"reject-route", "route-rejected"},
    {"ttl-zero-during-transit", "ttl-exceeded"},
    {"ttl-zero-during-reassembly", "reassembly-exceeded"},
};

constexpr NamedRange more_protocols[] = {
    {"ipv6-icmp", 58, 58}, {"icmpv6", 58, 58},   {"ipencap", 4, 4},   {"ipip", 4, 4},
    {"ipv6", 41, 41},      {"vrrp", 112, 112},   {"pim", 103, 103},   {"l2tp", 115, 115},
    {"comp", 108, 108},    {"ipcomp", 108, 108}, {"ospfigp", 89, 89}, {"ipv6-nonxt", 59, 59},
};

template <class Table> std::string_view ours_of(const Table& table, std::string_view word) {
    for (const Alias& alias : table)
        if (alias.name == word)
            return alias.ours;
    return word;
}

std::optional<std::uint64_t> named(std::span<const NamedRange> names, std::string_view word) {
    for (const NamedRange& name : names)
        if (name.name == word && name.low == name.high)
            return name.low;
    return std::nullopt;
}

std::string lower(std::string_view word) {
    std::string made(word);
    for (char& c : made)
        if (c >= 'A' && c <= 'Z')
            c = static_cast<char>(c - 'A' + 'a');
    return made;
}

/// `new` is all that this host has no connection for; `invalid` cannot be told from that.
std::vector<Range> socket_values(std::uint8_t states) {
    std::vector<Range> values;
    if ((states & state_new) != 0)
        values.push_back({socket_none, socket_listening});
    if ((states & state_established) != 0)
        values.push_back({socket_established, socket_established});
    if ((states & state_related) != 0)
        values.push_back({socket_related, socket_related});
    return values;
}

constexpr StateWords socket_words{Key::socket, state_new | state_established | state_related,
                                  socket_values};

} // namespace

const StateWords* state_words(Hook hook, bool egress) {
    return is_of_packets(hook) && !egress ? &socket_words : nullptr;
}

std::optional<std::uint64_t> plain_number(std::string_view text) {
    const bool hex = text.starts_with("0x");
    if (hex)
        text.remove_prefix(2);
    std::uint64_t number = 0;
    const auto [end, status] =
        std::from_chars(text.data(), text.data() + text.size(), number, hex ? 16 : 10);
    if (status != std::errc{} || end != text.data() + text.size())
        return std::nullopt;
    return number;
}

std::optional<std::uint64_t> protocol_of(std::string_view word) {
    const std::string name = lower(word);
    if (const auto number = named(more_protocols, name))
        return number;
    return value_of(Key::proto, name, 0);
}

std::optional<std::uint64_t> icmp_type_of(std::string_view word, std::uint8_t protocol) {
    const std::string_view ours = ours_of(icmp_aliases, word);
    if (const auto number = plain_number(ours))
        return *number <= 255 ? number : std::nullopt;
    for (const IcmpType& type : icmp_types())
        if (type.protocol == protocol && type.name == ours)
            return type.type;
    return std::nullopt;
}

std::optional<TypeAndCode> icmp_code_of(std::string_view word, std::uint8_t protocol) {
    const std::string_view ours = ours_of(code_aliases, word);
    for (const IcmpCode& code : icmp_codes())
        if (code.protocol == protocol && code.name == ours)
            return TypeAndCode{code.type, code.code};
    return std::nullopt;
}

std::optional<std::uint64_t> value_of(Key key, std::string_view word, std::uint8_t icmp_protocol) {
    const KeyInfo& of = info(key);
    if (const auto number = plain_number(word))
        return *number <= of.max ? number : std::nullopt;
    if (key == Key::icmp_type)
        return icmp_type_of(word, icmp_protocol);
    if (of.form == ValueForm::ports)
        return named(common_services(), word);
    if (of.form == ValueForm::macs) {
        std::uint64_t address = 0;
        if (word.size() != 17)
            return std::nullopt;
        for (std::size_t at = 0; at < word.size(); at += 3) {
            const auto byte = plain_number("0x" + std::string(word.substr(at, 2)));
            if (!byte || (at + 2 < word.size() && word[at + 2] != ':'))
                return std::nullopt;
            address = address << 8 | *byte;
        }
        return address;
    }
    return named(of.names, word);
}

std::uint32_t flag_of(std::string_view word) {
    return static_cast<std::uint32_t>(named(tcp_flags(), lower(word)).value_or(0));
}

std::uint8_t state_of(std::string_view word) {
    struct Named {
        std::string_view name;
        State state;
    };
    constexpr Named names[] = {{"new", state_new},
                               {"established", state_established},
                               {"related", state_related},
                               {"invalid", state_invalid},
                               {"untracked", state_untracked}};
    const std::string wanted = lower(word);
    for (const Named& one : names)
        if (one.name == wanted)
            return one.state;
    return 0;
}

Match ranges_match(Key key, std::vector<Range> ranges, bool negated) {
    Match match;
    match.key = key;
    match.negated = negated;
    match.ranges = normalised(std::move(ranges));
    return match;
}

Match prefix_match(Key key, std::vector<Prefix> prefixes, bool negated) {
    Match match;
    match.key = key;
    match.negated = negated;
    match.prefixes = normalised(std::move(prefixes));
    return match;
}

Match family_match(Family family) {
    const std::uint64_t type = family == Family::ipv4 ? type_ipv4 : type_ipv6;
    return ranges_match(Key::ether_type, {{type, type}});
}

Alternatives destinations(const std::vector<std::string>& words, bool negated) {
    constexpr std::uint64_t everybody = 0xffffffffffff;
    const auto all = [](bool not_these) {
        return ranges_match(Key::ether_dst, {{everybody, everybody}}, not_these);
    };
    const auto many = [](bool not_these) {
        return prefix_match(Key::dst, {*Prefix::parse("224.0.0.0/4"), *Prefix::parse("ff00::/8")},
                            not_these);
    };
    if (negated && words.size() != 1)
        return {};
    Alternatives alternatives;
    for (const std::string& word : words) {
        if (word == "broadcast")
            alternatives.push_back({all(negated)});
        else if (word == "multicast")
            alternatives.push_back({many(negated)});
        else if ((word == "local" || word == "host") && !negated)
            alternatives.push_back({many(true), all(true)});
        else
            return {};
    }
    return alternatives;
}

std::optional<std::vector<Prefix>> prefixes_of(std::string_view text) {
    const std::size_t dash = text.find('-');
    if (dash != std::string_view::npos) {
        const auto low = Address::parse(text.substr(0, dash));
        const auto high = Address::parse(text.substr(dash + 1));
        if (!low || !high || low->family != high->family || *high < *low)
            return std::nullopt;
        return datapath::prefixes_of_range(*low, *high);
    }
    const std::size_t slash = text.find('/');
    const auto address = Address::parse(text.substr(0, slash));
    if (!address)
        return std::nullopt;
    std::uint64_t length = address->bits();
    if (slash != std::string_view::npos) {
        const std::string_view behind = text.substr(slash + 1);
        const auto number = plain_number(behind);
        const auto mask = Address::parse(behind);
        if (number && *number <= address->bits()) {
            length = *number;
        } else if (mask && mask->family == address->family) {
            length = 0;
            while (length < mask->bits() && mask->bit(static_cast<unsigned>(length)))
                length++;
            for (auto bit = static_cast<unsigned>(length); bit < mask->bits(); bit++)
                if (mask->bit(bit))
                    return std::nullopt;
        } else {
            return std::nullopt;
        }
    }
    // These tools mask what stands behind the length.
    Prefix prefix{*address, static_cast<std::uint8_t>(length)};
    for (unsigned bit = prefix.length; bit < prefix.address.bits(); bit++)
        prefix.address.bytes[bit / 8] &= static_cast<std::uint8_t>(~(0x80U >> bit % 8));
    return std::vector<Prefix>{prefix};
}

std::string set_name_of(std::string_view name) {
    std::string made;
    for (const char c : name.substr(0, max_set_name)) {
        const bool fits = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                          (c >= '0' && c <= '9') || c == '_' || c == '-';
        made += fits ? c : '_';
    }
    return made.empty() ? "set" : made;
}

} // namespace netctl::host
