// SPDX-License-Identifier: GPL-2.0-only
#include "datapath/limit_state.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>
#include <vector>

#include "netctl/abi/rule.h"

namespace netctl::datapath {

namespace {

bool has_rate(const Rule& rule) {
    return std::any_of(rule.actions.begin(), rule.actions.end(),
                       [](const Action& action) { return action.kind == ActionKind::rate; });
}

/// Erases the entries of `map`, keyed by structs that begin with a rule's id, that no rule in `kept` has.
Result<> keep_only(const bpf::RawMap& map, const std::set<std::uint32_t>& kept) {
    const bpf::MapKeys keys = NETCTL_TRY(map.keys());
    for (const std::uint8_t* key : keys) {
        std::uint32_t id = 0;
        std::memcpy(&id, key, sizeof id);
        if (!kept.contains(id))
            NETCTL_TRY(map.erase(key));
    }
    return {};
}

} // namespace

Result<> prepare_state(const FindMap& find, Hook hook, std::span<const InstalledRule> rules) {
    constexpr std::uint64_t if_missing = 1; // BPF_NOEXIST: what runs keeps its state
    const auto make = [](const bpf::RawMap& map, const void* key, const void* value) -> Result<> {
        const auto status = map.update(key, value, if_missing);
        if (!status && status.error().code != EEXIST)
            return Error(status.error());
        return {};
    };
    const bpf::RawMap limits = NETCTL_TRY(find("limits"));
    const bpf::RawMap rates = hook == Hook::tc ? NETCTL_TRY(find("rates")) : bpf::RawMap();
    for (const InstalledRule& installed : rules) {
        const Rule& rule = installed.rule;
        const nc_limit_key key{rule.id, {}, 0, 0, 0};
        const nc_limit_state fresh_limit{};
        const nc_rate_state fresh_rate{};
        if (rule.limit && rule.limit->per.of == Accounts::Of::rule)
            NETCTL_TRY(make(limits, &key, &fresh_limit));
        if (hook == Hook::tc && has_rate(rule))
            NETCTL_TRY(make(rates, &rule.id, &fresh_rate));
    }
    return {};
}

Result<> forget_limits(const bpf::Program& program, const PointState& state, Hook hook) {
    std::set<std::uint32_t> limited, rated;
    for (const InstalledRule& installed : state.rules) {
        if (installed.rule.limit)
            limited.insert(installed.rule.id);
        if (has_rate(installed.rule))
            rated.insert(installed.rule.id);
    }
    const bpf::RawMap limits = NETCTL_TRY(program.map("limits"));
    NETCTL_TRY(keep_only(limits, limited));
    if (hook != Hook::tc)
        return {};
    const bpf::RawMap rates = NETCTL_TRY(program.map("rates"));
    return keep_only(rates, rated);
}

} // namespace netctl::datapath
