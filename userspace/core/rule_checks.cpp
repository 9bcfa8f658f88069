// SPDX-License-Identifier: GPL-2.0-only
//
// Third pass of the parser: what no packet can match.
#include <algorithm>

#include <fmt/format.h>

#include "core/rule_parser.hpp"
#include "netctl/abi/packet.h"

namespace netctl {

namespace {

/// Parts that transport headers are.
constexpr std::uint32_t of_transport = NC_HAS_PORTS | NC_HAS_FLAGS | NC_HAS_ICMP;

bool contains(const std::vector<Range>& ranges, std::uint64_t number) {
    return std::any_of(ranges.begin(), ranges.end(), [number](const Range& range) {
        return range.low <= number && number <= range.high;
    });
}

class Checker {
  public:
    Checker(const RuleSource& source, std::span<const Clause> clauses, const Rule& rule)
        : source_(source), clauses_(clauses), rule_(rule) {}

    Result<> run() const {
        const auto has = [this](Key key) { return rule_.find(key) != nullptr; };
        const Families families = possible_families(rule_);
        if (has(Key::ether_type) && !families.ipv4 && !families.ipv6) {
            constexpr std::uint32_t ip =
                NC_HAS_IPV4 | NC_HAS_IPV6 | NC_HAS_PROTO | NC_HAS_CT | NC_HAS_CT_MARK;
            for (const Match& match : rule_.matches)
                if ((info(match.key).part & (ip | of_transport)) != 0)
                    return never(match.key,
                                 fmt::format("{} leaves no IP packet that has '{}'",
                                             value_text(Key::ether_type), to_string(match.key)));
        }
        if (!families.ipv4 && !families.ipv6 && has(Key::src) && has(Key::dst))
            return never(Key::dst, "src and dst are of different IP versions");
        NETCTL_TRY(check_upper_layer());
        NETCTL_TRY(check_fragments());
        return check_socket();
    }

  private:
    Error never(Key key, const std::string& because) const {
        const Clause* clause = find_clause(clauses_, key);
        return source_.error_at(clause != nullptr ? clause->place : Place{0, source_.text.size()},
                                "this rule can never match: " + because);
    }
    std::string value_text(Key key) const {
        const Clause* clause = find_clause(clauses_, key);
        if (clause == nullptr)
            return {};
        std::string_view text = source_.slice(clause->place);
        constexpr std::size_t longest = 40;
        return text.size() <= longest ? fmt::format("'{}'", text)
                                      : fmt::format("this '{}'", clause->key->name);
    }

    Result<> check_upper_layer() const {
        std::optional<Key> ports, icmp;
        for (const Key key : {Key::sport, Key::dport})
            if (rule_.find(key) != nullptr)
                ports = ports.value_or(key);
        for (const Key key : {Key::icmp_type, Key::icmp_code})
            if (rule_.find(key) != nullptr)
                icmp = icmp.value_or(key);
        const bool flags = rule_.find(Key::flags) != nullptr;

        const bool has_ports =
            std::any_of(std::begin(port_protocols), std::end(port_protocols),
                        [this](std::uint8_t protocol) { return leaves(rule_, protocol); });
        if (ports && !has_ports)
            return never(*ports, fmt::format("only tcp, udp, sctp, dccp and udplite have ports, "
                                             "and {} leaves none of them",
                                             value_text(Key::proto)));
        if (flags && !leaves(rule_, protocol_tcp))
            return never(Key::flags, fmt::format("only tcp has flags, and {} leaves it out",
                                                 value_text(Key::proto)));
        if (icmp && ports)
            return never(*icmp, fmt::format("no packet has both '{}' and '{}'", to_string(*ports),
                                            to_string(*icmp)));
        if (icmp && flags)
            return never(*icmp,
                         fmt::format("no packet has both 'flags' and '{}'", to_string(*icmp)));
        if (!icmp)
            return {};
        if (!leaves(rule_, protocol_icmp) && !leaves(rule_, protocol_icmp6))
            return never(*icmp, fmt::format("only icmp and icmp6 have '{}', and {} leaves none of "
                                            "them",
                                            to_string(*icmp), value_text(Key::proto)));
        const IcmpKinds kinds = possible_icmp(rule_);
        if (!kinds.icmp && !kinds.icmp6)
            return never(Key::proto,
                         "icmp is of IPv4 and icmp6 of IPv6, and the addresses are not");
        return {};
    }

    Result<> check_fragments() const {
        const Match* frag = rule_.find(Key::frag);
        if (frag == nullptr || holds(*frag, frag_none) || holds(*frag, frag_first))
            return {};
        const bool tiny = holds(*frag, frag_tiny);
        for (const Match& match : rule_.matches) {
            const std::uint32_t part = info(match.key).part;
            if (!tiny && (part & of_transport) != 0)
                return never(match.key,
                             fmt::format("a later fragment has no '{}'", to_string(match.key)));
            if (tiny && (part & (NC_HAS_FLAGS | NC_HAS_ICMP)) != 0)
                return never(match.key, fmt::format("a tiny or later fragment has no '{}'",
                                                    to_string(match.key)));
        }
        return {};
    }

    Result<> check_socket() const {
        const Match* socket = rule_.find(Key::socket);
        if (socket == nullptr || holds(*socket, socket_none))
            return {};
        const Match* frag = rule_.find(Key::frag);
        if (frag != nullptr && !holds(*frag, frag_none) && !holds(*frag, frag_first) &&
            !holds(*frag, frag_tiny))
            return never(Key::socket, "a later fragment has no ports to find a socket by");
        const auto has = [this](Key key) { return rule_.find(key) != nullptr; };
        const IcmpKinds kinds = possible_icmp(rule_);
        const bool of_ports =
            (holds(*socket, socket_established) || holds(*socket, socket_listening)) &&
            (leaves(rule_, protocol_tcp) || (leaves(rule_, protocol_udp) && !has(Key::flags))) &&
            !has(Key::icmp_type) && !has(Key::icmp_code);
        const bool of_errors = holds(*socket, socket_related) && (kinds.icmp || kinds.icmp6) &&
                               !has(Key::sport) && !has(Key::dport) && !has(Key::flags);
        if (of_ports || of_errors)
            return {};
        return never(Key::socket,
                     "only tcp and udp are 'established' or 'listening', and only icmp "
                     "and icmp6 'related'");
    }

    const RuleSource& source_;
    std::span<const Clause> clauses_;
    const Rule& rule_;
};

} // namespace

bool holds(const Match& match, std::uint64_t number) {
    return contains(match.ranges, number) != match.negated;
}

bool leaves(const Rule& rule, std::uint8_t protocol) {
    const Match* proto = rule.find(Key::proto);
    return proto == nullptr || holds(*proto, protocol);
}

Families possible_families(const Rule& rule) {
    Families families;
    for (const Key key : {Key::src, Key::dst}) {
        const Match* match = rule.find(key);
        if (match == nullptr || !match->set.empty())
            continue;
        const auto names = [&](Family family) {
            return std::any_of(match->prefixes.begin(), match->prefixes.end(),
                               [&](const Prefix& p) { return p.address.family == family; });
        };
        families.ipv4 &= names(Family::ipv4);
        families.ipv6 &= names(Family::ipv6);
    }
    if (const Match* type = rule.find(Key::ether_type)) {
        families.ipv4 &= holds(*type, 0x0800);
        families.ipv6 &= holds(*type, 0x86dd);
    }
    return families;
}

IcmpKinds possible_icmp(const Rule& rule) {
    const Families families = possible_families(rule);
    return {leaves(rule, protocol_icmp) && families.ipv4,
            leaves(rule, protocol_icmp6) && families.ipv6};
}

Result<> check_fields(const RuleSource& source, std::span<const Clause> clauses, const Rule& rule) {
    return Checker(source, clauses, rule).run();
}

} // namespace netctl
