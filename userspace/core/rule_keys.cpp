// SPDX-License-Identifier: GPL-2.0-only
#include "core/rule_keys.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "netctl/abi/packet.h"

namespace netctl {

namespace {

constexpr std::uint8_t xdp = static_cast<std::uint8_t>(Hook::xdp);
constexpr std::uint8_t tc = static_cast<std::uint8_t>(Hook::tc);
constexpr std::uint8_t policy = static_cast<std::uint8_t>(Hook::policy);
constexpr std::uint8_t redirect = static_cast<std::uint8_t>(Hook::redirect);
constexpr std::uint8_t to = static_cast<std::uint8_t>(Hook::to);
constexpr std::uint8_t packets = xdp | tc;

constexpr NamedRange one(std::string_view name, std::uint64_t number, bool prints = true) {
    return {name, number, number, prints};
}

// IANA "Protocol Numbers".
constexpr NamedRange protocols[] = {
    one("icmp", protocol_icmp),
    one("igmp", 2),
    one("tcp", protocol_tcp),
    one("udp", protocol_udp),
    one("gre", 47),
    one("esp", 50),
    one("ah", 51),
    one("icmp6", protocol_icmp6),
    one("icmpv6", protocol_icmp6, false),
    one("ospf", 89),
    one("sctp", protocol_sctp),
    one("dccp", protocol_dccp),
    one("udplite", protocol_udplite),
};

// IANA "Differentiated Services Field Codepoints": RFC 2474, 2597, 3246, 5865, 8622.
constexpr NamedRange code_points[] = {
    one("cs0", 0),   one("cs1", 8),   one("cs2", 16),  one("cs3", 24),      one("cs4", 32),
    one("cs5", 40),  one("cs6", 48),  one("cs7", 56),  one("af11", 10),     one("af12", 12),
    one("af13", 14), one("af21", 18), one("af22", 20), one("af23", 22),     one("af31", 26),
    one("af32", 28), one("af33", 30), one("af41", 34), one("af42", 36),     one("af43", 38),
    one("le", 1),    one("ef", 46),   one("va", 44),   one("be", 0, false),
};

// IANA "IEEE 802 Numbers".
constexpr NamedRange ether_types[] = {
    one("ipv4", 0x0800),
    one("arp", 0x0806),
    one("ipv6", 0x86dd),
    one("mpls", 0x8847),
    one("pppoe-discovery", 0x8863),
    one("pppoe", 0x8864),
    one("eapol", 0x888e),
    one("lldp", 0x88cc),
    one("macsec", 0x88e5),
    one("ptp", 0x88f7),
};

constexpr NamedRange fragments[] = {
    one("none", frag_none),   {"first", frag_first, frag_tiny}, one("tiny", frag_tiny),
    one("later", frag_later), {"any", frag_first, frag_later},
};

constexpr NamedRange sockets[] = {
    one("none", socket_none),
    one("listening", socket_listening),
    one("established", socket_established),
    one("related", socket_related),
    {"any", socket_listening, socket_related},
};

constexpr NamedRange ct_states[] = {
    one("new", ct_new),         one("established", ct_established), one("related", ct_related),
    one("invalid", ct_invalid), one("untracked", ct_untracked),
};

constexpr NamedRange vlans[] = {{"any", 0, 4095}};

constexpr NamedRange flag_names[] = {
    one("fin", 0x01), one("syn", 0x02), one("rst", 0x04), one("psh", 0x08),
    one("ack", 0x10), one("urg", 0x20), one("ece", 0x40), one("cwr", 0x80),
};

constexpr NamedRange services[] = {
    one("ftp", 21),    one("ssh", 22),     one("telnet", 23),       one("smtp", 25),
    one("domain", 53), one("http", 80),    one("pop3", 110),        one("ntp", 123),
    one("imap2", 143), one("snmp", 161),   one("bgp", 179),         one("ldap", 389),
    one("https", 443), one("syslog", 514), one("submission", 587),  one("imaps", 993),
    one("pop3s", 995), one("mysql", 3306), one("postgresql", 5432),
};

// RFC 792, 950, 1256.
constexpr IcmpType icmp_type_names[] = {
    {"echo-reply", protocol_icmp, 0},
    {"destination-unreachable", protocol_icmp, 3},
    {"source-quench", protocol_icmp, 4},
    {"redirect", protocol_icmp, 5},
    {"echo-request", protocol_icmp, 8},
    {"router-advertisement", protocol_icmp, 9},
    {"router-solicitation", protocol_icmp, 10},
    {"time-exceeded", protocol_icmp, 11},
    {"parameter-problem", protocol_icmp, 12},
    {"timestamp-request", protocol_icmp, 13},
    {"timestamp-reply", protocol_icmp, 14},
    // RFC 4443, 2710, 4861, 3810.
    {"destination-unreachable", protocol_icmp6, 1},
    {"packet-too-big", protocol_icmp6, 2},
    {"time-exceeded", protocol_icmp6, 3},
    {"parameter-problem", protocol_icmp6, 4},
    {"echo-request", protocol_icmp6, 128},
    {"echo-reply", protocol_icmp6, 129},
    {"mld-query", protocol_icmp6, 130},
    {"mld-report", protocol_icmp6, 131},
    {"mld-done", protocol_icmp6, 132},
    {"router-solicitation", protocol_icmp6, 133},
    {"router-advertisement", protocol_icmp6, 134},
    {"neighbor-solicitation", protocol_icmp6, 135},
    {"neighbor-advertisement", protocol_icmp6, 136},
    {"neighbour-solicitation", protocol_icmp6, 135, false},
    {"neighbour-advertisement", protocol_icmp6, 136, false},
    {"redirect", protocol_icmp6, 137},
    {"mld2-report", protocol_icmp6, 143},
};

constexpr IcmpCode icmp_code_names[] = {
    {"net-unreachable", protocol_icmp, 3, 0},      {"host-unreachable", protocol_icmp, 3, 1},
    {"protocol-unreachable", protocol_icmp, 3, 2}, {"port-unreachable", protocol_icmp, 3, 3},
    {"fragmentation-needed", protocol_icmp, 3, 4}, {"source-route-failed", protocol_icmp, 3, 5},
    {"net-prohibited", protocol_icmp, 3, 9},       {"host-prohibited", protocol_icmp, 3, 10},
    {"admin-prohibited", protocol_icmp, 3, 13},    {"net-redirect", protocol_icmp, 5, 0},
    {"host-redirect", protocol_icmp, 5, 1},        {"ttl-exceeded", protocol_icmp, 11, 0},
    {"reassembly-exceeded", protocol_icmp, 11, 1}, {"no-route", protocol_icmp6, 1, 0},
    {"admin-prohibited", protocol_icmp6, 1, 1},    {"beyond-scope", protocol_icmp6, 1, 2},
    {"address-unreachable", protocol_icmp6, 1, 3}, {"port-unreachable", protocol_icmp6, 1, 4},
    {"policy-failed", protocol_icmp6, 1, 5},       {"route-rejected", protocol_icmp6, 1, 6},
    {"hop-limit-exceeded", protocol_icmp6, 3, 0},  {"reassembly-exceeded", protocol_icmp6, 3, 1},
    {"bad-header", protocol_icmp6, 4, 0},          {"unknown-next-header", protocol_icmp6, 4, 1},
    {"unknown-option", protocol_icmp6, 4, 2},
};

constexpr std::uint64_t second = 1'000'000'000;
constexpr NamedRange times[] = {
    one("s", second),           one("second", second, false),
    one("min", 60 * second),    one("minute", 60 * second, false),
    one("hour", 3600 * second), one("day", 86400 * second),
};
constexpr NamedRange rates[] = {
    one("bit", 1),
    one("kbit", 1'000),
    one("mbit", 1'000'000),
    one("gbit", 1'000'000'000),
    one("tbit", 1'000'000'000'000),
};
constexpr NamedRange seconds[] = {one("s", 1), one("m", 60), one("h", 3600), one("d", 86400)};
constexpr NamedRange sizes[] = {one("", 1), one("k", 1 << 10), one("m", 1 << 20)};

constexpr std::span<const NamedRange> no_names;

#define NETCTL_PACKET_KEY(NAME, name, text, kind, part, group, hooks, form, max, names, value,     \
                          help)                                                                    \
    {Key::name, text, part, hooks, ValueForm::form, max, names, value, help},
#define NETCTL_CONNECTION_KEY(NAME, name, text, hooks, form, max, names, value, help)              \
    {Key::name, text, 0, hooks, ValueForm::form, max, names, value, help},
constexpr KeyInfo keys[] = {NC_PACKET_KEYS(NETCTL_PACKET_KEY)
                                NC_CONNECTION_KEYS(NETCTL_CONNECTION_KEY)};
#undef NETCTL_PACKET_KEY
#undef NETCTL_CONNECTION_KEY

// One entry, one glance.
// clang-format off
constexpr ActionInfo actions[] = {
    {ActionKind::pass, "pass", packets, true, "", "let the packet through"},
    {ActionKind::drop, "drop", packets, true, "", "drop the packet"},
    {ActionKind::reject, "reject", packets, true, "",
     "drop the packet and answer: TCP with a reset, all else with ICMP, port unreachable"},
    {ActionKind::tx, "tx", xdp, true, "",
     "send the packet back out of the interface that it came by"},
    {ActionKind::redirect, "redirect", packets, true, "IFACE",
     "send the packet out of another interface (in tc also: into it)", "[ingress|egress]"},
    {ActionKind::syncookie, "syncookie", xdp, true, "",
     "answer a SYN to a listener with the kernel's cookie if the kernel gives one; let all else through"},
    {ActionKind::next, "next", tc, true, "", "leave the verdict to the next program"},
    {ActionKind::allow, "allow", policy | redirect, true, "",
     "let the process connect; in redirect: let the connection be redirected"},
    {ActionKind::deny, "deny", policy | redirect, true, "",
     "refuse the connection with EPERM; in redirect: leave it on TCP"},
    {ActionKind::audit, "audit", policy, true, "", "let the process connect, and report it"},
    {ActionKind::target, "target", to, true, "ADDRESS:PORT|[ADDRESS]:PORT[,…] [weight N,…] [by source] [health tcp|http PATH [every TIME] [fail open|refuse]]",
     "connect to this address instead, or to these: in turn, or the same for the same cgroup and network namespace; to those that are up"},
    {ActionKind::mark, "mark", tc, false, "NUMBER[/MASK]", "set the packet's mark", {}, true},
    {ActionKind::priority, "priority", tc, false, "NUMBER|MAJOR:MINOR",
     "set the packet's priority or its class", {}, true},
    {ActionKind::dscp, "dscp", tc, false, "0-63|NAME", "set the DSCP of the IP header", {}, true},
    {ActionKind::mirror, "mirror", tc, false, "IFACE", "send a copy out of another interface"},
    {ActionKind::rate, "rate", tc, false, "RATE [burst SIZE]",
     "hold what the rule matches to a rate in bits a second"},
};

constexpr ModifierInfo modifiers[] = {
    {Modifier::limit, "limit", packets | policy, "N/s|min|hour|day|RATE [burst N] [per src[/LEN]|dst[/LEN][,dport] [over add @SET ttl TIME]] [over syncookie]",
     "police what the rule matches: what is above the rate is dropped, or denied"},
    {Modifier::log, "log", packets | policy, "", "write an event for what the rule matches"},
    {Modifier::comment, "comment", packets | policy | redirect | to, "\"TEXT\"", "a remark that is kept with the rule"},
};
// clang-format on

static_assert(std::size(actions) == static_cast<std::size_t>(ActionKind::rate) + 1);

constexpr bool tables_are_indexed() {
    for (std::size_t i = 0; i < std::size(actions); i++)
        if (static_cast<std::size_t>(actions[i].kind) != i)
            return false;
    return true;
}
static_assert(tables_are_indexed());

template <class Info> const Info* find_by_name(std::span<const Info> infos, std::string_view name) {
    const auto found = std::find_if(infos.begin(), infos.end(),
                                    [&](const Info& info) { return info.name == name; });
    return found == infos.end() ? nullptr : &*found;
}

} // namespace

std::span<const KeyInfo> rule_keys() {
    return keys;
}
std::span<const ActionInfo> rule_actions() {
    return actions;
}
std::span<const ModifierInfo> rule_modifiers() {
    return modifiers;
}

const KeyInfo& info(Key key) {
    return keys[static_cast<std::size_t>(key)];
}
const ActionInfo& info(ActionKind kind) {
    return actions[static_cast<std::size_t>(kind)];
}

const KeyInfo* find_key(std::string_view name) {
    return find_by_name(rule_keys(), name);
}
const ActionInfo* find_action(std::string_view name) {
    return find_by_name(rule_actions(), name);
}
const ModifierInfo* find_modifier(std::string_view name) {
    return find_by_name(rule_modifiers(), name);
}

std::vector<std::string> key_names(Hook hook) {
    std::vector<std::string> names;
    for (const KeyInfo& key : keys)
        if (key.in(hook))
            names.emplace_back(key.name);
    return names;
}

std::vector<std::string> action_names(Hook hook) {
    std::vector<std::string> names;
    for (const ActionInfo& action : actions)
        if (action.in(hook))
            names.push_back(action.spelling());
    return names;
}

bool takes_sets(Hook hook) {
    return hook != Hook::redirect && hook != Hook::to;
}

std::string value(const KeyInfo& key, Hook hook) {
    constexpr std::string_view with_set = ", a list {A, B}, or @SET";
    std::string text(key.value);
    if (!takes_sets(hook) && text.ends_with(with_set))
        text.replace(text.size() - with_set.size(), with_set.size(), ", or a list {A, B}");
    return text;
}

std::string argument(const ActionInfo& action, Hook hook) {
    std::string text(action.argument);
    if (hook == Hook::tc && !action.more_in_tc.empty())
        text.append(" ").append(action.more_in_tc);
    return text;
}

std::vector<std::string> rule_words(Hook hook) {
    std::vector<std::string> words = key_names(hook);
    const auto add = [&words](std::string_view word) {
        if (std::find(words.begin(), words.end(), word) == words.end())
            words.emplace_back(word);
    };
    for (const ActionInfo& action : actions) {
        if (!action.in(hook))
            continue;
        if (action.set)
            add("set");
        add(action.name);
    }
    add("then");
    for (const ModifierInfo& modifier : modifiers)
        if (modifier.in(hook))
            words.emplace_back(modifier.name);
    return words;
}

std::string rule_help(Hook hook) {
    std::string text = "keys:\n";
    const auto line = [&text](std::string_view what, std::string_view takes,
                              std::string_view help) {
        text += fmt::format("  {:<13} {}{}{}\n", what, help, takes.empty() ? "" : ": ", takes);
    };
    for (const KeyInfo& key : keys)
        if (key.in(hook))
            line(key.name, value(key, hook), key.help);
    text += "actions:\n";
    for (const ActionInfo& action : actions)
        if (action.in(hook))
            line(action.spelling(), argument(action, hook), action.help);
    text += "modifiers:\n";
    for (const ModifierInfo& modifier : modifiers)
        if (modifier.in(hook))
            line(modifier.name, modifier.argument, modifier.help);
    return text;
}

std::vector<std::string> value_words(Key key) {
    std::vector<std::string> words;
    const auto add = [&words](std::string_view name) {
        if (std::find(words.begin(), words.end(), name) == words.end())
            words.emplace_back(name);
    };
    const KeyInfo& about = info(key);
    for (const NamedRange& name : about.names)
        add(name.name);
    if (about.form == ValueForm::vlan)
        add("none");
    if (about.form == ValueForm::ports)
        for (const NamedRange& service : services)
            add(service.name);
    if (key == Key::icmp_type)
        for (const IcmpType& type : icmp_type_names)
            add(type.name);
    if (key == Key::icmp_code)
        for (const IcmpCode& code : icmp_code_names)
            add(code.name);
    return words;
}

std::span<const IcmpType> icmp_types() {
    return icmp_type_names;
}
std::span<const IcmpCode> icmp_codes() {
    return icmp_code_names;
}
std::span<const NamedRange> tcp_flags() {
    return flag_names;
}
std::span<const NamedRange> common_services() {
    return services;
}
std::span<const NamedRange> limit_units() {
    return times;
}
std::span<const NamedRange> rate_units() {
    return rates;
}
std::span<const NamedRange> size_units() {
    return sizes;
}
std::span<const NamedRange> ttl_units() {
    return seconds;
}

} // namespace netctl
