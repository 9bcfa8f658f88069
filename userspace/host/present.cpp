// SPDX-License-Identifier: GPL-2.0-only
//
// What is in force, read through the features' controllers.
#include <algorithm>

#include <fmt/format.h>

#include "features/policy/controller.hpp"
#include "features/redirect/controller.hpp"
#include "features/set/controller.hpp"
#include "features/tc/controller.hpp"
#include "features/xdp/controller.hpp"
#include "host/config.hpp"
#include "host/element_text.hpp"
#include "sys/netns.hpp"

namespace netctl::host {

namespace {

Result<std::vector<Rule>> rules_of(const std::vector<datapath::RuleStatus>& statuses,
                                   const std::string& title) {
    std::vector<Rule> rules;
    for (const datapath::RuleStatus& status : statuses) {
        if (!status.why.empty())
            return Error::failed(
                Text::format("rule {} of {} cannot be read: {}", status.rule.id, title, status.why),
                "delete it first, or `rule replace` all of them");
        rules.push_back(status.rule);
        rules.back().id = 0;
    }
    return rules;
}

/// Nothing for a point that filters nothing: its interface is gone, or the filter was taken away.
Result<std::optional<FilterConfig>> filter_of(const datapath::FilterStatus& status,
                                              FilterConfig filter) {
    using datapath::Presence;
    if (status.presence == Presence::unknown)
        return Error::failed(Text::format("whether {} {} is filtered cannot be told: {}",
                                          to_string(filter.hook), status.interface,
                                          status.trouble));
    if (status.presence != Presence::attached && status.presence != Presence::renamed)
        return std::optional<FilterConfig>();
    filter.netns = status.netns;
    filter.interface = status.presence == Presence::renamed ? status.now : status.interface;
    if (!status.trouble.empty())
        return Error::failed(
            Text::format("{} cannot be read: {}", filter.title(), status.trouble),
            "`rule replace` puts other rules in force, `detach` takes the filter away");
    filter.default_verdict = static_cast<nc_verdict>(status.settings.default_verdict);
    filter.unparsed_verdict = static_cast<nc_verdict>(status.settings.unparsed_verdict);
    filter.log_rate = status.settings.log_rate;
    filter.rules = NETCTL_TRY(rules_of(status.rules, filter.title()));
    return std::optional(std::move(filter));
}

Result<> read_filters(const RootOptions& root, HostConfig& config) {
    for (const xdp::Status& status : NETCTL_TRY(xdp::Controller(root, "").status_of_all())) {
        FilterConfig filter{.hook = Hook::xdp,
                            .netns = {},
                            .interface = {},
                            .direction = {},
                            .mode = xdp::to_string(status.mode)};
        if (auto one = NETCTL_TRY(filter_of(status, std::move(filter))))
            config.filters.push_back(std::move(*one));
    }
    for (const tc::Status& status : NETCTL_TRY(tc::Controller(root, "").status_of_all())) {
        FilterConfig filter{.hook = Hook::tc,
                            .netns = {},
                            .interface = {},
                            .direction = tc::to_string(status.direction),
                            .mode = tc::to_string(status.mode)};
        if (auto one = NETCTL_TRY(filter_of(status, std::move(filter))))
            config.filters.push_back(std::move(*one));
    }
    return {};
}

/// Of a set of names; its addresses come anew where it is made anew.
Result<> read_names(const RootOptions& root, SetConfig& set) {
    const set::NameStatus status = NETCTL_TRY(set::Controller(root).names(set.name));
    const auto netns = NETCTL_TRY(sys::netns_of_inode(status.settings.netns));
    if (!netns)
        return Error::unsupported(
            fmt::format("set '{}' reads the answers of a network namespace without a name",
                        set.name),
            "configurations have those that `ip netns` knows, and their own");
    set.netns = *netns;
    for (const set::WantedName& name : status.names)
        set.names.push_back(name.to_string());
    for (const set::Resolver& resolver : status.resolvers)
        set.resolvers.push_back(resolver.address.to_string());
    std::ranges::sort(set.names);
    std::ranges::sort(set.resolvers);
    set.grace = status.settings.grace;
    return {};
}

Result<> read_sets(const RootOptions& root, HostConfig& config) {
    const auto opened = NETCTL_TRY(datapath::Root::open(root));
    const std::uint32_t now = datapath::boottime_seconds();
    for (const std::string& name : datapath::Set::list(opened)) {
        const auto set = NETCTL_TRY(datapath::Set::open(opened, name));
        SetConfig one{.name = name, .type = set.type(), .size = set.max_entries()};
        if (set.type() == datapath::SetType::name) {
            NETCTL_TRY(read_names(root, one));
            config.sets.emplace(name, std::move(one));
            continue;
        }
        for (const datapath::SetEntry& entry : NETCTL_TRY(set.entries())) {
            const std::uint32_t expires = entry.value.expires;
            if (expires != 0 && expires <= now)
                continue; // it counts no more
            one.elements.push_back({entry.element, expires == 0 ? 0 : expires - now,
                                    (entry.value.flags & NC_SET_ABSENT) != 0});
        }
        datapath::sort_listed(one.elements);
        config.sets.emplace(name, std::move(one));
    }
    return {};
}

Result<> read_policy(const RootOptions& root, HostConfig& config) {
    const policy::Status status = NETCTL_TRY(policy::Controller(root).status());
    if (!status.enabled)
        return {};
    if (!status.trouble.empty())
        return Error::failed(Text::format("the policy cannot be read: {}", status.trouble));
    const bool by_cgroup = (status.settings.layers & 1U << NC_LAYER_CGROUP) != 0;
    const bool by_lsm = (status.settings.layers & 1U << NC_LAYER_LSM) != 0;
    PolicyConfig policy;
    policy.cgroup = status.scope;
    policy.layer = by_cgroup && by_lsm ? "both" : by_lsm ? "lsm" : "cgroup";
    policy.mode = static_cast<nc_policy_mode>(status.settings.mode);
    policy.default_verdict = static_cast<nc_policy_verdict>(status.settings.default_verdict);
    policy.log_rate = status.settings.log_rate;
    policy.rules = NETCTL_TRY(rules_of(status.rules, "the policy"));
    config.policy = std::move(policy);
    return {};
}

Result<std::vector<Rule>> listed_rules(const std::vector<redirect::Controller::ListedRule>& listed,
                                       Hook hook) {
    std::vector<Rule> rules;
    for (const auto& one : listed) {
        auto rule = parse_rule(one.text, hook);
        if (!rule)
            return std::move(rule).error().within(fmt::format("redirect rule {}", one.id));
        rules.push_back(std::move(*rule));
    }
    return rules;
}

Result<> read_redirect(const RootOptions& root, HostConfig& config) {
    redirect::Controller controller(root);
    const redirect::Status status = NETCTL_TRY(controller.status());
    if (!status.enabled)
        return {};
    if (status.draining)
        return Error::failed("redirection is being disabled", "netctl redirect disable ends that");
    RedirectConfig redirect;
    redirect.cgroup = status.cgroup;
    redirect.allow_blocking = status.allow_blocking;
    redirect.cross_netns = status.cross_netns;
    if (status.forced)
        redirect.force = {"all"}; // which of them is not kept
    redirect.rules = NETCTL_TRY(listed_rules(NETCTL_TRY(controller.rules()), Hook::redirect));
    redirect.to = NETCTL_TRY(listed_rules(NETCTL_TRY(controller.to_rules()), Hook::to));
    config.redirect = std::move(redirect);
    return {};
}

} // namespace

std::vector<std::string> element_lines(const std::vector<datapath::ListedElement>& elements) {
    std::vector<std::string> lines;
    for (const datapath::ListedElement& one : elements) {
        std::string line = datapath::to_string(one.element);
        if (one.ttl != 0)
            line += fmt::format("  expires in {} s", one.ttl);
        if (one.absent)
            line += "  absent";
        lines.push_back(std::move(line));
    }
    return lines;
}

Result<HostConfig> read_present(const RootOptions& root) {
    HostConfig config;
    NETCTL_TRY(read_sets(root, config));
    NETCTL_TRY(read_filters(root, config));
    NETCTL_TRY(read_policy(root, config));
    NETCTL_TRY(read_redirect(root, config));
    return config;
}

} // namespace netctl::host
