// SPDX-License-Identifier: GPL-2.0-only
#include <map>

#include <fmt/format.h>

#include "bpf/per_cpu_sum.hpp"
#include "features/policy/controller.hpp"
#include "features/policy/layers.hpp"
#include "features/policy/state.hpp"

namespace netctl::policy {

using datapath::InstalledRule;
using datapath::Root;

namespace {

/// Counters of the rules, in their order: connections by layer.
Result<std::vector<nc_counter>> read_counters(const bpf::RawMap& outer,
                                              const std::vector<InstalledRule>& rules) {
    std::map<std::uint32_t, bpf::RawMap> chunks;
    std::vector<nc_counter> totals;
    for (const InstalledRule& installed : rules) {
        const std::uint32_t number = installed.slot / NC_COUNTER_CHUNK;
        auto chunk = chunks.find(number);
        if (chunk == chunks.end()) {
            auto opened = NETCTL_TRY(inner_map(outer, number));
            if (!opened)
                return Error::failed(fmt::format("the counters have no chunk {}", number));
            chunk = chunks.emplace(number, std::move(*opened)).first;
        }
        nc_counter total{};
        const std::uint32_t index = installed.slot % NC_COUNTER_CHUNK;
        for (const nc_policy_counter& value : NETCTL_TRY(
                 (bpf::lookup_per_cpu<std::uint32_t, nc_policy_counter>(chunk->second, index)))) {
            total.packets += value.matched[NC_LAYER_CGROUP];
            total.bytes += value.matched[NC_LAYER_LSM];
            total.over_packets += value.over[NC_LAYER_CGROUP];
            total.over_bytes += value.over[NC_LAYER_LSM];
        }
        totals.push_back(total);
    }
    return totals;
}

} // namespace

Result<Status> Controller::status(Why why) const {
    const Root root = NETCTL_TRY(Root::open(root_));
    const auto live = NETCTL_TRY(open_live(root));
    Status status;
    if (!live) {
        status.unfinished = policy_dir(root).exists();
        return status;
    }
    status.enabled = true;
    status.settings = live->head;
    status.scope = live->head.scope;
    const auto lost = NETCTL_TRY(ground_lost(root, live->head));
    status.lost = lost.has_value();
    for (std::size_t layer = 0; layer < NC_LAYERS; layer++) {
        LayerStatus& about = status.layers[layer];
        about.live = (live->head.layers & 1U << layer) != 0;
        if (about.live && lost) {
            about.live = false;
            about.why = *lost;
        }
        if (about.live || !about.why.empty() || why == Why::skip)
            continue;
        const auto loads = load_layer(static_cast<nc_policy_layer>(layer));
        about.why =
            loads
                ? "it was not asked for, or had no effect when it was tried: `netctl doctor` tells"
                : loads.error().what;
    }
    if (status.lost)
        status.notes.push_back(to_attach_anew(live->head));
    if (live->trouble) {
        status.trouble = live->trouble->what;
        status.notes.push_back(fmt::format("its rules cannot be read: {}", status.trouble));
    }
    const bpf::RawMap stats = NETCTL_TRY(live->program.map("stats"));
    status.stats = NETCTL_TRY(bpf::sum_per_cpu<nc_policy_stats>(stats));
    const bpf::RawMap counters = NETCTL_TRY(live->program.map("counters"));
    const auto totals = NETCTL_TRY(read_counters(counters, live->rules));
    for (std::size_t i = 0; i < totals.size(); i++) {
        const Rule& rule = live->rules[i].rule;
        status.rules.push_back({rule, totals[i], live->rules[i].unreadable, live->rules[i].why});
        const Match* exe = rule.find(Key::exe);
        if (!exe)
            continue;
        const auto id = find_exe(exe->path);
        if (!id)
            status.notes.push_back(
                fmt::format("rule {}: there is no executable file {}", rule.id, exe->path));
        else if (!live->exes.contains(*id))
            status.notes.push_back(fmt::format(
                "rule {}: {} is another file than when the rules were last changed; `netctl "
                "policy enable` without options takes the present one",
                rule.id, exe->path));
    }
    return status;
}

} // namespace netctl::policy
