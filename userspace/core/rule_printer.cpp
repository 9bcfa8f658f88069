// SPDX-License-Identifier: GPL-2.0-only
//
// Rule -> the one text that all spellings of it share.
#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "core/rule.hpp"
#include "core/rule_keys.hpp"
#include "core/text.hpp"

namespace netctl {

namespace {

/// As a bare word if it reads back as one word, else in quotes.
std::string in_quotes(std::string_view text, bool always = false) {
    if (!always && !text.empty() && text.find_first_of(" {},\"\\#@") == text.npos &&
        shown(text) == text)
        return std::string(text);
    return rule_quoted(text);
}

std::string number_text(const KeyInfo& key, std::uint64_t number) {
    if (key.form == ValueForm::macs)
        return fmt::format("{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", number >> 40 & 0xff,
                           number >> 32 & 0xff, number >> 24 & 0xff, number >> 16 & 0xff,
                           number >> 8 & 0xff, number & 0xff);
    return key.form == ValueForm::hex_numbers ? fmt::format("0x{:04x}", number)
                                              : fmt::format("{}", number);
}

/// The name of exactly this range, or nothing.
std::string_view range_name(const KeyInfo& key, const Range& range) {
    for (const NamedRange& name : key.names)
        if (name.prints && name.low == range.low && name.high == range.high)
            return name.name;
    return {};
}

/// Where the shortest range with a name ends that begins at `low`.
std::uint64_t end_of_name(const KeyInfo& key, std::uint64_t low) {
    std::uint64_t end = key.max;
    bool found = false;
    for (const NamedRange& name : key.names)
        if (name.low == low) {
            end = std::min(end, name.high);
            found = true;
        }
    return found ? end : low;
}

/// Names of ICMP types and codes, where the rule itself says which protocol they are of.
std::string_view icmp_name(const Rule& rule, const KeyInfo& key, const Range& range) {
    const Match* proto = rule.find(Key::proto);
    if (proto == nullptr || proto->negated || proto->ranges.size() != 1 ||
        range.low != range.high || proto->ranges[0].low != proto->ranges[0].high)
        return {};
    const std::uint64_t protocol = proto->ranges[0].low;
    if (key.key == Key::icmp_type) {
        for (const IcmpType& type : icmp_types())
            if (type.prints && type.protocol == protocol && type.type == range.low)
                return type.name;
        return {};
    }
    const Match* type = rule.find(Key::icmp_type);
    for (const IcmpCode& code : icmp_codes())
        if (code.prints && code.protocol == protocol && code.code == range.low && type != nullptr &&
            !type->negated && type->ranges == std::vector<Range>{{code.type, code.type}})
            return code.name;
    return {};
}

std::string range_text(const Rule& rule, const KeyInfo& key, const Range& range) {
    std::string_view name =
        key.form == ValueForm::icmp ? icmp_name(rule, key, range) : range_name(key, range);
    if (!name.empty())
        return std::string(name);
    const std::string low = number_text(key, range.low);
    return range.low == range.high ? low : low + "-" + number_text(key, range.high);
}

std::string flag_text(std::uint32_t flags) {
    if (flags == 0)
        return "none";
    if (flags == 0xff)
        return "all";
    std::vector<std::string_view> names;
    for (const NamedRange& flag : tcp_flags())
        if ((flags & flag.low) != 0)
            names.push_back(flag.name);
    return fmt::format("{}", fmt::join(names, ","));
}

std::string flags_text(const Masked& flags) {
    if (flags.mask == (flags.value != 0 ? flags.value : 0xff))
        return flag_text(flags.value);
    return flag_text(flags.value) + "/" + flag_text(flags.mask);
}

std::string mark_text(std::uint64_t value, std::uint32_t mask) {
    return mask == 0xffffffff ? fmt::format("0x{:x}", value)
                              : fmt::format("0x{:x}/0x{:x}", value, mask);
}

std::string value_text(const Rule& rule, const Match& match) {
    const KeyInfo& key = info(match.key);
    if (!match.set.empty())
        return "@" + match.set;
    if (match.absent)
        return "none";
    if (key.form == ValueForm::path)
        return in_quotes(match.path);
    if (key.form == ValueForm::flags)
        return flags_text(match.masked.value_or(Masked{}));
    if (key.form == ValueForm::mark) {
        const Masked mark = match.masked.value_or(Masked{});
        return mark_text(mark.value, mark.mask);
    }
    std::vector<std::string> items;
    for (const Prefix& prefix : match.prefixes)
        items.push_back(prefix.to_string());
    for (const Range& range : match.ranges) {
        if (key.form == ValueForm::names && range_name(key, range).empty()) {
            for (Range part = range; part.low <= range.high; part.low = part.high + 1) {
                part.high = end_of_name(key, part.low);
                items.push_back(range_text(rule, key, part));
            }
            continue;
        }
        items.push_back(range_text(rule, key, range));
    }
    if (items.size() == 1)
        return items.front();
    return fmt::format("{{{}}}", fmt::join(items, ", "));
}

/// In the largest unit that divides it.
std::string with_unit(std::uint64_t number, std::span<const NamedRange> units) {
    for (auto unit = units.rbegin(); unit != units.rend(); ++unit)
        if (unit->prints && number % unit->low == 0)
            return fmt::format("{}{}", number / unit->low, unit->name);
    return fmt::format("{}", number);
}

std::string targets_text(const Action& action) {
    std::string text, weights;
    bool weighted = false;
    for (const Target& target : action.targets) {
        text += fmt::format("{}{}", text.empty() ? " " : ",", to_string(target));
        weights += fmt::format("{}{}", weights.empty() ? " weight " : ",", target.weight);
        weighted = weighted || target.weight != 1;
    }
    text += (weighted ? weights : "") + (action.by_source ? " by source" : "");
    if (const auto& health = action.health)
        text += fmt::format(
            " health {} every {}{}",
            health->path.empty() ? "tcp" : fmt::format("http {}", in_quotes(health->path)),
            with_unit(health->every_s, ttl_units()), health->open ? " fail open" : "");
    return text;
}

std::string action_text(const Action& action) {
    std::string text = info(action.kind).spelling();
    switch (action.kind) {
    case ActionKind::redirect:
    case ActionKind::mirror:
        text += " " + in_quotes(action.device);
        if (action.to_ingress)
            text += " ingress";
        break;
    case ActionKind::mark: text += " " + mark_text(action.number, action.mask); break;
    case ActionKind::priority:
        text += action.number > 0xffff
                    ? fmt::format(" {:x}:{:x}", action.number >> 16, action.number & 0xffff)
                    : fmt::format(" {}", action.number);
        break;
    case ActionKind::dscp:
        text += " " + range_text({}, info(Key::dscp), {action.number, action.number});
        break;
    case ActionKind::target: text += targets_text(action); break;
    case ActionKind::rate:
        text += " " + with_unit(action.number, rate_units());
        if (action.burst != 0)
            text += " burst " + with_unit(action.burst, size_units());
        break;
    default: break;
    }
    return text;
}

std::string accounts_text(const Accounts& per) {
    if (per.of == Accounts::Of::rule)
        return "";
    std::string text = per.of == Accounts::Of::src ? " per src" : " per dst";
    if (per.ipv4_bits != 32 && per.ipv6_bits != 128)
        text += fmt::format("/{}/{}", per.ipv4_bits, per.ipv6_bits);
    else if (per.ipv4_bits != 32)
        text += fmt::format("/{}", per.ipv4_bits);
    else if (per.ipv6_bits != 128)
        text += per.ipv6_bits > 32 ? fmt::format("/{}", per.ipv6_bits)
                                   : fmt::format("/32/{}", per.ipv6_bits);
    return text + (per.dport ? ",dport" : "");
}

std::string over_text(const Limit& limit) {
    std::string text;
    if (const auto& over = limit.over)
        text = fmt::format(" over add @{} ttl {}", over->set,
                           over->ttl == 0 ? "0" : with_unit(over->ttl, ttl_units()));
    return limit.over_syncookie ? text + " over syncookie" : text;
}

std::string limit_text(const Limit& limit) {
    if (limit.bits)
        return fmt::format("limit {} burst {}{}{}", with_unit(limit.count, rate_units()),
                           with_unit(limit.burst, size_units()), accounts_text(limit.per),
                           over_text(limit));
    std::string_view unit = "s";
    for (const NamedRange& candidate : limit_units())
        if (candidate.prints && candidate.low == limit.period_ns)
            unit = candidate.name;
    return fmt::format("limit {}/{} burst {}{}{}", limit.count, unit, limit.burst,
                       accounts_text(limit.per), over_text(limit));
}

/// Whether a reader could take a key for an action.
bool needs_then(const Rule& rule) {
    return !rule.actions.empty() &&
           std::any_of(
               rule.matches.begin(), rule.matches.end(),
               [](const Match& match) { return find_action(to_string(match.key)) != nullptr; }) &&
           !info(rule.actions.front().kind).set;
}

} // namespace

std::string rule_text(const std::vector<std::string>& words) {
    std::string text;
    const auto word = [&words](std::size_t i) -> std::string_view {
        return i < words.size() ? std::string_view(words[i]) : std::string_view();
    };
    for (std::size_t i = 0; i < words.size(); i++) {
        const std::string_view before = word(i - (i >= 2 && word(i - 1) == "not" ? 2 : 1));
        const bool whole = before == "comment" || before == "cgroup" || before == "exe";
        const bool has_quotes =
            words[i].size() >= 2 && words[i].starts_with('"') && words[i].ends_with('"');
        text += i == 0 ? "" : " ";
        text += whole && !has_quotes ? in_quotes(words[i]) : words[i];
    }
    return text;
}

std::string to_string(const Target& target) {
    return target.address.family == Family::ipv6
               ? fmt::format("[{}]:{}", target.address.to_string(), target.port)
               : fmt::format("{}:{}", target.address.to_string(), target.port);
}

std::string to_string(const Rule& rule) {
    // People say `proto tcp dport 80`: the protocol stands before the ports.
    std::vector<const Match*> matches;
    for (const Match& match : rule.matches)
        matches.push_back(&match);
    const auto ports = std::find_if(matches.begin(), matches.end(), [](const Match* match) {
        return match->key == Key::sport || match->key == Key::dport;
    });
    const auto proto = std::find_if(ports, matches.end(),
                                    [](const Match* match) { return match->key == Key::proto; });
    if (proto != matches.end())
        std::rotate(ports, proto, proto + 1);

    std::vector<std::string> words;
    for (const Match* match : matches)
        words.push_back(fmt::format("{}{} {}", to_string(match->key), match->negated ? " not" : "",
                                    value_text(rule, *match)));
    if (needs_then(rule))
        words.emplace_back("then");
    for (const Action& action : rule.actions)
        words.push_back(action_text(action));
    if (rule.limit)
        words.push_back(limit_text(*rule.limit));
    if (rule.log)
        words.emplace_back("log");
    if (!rule.comment.empty())
        words.push_back("comment " + in_quotes(rule.comment, true));
    return fmt::format("{}", fmt::join(words, " "));
}

} // namespace netctl
