// SPDX-License-Identifier: GPL-2.0-only
#include "testing/firewall_rules.hpp"

#include <algorithm>
#include <array>
#include <random>
#include <utility>

namespace netctl::testing {

namespace {

/// How often a field is any, in percent, and how rules look at ports.
struct Profile {
    unsigned any_src, any_dst, any_proto, any_dport, sport, range;
};

Profile profile_of(FirewallKind kind) {
    switch (kind) {
    case FirewallKind::access_list: return {12, 1, 5, 20, 1, 15};
    case FirewallKind::firewall: return {35, 30, 12, 35, 40, 25};
    case FirewallKind::ip_chain: return {8, 8, 35, 45, 10, 20};
    case FirewallKind::nested: break;
    }
    return {2, 2, 60, 70, 10, 60};
}

class Maker {
  public:
    Maker(FirewallKind kind, Family family, std::size_t count, std::uint64_t seed)
        : kind_(kind), family_(family), profile_(profile_of(kind)), random_(seed) {
        // Networks and hosts that occur again and again.
        const std::size_t networks = kind == FirewallKind::nested ? 1 : 4 + count / 40;
        for (std::size_t i = 0; i < networks; ++i)
            networks_.push_back(random_());
        for (std::size_t i = 0; i < 60; ++i)
            ports_.push_back(i < 30 ? below(1024) : below(65536));
    }

    Rule rule() {
        Rule rule;
        rule.actions.emplace_back().kind = one_in(3) ? ActionKind::pass : ActionKind::drop;
        if (below(100) >= profile_.any_src)
            rule.matches.push_back(address(Key::src, false));
        if (below(100) >= profile_.any_dst)
            rule.matches.push_back(address(Key::dst, kind_ == FirewallKind::access_list));
        const bool dport = below(100) >= profile_.any_dport;
        const bool sport = below(100) < profile_.sport;
        if (dport || sport || below(100) >= profile_.any_proto) {
            constexpr std::array<std::uint64_t, 8> protocols{6, 6, 6, 6, 17, 17, 1, 47};
            const std::uint64_t proto = protocols[below(dport || sport ? 6 : 8)];
            rule.matches.push_back(numbers(Key::proto, {proto, proto}));
        }
        if (sport)
            rule.matches.push_back(numbers(Key::sport, ports()));
        if (dport)
            rule.matches.push_back(numbers(Key::dport, ports()));
        return rule;
    }

  private:
    std::uint64_t below(std::uint64_t bound) { return random_() % bound; }
    bool one_in(std::uint64_t n) { return below(n) == 0; }

    static Match numbers(Key key, Range range) {
        Match match;
        match.key = key;
        match.ranges = {range};
        return match;
    }
    Range ports() {
        if (below(100) < profile_.range) {
            if (kind_ != FirewallKind::nested && one_in(2))
                return one_in(4) ? Range{0, 1023} : Range{1024, 65535};
            std::uint64_t low = ports_[below(ports_.size())];
            return {low, std::min<std::uint64_t>(65535, low + below(one_in(3) ? 4000 : 16))};
        }
        const std::uint64_t port = ports_[below(ports_.size())];
        return {port, port};
    }
    /// A prefix of a host in one of the networks: short ones contain many others.
    Match address(Key key, bool narrow) {
        Prefix prefix;
        prefix.address.family = family_;
        const unsigned bits = prefix.address.bits();
        const unsigned network_bits = family_ == Family::ipv4 ? 16 : 48;
        const std::uint64_t network = networks_[below(networks_.size())];
        const std::uint64_t host =
            kind_ == FirewallKind::nested ? ~network : below(4000) * 2654435761u;
        for (unsigned i = 0; i < bits / 8; ++i)
            prefix.address.bytes[i] = static_cast<std::uint8_t>(
                i < network_bits / 8 ? network >> 8 * (i % 8) : host >> 8 * (i % 4));
        unsigned length;
        if (kind_ == FirewallKind::nested)
            length = 1 + static_cast<unsigned>(below(bits));
        else if (narrow || one_in(2))
            length = one_in(3) ? bits - static_cast<unsigned>(below(8)) : bits;
        else
            length = network_bits - 4 + static_cast<unsigned>(below(bits - network_bits + 5));
        prefix.length = static_cast<std::uint8_t>(length);
        for (unsigned bit = length; bit < bits; ++bit)
            prefix.address.bytes[bit / 8] &= static_cast<std::uint8_t>(~(0x80 >> bit % 8));
        Match match;
        match.key = key;
        match.prefixes = {prefix};
        return match;
    }

    FirewallKind kind_;
    Family family_;
    Profile profile_;
    std::mt19937_64 random_;
    std::vector<std::uint64_t> networks_, ports_;
};

} // namespace

const char* to_string(FirewallKind kind) {
    constexpr std::array<const char*, firewall_kinds> names{"access list", "firewall", "ip chain",
                                                            "nested"};
    return names[static_cast<std::size_t>(kind)];
}

std::vector<Rule> firewall_rules(FirewallKind kind, Family family, std::size_t count,
                                 std::uint64_t seed) {
    Maker maker(kind, family, count, seed);
    std::vector<Rule> rules;
    while (rules.size() < count) {
        Rule rule = maker.rule();
        // What matches nearly everything hides what follows: it belongs at the end.
        if (rule.matches.size() < 2 && rules.size() + 4 < count)
            continue;
        rules.push_back(std::move(rule));
    }
    return rules;
}

} // namespace netctl::testing
