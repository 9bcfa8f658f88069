// SPDX-License-Identifier: GPL-2.0-only
#include "features/redirect/rule_text.hpp"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <set>
#include <string_view>

#include <fmt/format.h>

#include "core/suggest.hpp"

namespace netctl::redirect {

namespace {

const std::vector<std::string> keys{"dport", "dst", "cgroup", "exe"};
const std::vector<std::string> to_keys{"dst", "dport", "proto", "target", "cgroup"};

Result<std::uint16_t> parse_port(std::string_view text, std::string_view whole) {
    std::uint32_t value = 0;
    const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (status != std::errc{} || end != text.data() + text.size() || value > 65535)
        return Error::usage(fmt::format("dport: '{}' is no port or range", whole),
                            "a number from 0 to 65535, or two as in 8000-8100");
    return static_cast<std::uint16_t>(value);
}

Result<> set_ports(PortRange& ports, const std::string& text) {
    const std::size_t dash = text.find('-');
    const std::string_view view(text);
    ports.low = NETCTL_TRY(parse_port(view.substr(0, dash), view));
    ports.high =
        dash == std::string::npos ? ports.low : NETCTL_TRY(parse_port(view.substr(dash + 1), view));
    if (ports.low > ports.high)
        return Error::usage(fmt::format("dport: the range {} is empty", text),
                            fmt::format("{}-{}?", ports.high, ports.low));
    return {};
}

/// The kernel's side compares mapped addresses as the IPv4 ones that they are.
Result<Prefix> parse_destination(const std::string& text) {
    Result<Prefix> prefix = Prefix::parse(text);
    if (!prefix)
        return std::move(prefix).error().within("dst");
    const auto& bytes = prefix->address.bytes;
    bool mapped = prefix->address.family == Family::ipv6 && prefix->length >= 96;
    for (std::size_t i = 0; i < 12; i++)
        mapped = mapped && bytes[i] == (i < 10 ? 0x00 : 0xff);
    if (!mapped)
        return prefix;
    Prefix ipv4;
    std::copy(bytes.begin() + 12, bytes.end(), ipv4.address.bytes.begin());
    ipv4.length = static_cast<std::uint8_t>(prefix->length - 96);
    return ipv4;
}

/// `ADDRESS:PORT`, `[ADDRESS]:PORT`.
Result<> set_target(ToRule& rule, const std::string& text) {
    const std::size_t colon = text.rfind(':');
    const Error wrong = Error::usage(fmt::format("target: '{}' is no address with a port", text),
                                     "as in 127.0.0.1:8080 or [::1]:8080");
    if (colon == std::string::npos || colon == 0)
        return wrong;
    std::string_view address(text.data(), colon);
    const bool bracketed = address.front() == '[' && address.back() == ']';
    if (bracketed)
        address = address.substr(1, address.size() - 2);
    const Result<Address> parsed = Address::parse(address);
    PortRange port;
    if (!parsed || (parsed->family == Family::ipv6) != bracketed ||
        !set_ports(port, text.substr(colon + 1)) || port.low != port.high || port.low == 0)
        return wrong;
    rule.target = *parsed;
    rule.target_port = port.low;
    return {};
}

std::string port_text(const PortRange& ports) {
    if (ports.low == ports.high)
        return fmt::format("dport {} ", ports.low);
    if (ports.low != 0 || ports.high != 65535)
        return fmt::format("dport {}-{} ", ports.low, ports.high);
    return {};
}

} // namespace

Result<Rule> parse_rule(const std::vector<std::string>& words) {
    Rule rule;
    std::set<std::string> seen;
    for (std::size_t i = 0; i < words.size(); i++) {
        const std::string& word = words[i];
        if (word == "allow" || word == "deny") {
            if (i + 1 != words.size())
                return Error::usage(
                    fmt::format("'{}' ends a rule, but '{}' follows", word, words[i + 1]));
            rule.allow = word == "allow";
            return rule;
        }
        if (std::find(keys.begin(), keys.end(), word) == keys.end())
            return Error::usage(
                fmt::format("a rule of redirect has no '{}'{}", word, did_you_mean(word, keys)),
                "[dport PORT|LOW-HIGH] [dst ADDRESS[/LENGTH]] [cgroup PATH] [exe PATH] "
                "[allow|deny]");
        if (!seen.insert(word).second)
            return Error::usage(fmt::format("'{}' stands twice in the rule", word));
        if (++i == words.size())
            return Error::usage(fmt::format("'{}' needs a value", word));
        if (word == "dport")
            NETCTL_TRY(set_ports(rule.dport, words[i]));
        else if (word == "dst")
            rule.dst = NETCTL_TRY(parse_destination(words[i]));
        else if (words[i].empty())
            return Error::usage(fmt::format("'{}' needs a path", word));
        else
            (word == "cgroup" ? rule.cgroup : rule.exe) = words[i];
    }
    if (words.empty())
        return Error::usage("a rule is missing",
                            "for every local connection: netctl redirect rule add allow");
    return rule;
}

std::string to_string(const Rule& rule) {
    std::string text = port_text(rule.dport);
    if (rule.dst)
        text += fmt::format("dst {} ", rule.dst->to_string());
    if (!rule.cgroup.empty())
        text += fmt::format("cgroup {} ", rule.cgroup);
    if (!rule.exe.empty())
        text += fmt::format("exe {} ", rule.exe);
    return text + (rule.allow ? "allow" : "deny");
}

Result<ToRule> parse_to(const std::vector<std::string>& words) {
    constexpr const char* form = "dst ADDRESS[/LENGTH] [dport PORT|LOW-HIGH] [proto tcp|udp] "
                                 "target ADDRESS:PORT [cgroup PATH]";
    ToRule rule;
    std::set<std::string> seen;
    for (std::size_t i = 0; i < words.size(); i += 2) {
        const std::string& word = words[i];
        if (std::find(to_keys.begin(), to_keys.end(), word) == to_keys.end())
            return Error::usage(fmt::format("to has no '{}'{}", word, did_you_mean(word, to_keys)),
                                form);
        if (!seen.insert(word).second)
            return Error::usage(fmt::format("'{}' stands twice", word));
        if (i + 1 == words.size() || words[i + 1].empty())
            return Error::usage(fmt::format("'{}' needs a value", word), form);
        const std::string& value = words[i + 1];
        if (word == "dport") {
            NETCTL_TRY(set_ports(rule.dport, value));
        } else if (word == "dst") {
            rule.dst = NETCTL_TRY(parse_destination(value));
        } else if (word == "target") {
            NETCTL_TRY(set_target(rule, value));
        } else if (word == "cgroup") {
            rule.cgroup = value;
        } else if (value == "tcp" || value == "udp") {
            rule.protocol = value == "tcp" ? 6 : 17;
        } else {
            return Error::usage(fmt::format("proto: '{}' is neither tcp nor udp", value));
        }
    }
    for (const char* needed : {"dst", "target"})
        if (!seen.contains(needed))
            return Error::usage(fmt::format("'{}' is missing", needed), form);
    if (rule.dst.address.family != rule.target.family)
        return Error::usage(fmt::format("dst {} and target {} are of different families",
                                        rule.dst.to_string(), rule.target.to_string()),
                            "a socket of one family cannot connect to an address of the other");
    if (rule.dst.contains(rule.target) && rule.target_port >= rule.dport.low &&
        rule.target_port <= rule.dport.high)
        return Error::usage("the target is itself a destination that the rule rewrites",
                            "narrow dst or dport, so that connections to the target stay");
    return rule;
}

std::string to_string(const ToRule& rule) {
    std::string text = fmt::format("dst {} {}", rule.dst.to_string(), port_text(rule.dport));
    if (rule.protocol != 0)
        text += fmt::format("proto {} ", rule.protocol == 6 ? "tcp" : "udp");
    text += rule.target.family == Family::ipv6
                ? fmt::format("target [{}]:{}", rule.target.to_string(), rule.target_port)
                : fmt::format("target {}:{}", rule.target.to_string(), rule.target_port);
    if (!rule.cgroup.empty())
        text += fmt::format(" cgroup {}", rule.cgroup);
    return text;
}

Address to_address(std::uint32_t family, const std::uint32_t* words) {
    Address address;
    address.family = family == 4 ? Family::ipv4 : Family::ipv6;
    std::memcpy(address.bytes.data(), words, family == 4 ? 4 : 16);
    return address;
}

} // namespace netctl::redirect
