// SPDX-License-Identifier: GPL-2.0-only
#include "host/status.hpp"

#include <algorithm>
#include <functional>
#include <numeric>

#include <fmt/format.h>

#include "datapath/root.hpp"

namespace netctl::host {

namespace {

using Hooks = std::vector<HookStatus>;

/// How long `redirect disable` waits for readers that do not read.
constexpr unsigned drain_ms = 5000;

void add(std::vector<std::string>& texts, std::uint64_t count, const char* what) {
    if (count != 0)
        texts.push_back(fmt::format("{} {}", count, what));
}

/// Rules that are in force, and whose texts this version cannot read.
void add_unreadable(HookStatus& hook, const std::vector<datapath::RuleStatus>& rules) {
    const auto count = std::ranges::count_if(
        rules, [](const datapath::RuleStatus& rule) { return !rule.why.empty(); });
    add(hook.troubles, static_cast<std::uint64_t>(count), "rules cannot be read");
}

/// What packet filters of both hooks have in common.
HookStatus filter_status(const std::string& feature, const std::string& place,
                         const datapath::FilterStatus& filter) {
    using datapath::Presence;
    const nc_stats& stats = filter.stats;
    HookStatus hook{feature,
                    place,
                    filter.netns,
                    datapath::to_string(filter.presence),
                    filter.rules.size(),
                    stats.packets,
                    stats.verdicts[NC_VERDICT_DROP] + filter.rejects.packets};
    switch (filter.presence) {
    case Presence::attached: break;
    case Presence::renamed:
        hook.remarks.push_back(fmt::format("its interface is called {} now", filter.now));
        break;
    case Presence::moved:
        hook.remarks.emplace_back(
            "its interface is in another network namespace now, and filtered there");
        break;
    case Presence::vanished: hook.troubles.emplace_back("the interface is gone"); break;
    case Presence::returned:
        hook.troubles.emplace_back(
            "the interface was gone and is back, unfiltered: attach it again");
        break;
    case Presence::removed:
        hook.troubles.emplace_back("somebody removed the filter: attach it again");
        break;
    case Presence::unknown:
        hook.troubles.emplace_back("whether it is attached cannot be told");
        break;
    }
    if (!filter.trouble.empty())
        hook.troubles.push_back("not all of it can be read: " + filter.trouble);
    add_unreadable(hook, filter.rules);
    hook.in_force = hook.troubles.empty();
    add(hook.troubles, stats.redirect_failed, "packets not redirected, since the target is gone");
    add(hook.troubles, stats.limit_failed, "packets without room for a limit's state");
    add(hook.troubles, stats.mirror_failed, "copies not mirrored");
    add(hook.troubles, stats.rewrite_failed, "headers not rewritten");
    add(hook.troubles, filter.rejects.failed, "answers to rejected packets that could not be made");
    add(hook.troubles, filter.over_adds.full, "addresses not added to a set: it has no room");
    add(hook.troubles, filter.syncookies.failed, "SYNs whose answer could not be made");
    add(hook.remarks, stats.log_lost, "log events lost: the buffer was full");
    return hook;
}

/// What an interrupted `enable` or `disable` left.
HookStatus unfinished(const std::string& feature) {
    HookStatus hook{feature, "", "", "unfinished"};
    hook.in_force = false;
    hook.troubles.push_back(
        fmt::format("a command that was interrupted left hooks, which do nothing: `netctl {} "
                    "disable` takes them away",
                    feature));
    return hook;
}

} // namespace

HookStatus hook_of(const xdp::Status& point) {
    return filter_status("xdp", point.interface, point);
}

HookStatus hook_of(const tc::Status& point) {
    HookStatus hook = filter_status(
        "tc", fmt::format("{} {}", point.interface, tc::to_string(point.direction)), point);
    if (point.fq_missing) {
        hook.in_force = false;
        hook.troubles.emplace_back("the qdisc fq is gone: rates drop instead of delaying");
    }
    return hook;
}

std::optional<HookStatus> hook_of(const policy::Status& status) {
    if (status.unfinished)
        return unfinished("policy");
    if (!status.enabled)
        return {};
    const nc_policy_stats& stats = status.stats;
    HookStatus hook{"policy", status.scope, "", "enabled", status.rules.size()};
    hook.remarks = status.notes;
    bool live = false;
    for (const nc_policy_layer layer : {NC_LAYER_CGROUP, NC_LAYER_LSM}) {
        live = live || status.layers[layer].live;
        // Both layers see a connection; the one that judged more saw all that the other did.
        const std::uint64_t judged = stats.allowed[layer] + stats.denied[layer];
        hook.judged = std::max(hook.judged, judged);
        hook.refused = std::max<std::uint64_t>(hook.refused, stats.denied[layer]);
    }
    // A layer that this kernel does not have is none of an enabled policy's troubles.
    if (status.lost || !live)
        hook.troubles.emplace_back("its cgroup is gone, or was made anew");
    if (!status.trouble.empty())
        hook.troubles.push_back("its rules cannot be read: " + status.trouble);
    add_unreadable(hook, status.rules);
    hook.in_force = hook.troubles.empty();
    for (const std::uint64_t failed : stats.failed)
        add(hook.troubles, failed, "connections met a broken table and were denied");
    hook.state = status.lost || !live ? "not live" : "live";
    if (status.settings.mode == NC_POLICY_AUDIT)
        hook.remarks.emplace_back("in mode audit: nothing is refused");
    add(hook.remarks, stats.log_lost, "log events lost: the buffer was full");
    return hook;
}

std::optional<HookStatus> hook_of(const redirect::Status& status) {
    if (status.unfinished)
        return unfinished("redirect");
    if (!status.enabled)
        return {};
    const nc_rd_stats& stats = status.stats;
    HookStatus hook{
        "redirect",
        status.cgroup,
        "",
        status.draining ? "draining" : "enabled",
        status.rules + status.to_rules,
        stats.announced,
        std::accumulate(std::begin(stats.on_tcp), std::end(stats.on_tcp), std::uint64_t{0})};
    if (status.rules != 0 && !status.joiner && !status.draining)
        hook.troubles.emplace_back("no joiner runs, so no connection joins: `netctl redirect run`");
    if (!status.live)
        hook.troubles.emplace_back("its cgroup is gone, or was made anew");
    hook.in_force = hook.troubles.empty();
    if (status.to_asked != 0 && !status.joiner && !status.draining)
        hook.troubles.emplace_back(
            "nobody asks targets whether they are up, so that stays: `netctl redirect run`");
    add(hook.troubles, stats.helper_failed, "times the kernel had no memory for a connection");
    add(hook.remarks, status.to_down, "targets are down: `netctl redirect to list`");
    if (status.forced)
        hook.remarks.emplace_back("forced: cases of the self-test failed");
    return hook;
}

namespace {

template <class Status> Hooks hooks_of(const std::vector<Status>& points) {
    Hooks hooks;
    for (const Status& point : points)
        hooks.push_back(hook_of(point));
    return hooks;
}

template <class Status> Hooks hooks_of(const Status& status) {
    const auto hook = hook_of(status);
    return hook ? Hooks{*hook} : Hooks();
}

Result<Hooks> xdp_hooks(const RootOptions& root) {
    return hooks_of(NETCTL_TRY(xdp::Controller(root, "").status_of_all()));
}

Result<Hooks> tc_hooks(const RootOptions& root) {
    return hooks_of(NETCTL_TRY(tc::Controller(root, "").status_of_all()));
}

Result<Hooks> policy_hooks(const RootOptions& root) {
    return hooks_of(NETCTL_TRY(policy::Controller(root).status(policy::Controller::Why::skip)));
}

Result<Hooks> redirect_hooks(const RootOptions& root) {
    return hooks_of(NETCTL_TRY(redirect::Controller(root).status()));
}

struct Feature {
    const char* name;
    std::function<Result<Hooks>(const RootOptions&)> hooks;
};

/// Every feature that holds hooks. A new one is a line here.
const std::vector<Feature>& features() {
    static const std::vector<Feature> all{{"xdp", xdp_hooks},
                                          {"tc", tc_hooks},
                                          {"policy", policy_hooks},
                                          {"redirect", redirect_hooks}};
    return all;
}

} // namespace

std::optional<bool> HostStatus::healthy() const {
    if (!std::ranges::all_of(hooks, [](const HookStatus& hook) { return hook.troubles.empty(); }))
        return false;
    return unread.empty() ? std::optional(true) : std::nullopt;
}

HookStatus hook_of(const std::string& set, const set::NameStatus& names) {
    const nc_name_stats& stats = names.stats;
    HookStatus hook{.feature = "names",
                    .place = set,
                    .netns = {},
                    .state = names.trouble.empty() ? "reading" : "vanished",
                    .rules = names.names.size(),
                    .judged = stats.answers,
                    .refused = stats.unasked + stats.astray,
                    .in_force = names.trouble.empty()};
    if (!names.trouble.empty())
        hook.troubles.push_back(names.trouble);
    const auto tell = [](std::vector<std::string>& words, std::uint64_t count, const char* what) {
        if (count != 0)
            words.push_back(fmt::format("{} {}", count, what));
    };
    tell(hook.troubles, stats.full, "addresses found no room: a larger --size holds them");
    tell(hook.troubles, stats.failed, "messages could not be read: too many at once");
    tell(hook.remarks, stats.truncated,
         "answers were truncated, and what comes over TCP is not read");
    return hook;
}

Result<HostStatus> read_status(const RootOptions& root) {
    HostStatus status;
    const datapath::OneReading reading = NETCTL_TRY(datapath::OneReading::begin(root));
    for (const Feature& feature : features()) {
        auto hooks = feature.hooks(root);
        if (!hooks) {
            status.unread.push_back(
                fmt::format("{}: {}", feature.name, hooks.error().what.string()));
            continue;
        }
        std::ranges::move(*hooks, std::back_inserter(status.hooks));
    }
    auto sets = set::Controller(root).list();
    if (sets)
        for (const set::SetStatus& set : *sets)
            if (set.names)
                status.hooks.push_back(hook_of(set.name, *set.names));
    if (sets)
        status.sets = std::move(*sets);
    else
        status.unread.push_back(fmt::format("set: {}", sets.error().what.string()));
    auto waits = pending(NETCTL_TRY(datapath::Root::open(root)));
    if (waits.has_value())
        status.pending = std::move(*waits);
    else
        status.unread.push_back(waits.error().what.string());
    return status;
}

Detached detach_all(const RootOptions& root) {
    Detached all;
    const auto tell = [&](const std::string& what, const auto& outcome) {
        if (outcome.has_value())
            all.done.push_back(what);
        else
            all.failed.push_back(fmt::format("{}: {}", what, outcome.error().what.string()));
    };
    const auto status = redirect::Controller(root).status();
    if (!status.has_value() || status->enabled || status->unfinished)
        tell("redirect", redirect::Controller(root).disable(drain_ms));
    const auto frames = xdp::Controller(root, "").status_of_all();
    if (!frames)
        tell("xdp", frames);
    else
        for (const xdp::Status& point : *frames)
            tell("xdp " + point.interface,
                 xdp::Controller(root, point.netns).detach(point.interface));
    const auto packets = tc::Controller(root, "").status_of_all();
    if (!packets)
        tell("tc", packets);
    else
        for (const tc::Status& point : *packets)
            tell(fmt::format("tc {} {}", point.interface, tc::to_string(point.direction)),
                 tc::Controller(root, point.netns).detach(point.interface, point.direction));
    const auto policy = policy::Controller(root).status();
    if (!policy.has_value() || policy->enabled || policy->unfinished)
        tell("policy", policy::Controller(root).disable());
    return all;
}

} // namespace netctl::host
