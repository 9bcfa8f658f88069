// SPDX-License-Identifier: GPL-2.0-only
#include "features/redirect/rule_text.hpp"

#include <algorithm>
#include <charconv>
#include <set>
#include <string_view>

#include <fmt/format.h>

#include "core/suggest.hpp"

namespace netctl::redirect {

namespace {

const std::vector<std::string> keys{"dport", "dst", "cgroup", "exe"};

Result<std::uint16_t> parse_port(std::string_view text, std::string_view whole) {
    std::uint32_t value = 0;
    const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (status != std::errc{} || end != text.data() + text.size() || value > 65535)
        return Error::usage(fmt::format("dport: '{}' is no port or range", whole),
                            "a number from 0 to 65535, or two as in 8000-8100");
    return static_cast<std::uint16_t>(value);
}

Result<> set_ports(Rule& rule, const std::string& text) {
    const std::size_t dash = text.find('-');
    const std::string_view view(text);
    rule.dport_low = NETCTL_TRY(parse_port(view.substr(0, dash), view));
    rule.dport_high = dash == std::string::npos
                          ? rule.dport_low
                          : NETCTL_TRY(parse_port(view.substr(dash + 1), view));
    if (rule.dport_low > rule.dport_high)
        return Error::usage(fmt::format("dport: the range {} is empty", text),
                            fmt::format("{}-{}?", rule.dport_high, rule.dport_low));
    return {};
}

Result<> set_destination(Rule& rule, const std::string& text) {
    Result<Prefix> prefix = Prefix::parse(text);
    if (!prefix)
        return std::move(prefix).error().within("dst");
    rule.dst = *prefix;
    // The kernel's side compares mapped addresses as the IPv4 ones that they are.
    const auto& bytes = rule.dst->address.bytes;
    bool mapped = rule.dst->address.family == Family::ipv6 && rule.dst->length >= 96;
    for (std::size_t i = 0; i < 12; i++)
        mapped = mapped && bytes[i] == (i < 10 ? 0x00 : 0xff);
    if (mapped) {
        Prefix ipv4;
        std::copy(bytes.begin() + 12, bytes.end(), ipv4.address.bytes.begin());
        ipv4.length = static_cast<std::uint8_t>(rule.dst->length - 96);
        rule.dst = ipv4;
    }
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
            NETCTL_TRY(set_ports(rule, words[i]));
        else if (word == "dst")
            NETCTL_TRY(set_destination(rule, words[i]));
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
    std::string text;
    if (rule.dport_low == rule.dport_high)
        text += fmt::format("dport {} ", rule.dport_low);
    else if (rule.dport_low != 0 || rule.dport_high != 65535)
        text += fmt::format("dport {}-{} ", rule.dport_low, rule.dport_high);
    if (rule.dst)
        text += fmt::format("dst {} ", rule.dst->to_string());
    if (!rule.cgroup.empty())
        text += fmt::format("cgroup {} ", rule.cgroup);
    if (!rule.exe.empty())
        text += fmt::format("exe {} ", rule.exe);
    return text + (rule.allow ? "allow" : "deny");
}

} // namespace netctl::redirect
