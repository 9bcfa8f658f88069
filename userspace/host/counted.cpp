// SPDX-License-Identifier: GPL-2.0-only
#include "host/counted.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "datapath/root.hpp"
#include "datapath/rule_command.hpp"
#include "host/status.hpp"

namespace netctl::host {

namespace {

using Rows = std::vector<Counted>;

/// What packet filters of both hooks have in common.
void add_filter(Rows& rows, const HookStatus& hook, const datapath::FilterStatus& filter) {
    Counted row{hook.feature, hook.place, hook.netns, {}, "all"};
    const nc_stats& stats = filter.stats;
    row.count = stats.packets;
    row.bytes = stats.bytes;
    row.refused = stats.verdicts[NC_VERDICT_DROP] + filter.rejects.packets;
    rows.push_back(row);
    for (const datapath::RuleStatus& rule : filter.rules) {
        row.rule_id = rule.rule.id;
        row.what = datapath::text_of(rule);
        row.count = rule.counter.packets;
        row.bytes = rule.counter.bytes;
        row.refused = rule.counter.over_packets;
        rows.push_back(row);
    }
    row.rule_id.reset();
    row.what = "by no rule";
    row.count = stats.default_packets;
    row.bytes = stats.default_bytes;
    row.refused = filter.settings.default_verdict == NC_VERDICT_DROP ? stats.default_packets : 0;
    rows.push_back(row);
}

Result<> add_xdp(Rows& rows, const RootOptions& root) {
    for (const xdp::Status& one : NETCTL_TRY(xdp::Controller(root, "").status_of_all()))
        add_filter(rows, hook_of(one), one);
    return {};
}

Result<> add_tc(Rows& rows, const RootOptions& root) {
    for (const tc::Status& one : NETCTL_TRY(tc::Controller(root, "").status_of_all()))
        add_filter(rows, hook_of(one), one);
    return {};
}

Result<> add_policy(Rows& rows, const RootOptions& root) {
    const policy::Status status =
        NETCTL_TRY(policy::Controller(root).status(policy::Controller::Why::skip));
    const auto hook = hook_of(status);
    if (!hook)
        return {};
    Counted row{hook->feature, hook->place, hook->netns, {}, "all"};
    row.count = hook->judged;
    row.refused = hook->refused;
    rows.push_back(row);
    for (const datapath::RuleStatus& rule : status.rules) {
        row.rule_id = rule.rule.id;
        row.what = datapath::text_of(rule);
        // Connections by layer (RuleStatus); the layer that judged more saw all that the other did.
        row.count = std::max(rule.counter.packets, rule.counter.bytes);
        row.refused = std::max(rule.counter.over_packets, rule.counter.over_bytes);
        rows.push_back(row);
    }
    row.rule_id.reset();
    row.what = "by no rule";
    row.count =
        std::max(status.stats.by_default[NC_LAYER_CGROUP], status.stats.by_default[NC_LAYER_LSM]);
    row.refused.reset();
    rows.push_back(row);
    return {};
}

Result<> add_redirect(Rows& rows, const RootOptions& root) {
    const redirect::Status status = NETCTL_TRY(redirect::Controller(root).status());
    const auto hook = hook_of(status);
    if (!hook)
        return {};
    const nc_rd_stats& stats = status.stats;
    Counted row{hook->feature, hook->place, hook->netns, {}, "redirected"};
    row.count = stats.redirected_messages;
    row.bytes = stats.redirected_bytes;
    rows.push_back(row);
    row.what = "on TCP";
    row.count = stats.passed_messages;
    row.bytes = stats.passed_bytes;
    rows.push_back(row);
    return {};
}

Result<> add_sets(Rows& rows, const RootOptions& root) {
    for (const set::SetStatus& set : NETCTL_TRY(set::Controller(root).list())) {
        Counted row{"set", set.name, "", {}, "elements"};
        row.count = set.size.elements;
        rows.push_back(row);
    }
    return {};
}

struct Counting {
    const char* name;
    Result<> (*add)(Rows&, const RootOptions&);
};

/// Every feature that counts. A new one is a line here.
constexpr Counting all_that_count[] = {{"xdp", add_xdp},
                                       {"tc", add_tc},
                                       {"policy", add_policy},
                                       {"redirect", add_redirect},
                                       {"set", add_sets}};

} // namespace

Result<AllCounted> read_counted(const RootOptions& root) {
    AllCounted all;
    const datapath::OneReading reading = NETCTL_TRY(datapath::OneReading::begin(root));
    for (const Counting& feature : all_that_count)
        if (const auto added = feature.add(all.rows, root); !added)
            all.unread.push_back(fmt::format("{}: {}", feature.name, added.error().what.string()));
    return all;
}

} // namespace netctl::host
