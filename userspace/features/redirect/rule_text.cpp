// SPDX-License-Identifier: GPL-2.0-only
#include "features/redirect/rule_text.hpp"

#include <cerrno>
#include <cstring>
#include <string>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <fmt/format.h>

#include "core/rule_keys.hpp"
#include "sys/cgroup.hpp"

namespace netctl::redirect {

namespace {

constexpr Range any_port{0, 65535};

std::vector<Range> ranges_of(const Rule& rule, Key key, const Range& otherwise) {
    const Match* match = rule.find(key);
    return match != nullptr ? match->ranges : std::vector<Range>{otherwise};
}

/// What the rule's `dst` names; nothing at all is one prefix without a family.
std::vector<std::optional<Prefix>> destinations_of(const Rule& rule) {
    const Match* match = rule.find(Key::dst);
    if (match == nullptr)
        return {std::nullopt};
    return {match->prefixes.begin(), match->prefixes.end()};
}

template <class Entry> void set_destination(Entry& entry, const std::optional<Prefix>& prefix) {
    if (!prefix)
        return;
    const bool ipv4 = prefix->address.family == Family::ipv4;
    entry.family = ipv4 ? 4 : 6;
    entry.prefix_length = prefix->length;
    std::memcpy(entry.dst, prefix->address.bytes.data(), ipv4 ? 4 : 16);
}

template <class Entry> void set_ports(Entry& entry, const Range& ports) {
    entry.dport_low = static_cast<__u16>(ports.low);
    entry.dport_high = static_cast<__u16>(ports.high);
}

Result<std::uint64_t> cgroup_of(const Rule& rule) {
    const Match* match = rule.find(Key::cgroup);
    return match != nullptr ? NETCTL_TRY(sys::find_cgroup(match->path)).id : std::uint64_t{0};
}

Match match_of(Key key) {
    Match match;
    match.key = key;
    return match;
}

/// What both kinds of entries have, in the order of the keys.
template <class Entry> Rule common_of(const Entry& entry) {
    Rule rule;
    rule.id = entry.id;
    if (entry.family != 0) {
        Prefix prefix;
        prefix.address = to_address(entry.family, entry.dst);
        prefix.length = entry.prefix_length;
        rule.matches.push_back(match_of(Key::dst));
        rule.matches.back().prefixes = {prefix};
    }
    const Range ports{entry.dport_low, entry.dport_high};
    if (ports != any_port) {
        rule.matches.push_back(match_of(Key::dport));
        rule.matches.back().ranges = {ports};
    }
    return rule;
}

void add_cgroup(Rule& rule, std::uint64_t id) {
    if (id == 0)
        return;
    rule.matches.push_back(match_of(Key::cgroup));
    rule.matches.back().path = sys::cgroup_name(id).value_or(fmt::format("#{}", id));
}

} // namespace

Result<std::vector<nc_rd_rule>> rule_entries(const Rule& rule) {
    nc_rd_rule entry{};
    entry.id = rule.id;
    entry.action = rule.actions.back().kind == ActionKind::allow ? NC_RD_ALLOW : NC_RD_DENY;
    entry.cgroup = NETCTL_TRY(cgroup_of(rule));
    if (const Match* exe = rule.find(Key::exe)) {
        struct stat status {};
        if (stat(exe->path.c_str(), &status) != 0)
            return Error::system(errno, fmt::format("exe {}", exe->path));
        if (!S_ISREG(status.st_mode))
            return Error::usage(fmt::format("exe {} is no file", exe->path));
        entry.exe_inode = status.st_ino;
        entry.exe_device = major(status.st_dev) << 20 | minor(status.st_dev);
    }
    std::vector<nc_rd_rule> entries;
    for (const std::optional<Prefix>& prefix : destinations_of(rule))
        for (const Range& ports : ranges_of(rule, Key::dport, any_port)) {
            entries.push_back(entry);
            set_destination(entries.back(), prefix);
            set_ports(entries.back(), ports);
        }
    return entries;
}

Result<std::vector<nc_rd_to>> to_entries(const Rule& rule) {
    nc_rd_to entry{};
    entry.id = rule.id;
    entry.used = 1;
    const Action& action = rule.actions.back();
    const Target& first = action.targets.front();
    entry.target_port = first.port;
    std::memcpy(entry.target, first.address.bytes.data(), first.address.bits() / 8);
    entry.targets = static_cast<__u8>(action.targets.size());
    entry.how = static_cast<__u8>((action.by_source ? NC_RD_TO_BY_SOURCE : 0) |
                                  (action.health ? NC_RD_TO_ASKED : 0) |
                                  (action.health && action.health->open ? NC_RD_TO_OPEN : 0));
    entry.cgroup = NETCTL_TRY(cgroup_of(rule));
    std::vector<nc_rd_to> entries;
    for (const std::optional<Prefix>& prefix : destinations_of(rule))
        for (const Range& ports : ranges_of(rule, Key::dport, any_port))
            for (const Range& protocol : ranges_of(rule, Key::proto, {0, 0})) {
                entries.push_back(entry);
                set_destination(entries.back(), prefix);
                set_ports(entries.back(), ports);
                entries.back().protocol = static_cast<__u8>(protocol.low);
            }
    return entries;
}

std::vector<nc_rd_to_target> target_entries(const Rule& rule) {
    std::vector<nc_rd_to_target> entries;
    for (const Target& target : rule.actions.back().targets) {
        nc_rd_to_target& entry = entries.emplace_back();
        std::memcpy(entry.address, target.address.bytes.data(), target.address.bits() / 8);
        entry.port = target.port;
        entry.weight = target.weight;
    }
    return entries;
}

Rule rule_of(const nc_rd_rule& entry) {
    Rule rule = common_of(entry);
    add_cgroup(rule, entry.cgroup);
    if (entry.exe_inode != 0) {
        rule.matches.push_back(match_of(Key::exe));
        rule.matches.back().path = fmt::format("#{}:{}", entry.exe_device, entry.exe_inode);
    }
    rule.actions.emplace_back().kind =
        entry.action == NC_RD_ALLOW ? ActionKind::allow : ActionKind::deny;
    return rule;
}

Rule rule_of(const nc_rd_to& entry) {
    Rule rule = common_of(entry);
    if (entry.protocol != 0) {
        rule.matches.push_back(match_of(Key::proto));
        rule.matches.back().ranges = {{entry.protocol, entry.protocol}};
    }
    add_cgroup(rule, entry.cgroup);
    Action& action = rule.actions.emplace_back();
    action.kind = ActionKind::target;
    action.targets = {{to_address(entry.family, entry.target), entry.target_port}};
    return rule;
}

Address to_address(std::uint32_t family, const std::uint32_t* words) {
    Address address;
    address.family = family == 4 ? Family::ipv4 : Family::ipv6;
    std::memcpy(address.bytes.data(), words, family == 4 ? 4 : 16);
    return address;
}

} // namespace netctl::redirect
