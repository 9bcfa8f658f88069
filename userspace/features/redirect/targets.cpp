// SPDX-License-Identifier: GPL-2.0-only
#include "features/redirect/targets.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <fmt/format.h>

#include "features/redirect/rule_text.hpp"

namespace netctl::redirect {

namespace {

/// Adds what is not there.
Result<> add(const bpf::RawMap& map, const void* key, auto value) {
    auto there = value;
    return NETCTL_TRY(map.lookup(key, &there)) ? Result<>() : map.update(key, &value);
}

/// Takes away the keys that `wanted` does not.
template <class Key> Result<> remove_others(const bpf::RawMap& map, const auto& wanted) {
    if (!map)
        return {};
    const bpf::MapKeys keys = NETCTL_TRY(map.keys());
    for (const std::uint8_t* bytes : keys) {
        Key key{};
        std::memcpy(&key, bytes, sizeof key);
        if (!wanted(key))
            NETCTL_TRY(map.erase(&key));
    }
    return {};
}

bool is_asked(const nc_rd_to& entry) {
    return entry.used != 0 && (entry.how & NC_RD_TO_ASKED) != 0;
}

} // namespace

Result<Rule> rule_in(const ToList& list, std::size_t place) {
    const auto& text = list.texts[place];
    return parse_rule(std::string(text.data(), strnlen(text.data(), text.size())), Hook::to);
}

Result<> add_targets(const Datapath& datapath, const ToList& list) {
    for (std::size_t i = 0; i < used(list); i++) {
        const nc_rd_to& entry = list.rules[i];
        if (entry.targets == 0 || (i > 0 && list.rules[i - 1].id == entry.id))
            continue; // another tool's; or an entry of the same rule
        if (!datapath.to_targets() && entry.targets > 1)
            return Error::failed(
                "redirection was enabled by an older netctl, whose rules have one target",
                "netctl redirect disable, and enable");
        if (!datapath.to_health() && is_asked(entry))
            return Error::failed(
                "redirection was enabled by an older netctl, which asks no target whether it is up",
                "netctl redirect disable, and enable");
        if (!datapath.to_targets())
            continue;
        const std::vector<nc_rd_to_target> targets = target_entries(NETCTL_TRY(rule_in(list, i)));
        for (std::uint32_t number = 0; number < targets.size(); number++) {
            const nc_rd_to_target_key key{entry.id, number};
            NETCTL_TRY(add(datapath.to_targets(), &key, targets[number]));
            if (is_asked(entry))
                NETCTL_TRY(add(datapath.to_health(), &key, nc_rd_to_health{}));
        }
        if (is_asked(entry))
            NETCTL_TRY(add(datapath.to_failed(), &entry.id, nc_rd_to_failed{}));
    }
    return {};
}

Result<> remove_other_targets(const Datapath& datapath, const ToList& list) {
    const auto any = [&](const auto& wants) { return std::ranges::any_of(list.rules, wants); };
    NETCTL_TRY(remove_others<nc_rd_to_target_key>(datapath.to_targets(), [&](const auto& key) {
        return any([&](const nc_rd_to& entry) {
            return entry.used != 0 && entry.id == key.rule && key.number < entry.targets;
        });
    }));
    NETCTL_TRY(remove_others<nc_rd_to_target_key>(datapath.to_health(), [&](const auto& key) {
        return any([&](const nc_rd_to& entry) {
            return is_asked(entry) && entry.id == key.rule && key.number < entry.targets;
        });
    }));
    return remove_others<std::uint32_t>(datapath.to_failed(), [&](std::uint32_t id) {
        return any([&](const nc_rd_to& entry) { return is_asked(entry) && entry.id == id; });
    });
}

namespace {

template <class Value>
Result<std::vector<Value>> values_of(const bpf::RawMap& map, const nc_rd_to& rule) {
    std::vector<Value> values;
    for (std::uint32_t number = 0; map && number < rule.targets; number++) {
        const nc_rd_to_target_key key{rule.id, number};
        Value value{};
        if (NETCTL_TRY(map.lookup(&key, &value)))
            values.push_back(value);
    }
    return values;
}

} // namespace

Result<std::vector<nc_rd_to_target>> targets_of(const Datapath& datapath, const nc_rd_to& rule) {
    return values_of<nc_rd_to_target>(datapath.to_targets(), rule);
}

Result<std::vector<nc_rd_to_health>> health_of(const Datapath& datapath, const nc_rd_to& rule) {
    return values_of<nc_rd_to_health>(datapath.to_health(), rule);
}

Result<nc_rd_to_failed> failed_of(const Datapath& datapath, const nc_rd_to& rule) {
    nc_rd_to_failed failed{};
    if (datapath.to_failed())
        NETCTL_TRY(datapath.to_failed().lookup(&rule.id, &failed));
    return failed;
}

Result<AskedTargets> count_asked(const Datapath& datapath, const ToList& list) {
    AskedTargets counted;
    for (std::size_t i = 0; i < used(list); i++) {
        if (!is_asked(list.rules[i]) || (i > 0 && list.rules[i - 1].id == list.rules[i].id))
            continue;
        for (const nc_rd_to_health& health : NETCTL_TRY(health_of(datapath, list.rules[i]))) {
            counted.asked++;
            counted.down += health.state == NC_RD_TO_DOWN ? 1 : 0;
        }
    }
    return counted;
}

std::string state_name(const nc_rd_to_health& health) {
    return health.state == NC_RD_TO_UP ? "up" : health.state == NC_RD_TO_DOWN ? "down" : "unknown";
}

std::string why_not(const nc_rd_to_health& health) {
    if (health.answer != 0)
        return fmt::format("HTTP status {}", health.answer);
    return health.error != 0 ? error_text(static_cast<int>(health.error)) : "";
}

} // namespace netctl::redirect
