// SPDX-License-Identifier: GPL-2.0-only
#include "classifier/engine.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "classifier/crossing.hpp"
#include "classifier/linear.hpp"
#include "netctl/abi/rule.h"

namespace netctl::classifier {

namespace {

/// What the rules ask about sets, in order of first appearance.
Result<> take_use(std::vector<SetUse>& uses, const SetUse& use) {
    if (std::ranges::find(uses, use) != uses.end())
        return {};
    if (uses.size() == NC_MAX_SET_USES)
        return Error::usage(
            fmt::format("'{} @{}' is one use of a set too many", to_string(use.key), use.set),
            fmt::format("the rules of one point may ask {} different questions of a field "
                        "and a set; put elements of several sets into one",
                        NC_MAX_SET_USES));
    uses.push_back(use);
    return {};
}

/// Fails on what no packet has.
Result<std::vector<SetUse>> check(std::span<const Rule> rules) {
    std::vector<SetUse> uses;
    for (const Rule& rule : rules) {
        for (const Match& match : rule.matches) {
            if (!is_of_packets(match.key))
                return Error::usage(fmt::format("packets have no '{}'", to_string(match.key)),
                                    "connections have; rules on it belong to `netctl policy`");
            if (!match.set.empty())
                NETCTL_TRY(take_use(uses, {match.key, match.set}));
        }
        if (const auto use = use_of_over(rule))
            NETCTL_TRY(take_use(uses, *use));
    }
    return uses;
}

} // namespace

std::optional<SetUse> use_of_over(const Rule& rule) {
    if (!rule.limit || !rule.limit->over)
        return std::nullopt;
    return SetUse{rule.limit->per.of == Accounts::Of::dst ? Key::dst : Key::src,
                  rule.limit->over->set};
}

Result<Compiled> compile(std::span<const Rule> rules) {
    if (rules.size() > max_rules)
        return Error::usage(fmt::format("{} rules are too many", rules.size()),
                            fmt::format("a point holds up to {}; put addresses and ports that "
                                        "are treated alike into sets",
                                        max_rules));
    const std::vector<SetUse> uses = NETCTL_TRY(check(rules));
    Result<Compiled> crossing = compile_crossing(rules, uses);
    if (crossing || crossing.error().kind != ErrorKind::usage)
        return crossing;
    // Rules that are too entangled for tables of a sensible size get the slower, smaller form.
    Result<Compiled> linear = compile_linear(rules, uses);
    if (!linear)
        return std::move(crossing).error();
    linear->reason = crossing.error().what;
    return linear;
}

} // namespace netctl::classifier
