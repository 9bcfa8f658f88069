// SPDX-License-Identifier: GPL-2.0-only
#include "host/guard.hpp"

#include <algorithm>

#include "datapath/session_guard.hpp"
#include "sys/netlink.hpp"
#include "sys/netns.hpp"

namespace netctl::host {

namespace {

using datapath::GuardedState;
using datapath::ListedElement;

/// Whether an address is a member: the longest prefix that has it decides.
bool has_address(const SetConfig& set, const Address& address) {
    int longest = -1;
    bool member = false;
    for (const ListedElement& one : set.elements) {
        const auto* prefix = std::get_if<Prefix>(&one.element);
        if (prefix == nullptr || !prefix->contains(address) || prefix->length <= longest)
            continue;
        longest = prefix->length;
        member = !one.absent;
    }
    return member;
}

classifier::SetOracle oracle_of(const HostConfig& config) {
    const auto find = [&config](const std::string& name) -> const SetConfig* {
        const auto found = config.sets.find(name);
        return found == config.sets.end() ? nullptr : &found->second;
    };
    return {[find](const std::string& name, const Address& address) {
                const SetConfig* set = find(name);
                return set != nullptr && has_address(*set, address);
            },
            [find](const std::string& name, std::uint16_t port) {
                const SetConfig* set = find(name);
                return set != nullptr &&
                       std::ranges::any_of(set->elements, [&](const ListedElement& one) {
                           const auto* own = std::get_if<std::uint16_t>(&one.element);
                           return own != nullptr && *own == port && !one.absent;
                       });
            }};
}

GuardedState guarded(const FilterConfig& filter, const HostConfig& config) {
    GuardedState one{.state = {}, .sets = oracle_of(config)};
    one.state.point.default_verdict = filter.default_verdict;
    for (const Rule& rule : filter.rules) {
        datapath::InstalledRule installed;
        installed.rule = rule;
        one.state.rules.push_back(std::move(installed));
    }
    return one;
}

const FilterConfig* find_filter(const HostConfig& config, const std::string& title) {
    const auto found = std::ranges::find_if(
        config.filters, [&](const FilterConfig& one) { return one.title() == title; });
    return found == config.filters.end() ? nullptr : &*found;
}

} // namespace

HostConfig after_steps(HostConfig present, const std::vector<Step>& steps) {
    for (const Step& step : steps) {
        if (step.set_to) {
            SetConfig& set = present.sets[step.set_to->name];
            const bool kept = step.set_to->external && step.set_from;
            std::vector<ListedElement> elements = std::move(set.elements);
            set = *step.set_to;
            if (kept)
                set.elements = std::move(elements);
        } else if (step.set_from) {
            present.sets.erase(step.set_from->name);
        }
        if (step.filter_from || step.filter_to) {
            std::erase_if(present.filters, [&](const FilterConfig& one) {
                return one.title() ==
                       (step.filter_to ? step.filter_to->title() : step.filter_from->title());
            });
            if (step.filter_to)
                present.filters.push_back(*step.filter_to);
        }
    }
    return present;
}

Result<> check_ssh(const HostConfig& before, const HostConfig& after) {
    if (!datapath::ssh_session())
        return {};
    for (const FilterConfig& filter : after.filters) {
        const auto guard = NETCTL_TRY(sys::NetnsGuard::enter_if_there(filter.netns));
        const auto interface = sys::find_interface(filter.interface);
        if (!guard || !interface)
            continue; // what is not there cuts nobody off
        const std::string title = filter.title();
        const FilterConfig* was = find_filter(before, title);
        std::optional<GuardedState> old;
        if (was != nullptr)
            old = guarded(*was, before);
        auto checked = datapath::check_session(old, guarded(filter, after),
                                               {.interface = filter.interface,
                                                .egress = filter.direction == "egress",
                                                .ether = interface->ethernet});
        if (!checked)
            return std::move(checked).error().within(title);
    }
    return {};
}

} // namespace netctl::host
