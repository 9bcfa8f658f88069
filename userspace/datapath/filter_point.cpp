// SPDX-License-Identifier: GPL-2.0-only
#include "datapath/filter_point.hpp"

#include <fmt/format.h>

#include "datapath/changes.hpp"
#include "datapath/edit.hpp"
#include "datapath/limit_state.hpp"
#include "datapath/session_guard.hpp"
#include "sys/netns.hpp"

namespace netctl::datapath {

namespace {

constexpr std::uint32_t default_log_rate = 10000;

/// A link on its way into the place of one whose interface is gone.
constexpr const char* next_link = "link~new";

} // namespace

Result<LivePoint> FilterPoint::open(const Root& root) const {
    auto live = NETCTL_TRY(open_point(dir(root), hook_));
    if (!live)
        return not_attached();
    return std::move(*live);
}

Result<std::vector<RuleStatus>> FilterPoint::rules() {
    const Root root = NETCTL_TRY(Root::open(root_));
    FilterStatus status =
        NETCTL_TRY(read_status(PointName{netns_, interface_}, NETCTL_TRY(open(root))));
    return std::move(status.rules);
}

Result<CommitReport> FilterPoint::commit(const Edit& edit) {
    const auto guard = NETCTL_TRY(sys::NetnsGuard::enter(netns_));
    CommitReport report;
    const LockedRoot root = NETCTL_TRY(LockedRoot::open(root_));
    const bpf::PinDir pins = dir(root);
    const LivePoint live = NETCTL_TRY(open(root));
    if (live.link_info.ifindex == 0)
        return lost();
    NETCTL_TRY(check_netns(live.state, pins));
    PointState state = live.state;
    NETCTL_TRY(edit(state));
    NETCTL_TRY(check_session(root, &live.state, state,
                             hook_ == Hook::xdp || (state.point.flags & NC_POINT_ETHER) != 0));
    NETCTL_TRY(prepare(state));
    state.point.generation++;
    if (NETCTL_TRY(commit_changes(live, state, hook_))) {
        NETCTL_TRY(root.next_generation());
        tell(live.state, state, report.notes);
        report.generation = state.point.generation;
        report.engine = state.point.engine == NC_ENGINE_LINEAR ? "linear" : "crossing";
        report.rules_apart = state.point.rules_apart;
        report.memory = state.point.table_bytes;
        return report;
    }
    const LoadedFilter loaded = NETCTL_TRY(load(root, state, &live, false));
    const Generation& next = loaded.generation;
    NETCTL_TRY(swap(live, pins, next.program));
    // From here on the new rules are in force; the rest is tidying up that any writer repeats.
    NETCTL_TRY(forget_limits(next.program, state, hook_));
    NETCTL_TRY(publish_pins(pins, next.program));
    NETCTL_TRY(root.next_generation());
    report.notes.insert(report.notes.end(), next.notes.begin(), next.notes.end());
    tell(live.state, state, report.notes);
    report.generation = state.point.generation;
    report.engine = next.engine;
    report.rules_apart = next.rules_apart;
    report.reason = next.reason;
    report.memory = next.memory;
    return report;
}

Result<> FilterPoint::swap(const LivePoint& live, const bpf::PinDir& /*dir*/,
                           const bpf::Program& program) const {
    return live.link.update(program);
}

Result<> FilterPoint::follow_log(const HandleEvent& handle,
                                 const std::function<bool()>& idle) const {
    const auto opened = [&]() -> Result<std::pair<bpf::PinDir, LivePoint>> {
        const Root root = NETCTL_TRY(Root::open(root_));
        return std::pair(dir(root), NETCTL_TRY(open(root)));
    };
    const auto& [pins, live] = NETCTL_TRY(opened()); // the root is free again
    return datapath::follow_log(pins, live, title(), handle, idle);
}

Result<> FilterPoint::simulate(const NextFrame& next, const HandleSimulated& handle) const {
    const auto guard = NETCTL_TRY(sys::NetnsGuard::enter(netns_));
    std::optional<Root> root = NETCTL_TRY(Root::open(root_));
    LivePoint live = NETCTL_TRY(open(*root));
    const LoadedFilter loaded = NETCTL_TRY(load(*root, live.state, &live, true));
    LiveSets sets = NETCTL_TRY(LiveSets::open(*root, live.state.rules));
    root.reset(); // frames may be long in coming
    const bool ether = hook_ == Hook::xdp || (live.state.point.flags & NC_POINT_ETHER) != 0;
    const bpf::RawMap result = NETCTL_TRY(loaded.object.map("result"));
    return run_simulation(
        live.state, sets, ether, result, next,
        [&](std::span<const std::uint8_t> frame) { return run(loaded.generation.program, frame); },
        handle);
}

Result<std::optional<LivePoint>> FilterPoint::left_behind(const Root& root) const {
    const bpf::PinDir pins = dir(root);
    // What pin_link() did not come to, being killed.
    if (pins.has(next_link))
        NETCTL_TRY(pins.rename(next_link, "link"));
    auto live = NETCTL_TRY(open_point(pins, hook_));
    if (live && live->link_info.ifindex != 0) {
        NETCTL_TRY(check_netns(live->state, pins));
        return attached_already();
    }
    return live;
}

void FilterSettings::apply_to(nc_point& point) const {
    if (default_verdict)
        point.default_verdict = *default_verdict;
    if (unparsed_verdict)
        point.unparsed_verdict = *unparsed_verdict;
    if (log_rate)
        point.log_rate = *log_rate;
}

Result<> FilterPoint::check_session(const Root& root, const PointState* before,
                                    const PointState& state, bool ether) const {
    if (dared_)
        return {};
    return datapath::check_session(root, before, state, {interface_, is_egress(), ether});
}

Result<PointState> FilterPoint::next_state(const Root& root, const std::optional<LivePoint>& left,
                                           const FilterSettings& settings, nc_verdict first_default,
                                           const sys::Interface& interface) const {
    PointState state;
    nc_point& point = state.point;
    if (left) {
        state = left->state;
    } else {
        point.default_verdict = first_default;
        point.unparsed_verdict = NC_VERDICT_DROP;
        point.log_rate = default_log_rate;
    }
    settings.apply_to(point);
    if (settings.rules)
        NETCTL_TRY(replace_rules(state, *settings.rules));
    NETCTL_TRY(check_session(root, nullptr, state, interface.ethernet));
    point.ifindex = interface.index;
    point.netns_inode = NETCTL_TRY(sys::current_netns_inode());
    point.generation++;
    return state;
}

Result<> FilterPoint::pin_link(const bpf::PinDir& dir, const bpf::Link& link) {
    if (!dir.has("link"))
        return dir.pin("link", link);
    NETCTL_TRY(dir.pin(next_link, link));
    return dir.rename(next_link, "link");
}

/// A point is named after its interface; the same name in another namespace is another interface.
Result<> FilterPoint::check_netns(const PointState& state, const bpf::PinDir& dir) const {
    if (state.point.netns_inode == NETCTL_TRY(sys::current_netns_inode()))
        return {};
    return Error::failed(fmt::format("{} at {} is an interface of another network namespace",
                                     interface_, dir.path()),
                         "name the namespace with --netns, or use another --root");
}

} // namespace netctl::datapath
