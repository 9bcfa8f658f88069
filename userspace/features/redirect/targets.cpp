// SPDX-License-Identifier: GPL-2.0-only
#include "features/redirect/targets.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "core/rule.hpp"
#include "features/redirect/rule_text.hpp"

namespace netctl::redirect {

Result<> add_targets(const Datapath& datapath, const ToList& list) {
    for (std::size_t i = 0; i < used(list); i++) {
        const nc_rd_to& entry = list.rules[i];
        if (entry.targets == 0 || (i > 0 && list.rules[i - 1].id == entry.id))
            continue; // another tool's; or an entry of the same rule
        if (!datapath.to_targets()) {
            if (entry.targets > 1)
                return Error::failed(
                    "redirection was enabled by an older netctl, whose rules have one target",
                    "netctl redirect disable, and enable");
            continue;
        }
        const auto& text = list.texts[i];
        const Rule rule = NETCTL_TRY(
            parse_rule(std::string(text.data(), strnlen(text.data(), text.size())), Hook::to));
        const std::vector<nc_rd_to_target> targets = target_entries(rule);
        for (std::uint32_t number = 0; number < targets.size(); number++) {
            const nc_rd_to_target_key key{entry.id, number};
            nc_rd_to_target there{};
            if (!NETCTL_TRY(datapath.to_targets().lookup(&key, &there)))
                NETCTL_TRY(datapath.to_targets().update(&key, &targets[number]));
        }
    }
    return {};
}

Result<> remove_other_targets(const Datapath& datapath, const ToList& list) {
    if (!datapath.to_targets())
        return {};
    const bpf::MapKeys keys = NETCTL_TRY(datapath.to_targets().keys());
    for (const std::uint8_t* bytes : keys) {
        nc_rd_to_target_key key{};
        std::memcpy(&key, bytes, sizeof key);
        const bool wanted = std::ranges::any_of(list.rules, [&](const nc_rd_to& entry) {
            return entry.used != 0 && entry.id == key.rule && key.number < entry.targets;
        });
        if (!wanted)
            NETCTL_TRY(datapath.to_targets().erase(&key));
    }
    return {};
}

Result<std::vector<nc_rd_to_target>> targets_of(const Datapath& datapath, const nc_rd_to& rule) {
    std::vector<nc_rd_to_target> targets;
    for (std::uint32_t number = 0; datapath.to_targets() && number < rule.targets; number++) {
        const nc_rd_to_target_key key{rule.id, number};
        nc_rd_to_target target{};
        if (NETCTL_TRY(datapath.to_targets().lookup(&key, &target)))
            targets.push_back(target);
    }
    return targets;
}

} // namespace netctl::redirect
