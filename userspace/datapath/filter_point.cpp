// SPDX-License-Identifier: GPL-2.0-only
#include "datapath/filter_point.hpp"

#include <fmt/format.h>

#include "core/abi_version.hpp"
#include "datapath/changes.hpp"
#include "datapath/edit.hpp"
#include "datapath/limit_state.hpp"
#include "datapath/session_guard.hpp"
#include "sys/netns.hpp"

namespace netctl::datapath {

namespace {

constexpr std::uint32_t default_log_rate = 10000;

} // namespace

Result<bpf::PinDir> FilterPoint::find(const Root& root) const {
    const bpf::PinDir own = dir(root);
    const auto guard = sys::NetnsGuard::enter(netns_);
    if (!guard || is_pinned(own) || !sys::find_interface(interface_))
        return own;
    const auto renamed = NETCTL_TRY(find_renamed(root, hook_, netns_, interface_));
    if (!renamed)
        return own;
    return hook_ == Hook::tc ? renamed->sub(own.name()) : *renamed;
}

Result<LivePoint> FilterPoint::open(const Root& root) const {
    auto live = NETCTL_TRY(open_point(NETCTL_TRY(find(root)), hook_));
    if (!live)
        return not_attached();
    return std::move(*live);
}

Result<> FilterPoint::follow(const LockedRoot& root, std::vector<std::string>& notes) const {
    return follow_renamed(root, hook_, netns_, notes);
}

Result<std::vector<RuleStatus>> FilterPoint::rules() {
    const Root root = NETCTL_TRY(Root::open(root_));
    LivePoint live = NETCTL_TRY(open(root));
    if (live.trouble)
        return Error(*live.trouble).within(fmt::format("the rules of {} cannot be read", title()));
    FilterStatus status = read_status(PointName{netns_, interface_}, std::move(live), hook_);
    return std::move(status.rules);
}

Result<PointState> FilterPoint::state_to_edit(const LivePoint& live, Scope scope,
                                              std::vector<std::string>& notes) const {
    if (!live.trouble)
        return live.state;
    const bool passes = could_pass(*live.trouble);
    if (scope == Scope::some || passes) {
        Error error =
            Error(*live.trouble).within(fmt::format("the rules of {} cannot be read", title()));
        error.hint = passes ? "nothing was changed; try again"
                            : "`rule replace` and `rule flush` put others in their place, "
                              "`detach` takes the filter away";
        return error;
    }
    notes.push_back(
        fmt::format("what was in force at {} could not be read ({}): counters begin anew", title(),
                    live.trouble->what));
    PointState state;
    state.point = live.state.point;
    if (reads_abi(state.point.abi_version))
        return state;
    notes.push_back(fmt::format("its settings could not be read either: the default is {} now",
                                to_string(first_default())));
    state.point.default_verdict = first_default();
    state.point.unparsed_verdict = NC_VERDICT_DROP;
    state.point.log_rate = default_log_rate;
    state.point.ifindex = live.link_info.ifindex;
    state.point.netns_inode = NETCTL_TRY(sys::current_netns_inode());
    complete(state.point, live);
    return state;
}

Result<CommitReport> FilterPoint::commit(const Edit& edit, Scope scope) {
    const auto guard = NETCTL_TRY(sys::NetnsGuard::enter(netns_));
    CommitReport report;
    const LockedRoot root = NETCTL_TRY(LockedRoot::open(root_));
    NETCTL_TRY(follow(root, report.notes));
    const bpf::PinDir pins = dir(root);
    const LivePoint live = NETCTL_TRY(open(root));
    if (live.link_info.ifindex == 0)
        return lost();
    NETCTL_TRY(check_netns(live.state, pins));
    Location location = locate({netns_, interface_}, live, hook_);
    if (location.trouble)
        return std::move(*location.trouble);
    if (location.presence == Presence::moved)
        return moved();
    PointState state = NETCTL_TRY(state_to_edit(live, scope, report.notes));
    NETCTL_TRY(edit(state));
    NETCTL_TRY(check_readable(state.rules));
    const bool known = !live.trouble && check_readable(live.state.rules);
    NETCTL_TRY(check_session(root, known ? &live.state : nullptr, state,
                             hook_ == Hook::xdp || (state.point.flags & NC_POINT_ETHER) != 0));
    NETCTL_TRY(prepare(state));
    state.point.generation++;
    report.generation = state.point.generation;
    Transaction transaction(report.notes);
    if (!live.trouble &&
        NETCTL_TRY(commit_changes(live, state, hook_, report.notes, [this] { return ready(); })))
        return std::move(transaction).commit([&](Aftermath& after) {
            after.value("the root's generation", root.next_generation(), std::uint64_t{0});
            tell(live.state, state, report.notes);
            report.engine = state.point.engine == NC_ENGINE_LINEAR ? "linear" : "crossing";
            report.rules_apart = state.point.rules_apart;
            report.memory = state.point.table_bytes;
            return report;
        });
    const LoadedFilter loaded =
        NETCTL_TRY(load(root, state, live.trouble ? nullptr : &live, false));
    const Generation& next = loaded.generation;
    NETCTL_TRY(ready());
    NETCTL_TRY(swap(live, next.program));
    return std::move(transaction).commit([&](Aftermath& after) {
        after.tidy("the state of limits", forget_limits(next.program, state, hook_));
        after.tidy("the pins of the maps", publish(pins, next.program));
        after.value("the root's generation", root.next_generation(), std::uint64_t{0});
        report.notes.insert(report.notes.end(), next.notes.begin(), next.notes.end());
        tell(live.state, state, report.notes);
        report.engine = next.engine;
        report.rules_apart = next.rules_apart;
        report.reason = next.reason;
        report.memory = next.memory;
        return report;
    });
}

Result<> FilterPoint::swap(const LivePoint& live, const bpf::Program& program) const {
    return live.link.update(program);
}

Result<> FilterPoint::publish(const bpf::PinDir& dir, const bpf::Program& program) const {
    if (dir.has("program"))
        NETCTL_TRY(dir.replace("program", program));
    return publish_pins(dir, program);
}

Result<> FilterPoint::follow_log(const HandleEvent& handle,
                                 const std::function<bool()>& idle) const {
    const auto opened = [&]() -> Result<std::pair<bpf::PinDir, LivePoint>> {
        const Root root = NETCTL_TRY(Root::open(root_));
        return std::pair(NETCTL_TRY(find(root)), NETCTL_TRY(open(root)));
    };
    const auto& [pins, live] = NETCTL_TRY(opened()); // the root is free again
    return datapath::follow_log(pins, live, title(), handle, idle);
}

Result<UnloggedPackets> FilterPoint::unlogged() const {
    const Root root = NETCTL_TRY(Root::open(root_));
    const nc_stats stats = NETCTL_TRY(read_stats(NETCTL_TRY(open(root)).program));
    return UnloggedPackets{stats.log_lost, stats.log_suppressed};
}

std::string FilterPoint::direction() const {
    return fmt::format("{} {}", to_string(hook_), is_egress() ? "egress" : "ingress");
}

Result<> FilterPoint::simulate(const nc_told& told, const NextFrame& next,
                               const HandleSimulated& handle) const {
    const auto guard = NETCTL_TRY(sys::NetnsGuard::enter(netns_));
    std::optional<Root> root = NETCTL_TRY(Root::open(root_));
    LivePoint live = NETCTL_TRY(open(*root));
    if (live.trouble)
        return Error(*live.trouble).within(fmt::format("the rules of {} cannot be read", title()));
    const LoadedFilter loaded = NETCTL_TRY(load(*root, live.state, &live, true));
    LiveSets sets = NETCTL_TRY(LiveSets::open(*root, live.state.rules));
    root.reset(); // frames may be long in coming
    const bool ether = hook_ == Hook::xdp || (live.state.point.flags & NC_POINT_ETHER) != 0;
    const bpf::RawMap result = NETCTL_TRY(loaded.object.map("result"));
    return run_simulation(
        live.state, sets, ether, told, result, next,
        [&](std::span<const std::uint8_t> frame) { return run(loaded.generation.program, frame); },
        handle);
}

Result<std::optional<LivePoint>> FilterPoint::left_behind(const LockedRoot& root,
                                                          std::vector<std::string>& notes) const {
    NETCTL_TRY(follow(root, notes));
    const bpf::PinDir pins = dir(root);
    // What pin_link() did not come to, being killed.
    if (pins.has(next_link))
        NETCTL_TRY(pins.rename(next_link, "link"));
    auto live = NETCTL_TRY(open_point(pins, hook_));
    if (live && live->link_info.ifindex != 0) {
        NETCTL_TRY(check_netns(live->state, pins));
        Location location = locate({netns_, interface_}, *live, hook_);
        if (location.trouble)
            return std::move(*location.trouble);
        if (location.presence != Presence::moved)
            return attached_already();
        const std::string parked =
            NETCTL_TRY(park(root, hook_, {netns_, interface_}, live->link_info.ifindex));
        notes.push_back(
            fmt::format("the former {} is in another network namespace, with its filter, "
                        "which goes by {} now",
                        interface_, parked));
        return std::optional<LivePoint>();
    }
    if (live && live->trouble) {
        Error error = Error(*live->trouble)
                          .within(fmt::format("the rules that {} had cannot be read", title()));
        error.hint = "`detach` forgets them";
        return error;
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
                                           const FilterSettings& settings,
                                           const sys::Interface& interface) const {
    PointState state;
    nc_point& point = state.point;
    if (left) {
        state = left->state;
    } else {
        point.default_verdict = first_default();
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

Result<> FilterPoint::make_dir(const bpf::PinDir& dir, Transaction& transaction) {
    transaction.or_else(dir.path(), [dir]() -> Result<> {
        dir.remove_if_empty();
        return {};
    });
    return dir.create();
}

Result<> FilterPoint::pin_link(const bpf::PinDir& dir, const bpf::Link& link,
                               Transaction& transaction) {
    if (!dir.has("link"))
        return dir.pin("link", link);
    transaction.or_else(dir.path_of(next_link), [dir] { return dir.unpin(next_link); });
    NETCTL_TRY(dir.pin(next_link, link));
    return dir.rename(next_link, "link");
}

Result<> FilterPoint::take_pins(const bpf::PinDir& dir, const LivePoint& live,
                                Transaction& transaction) {
    if (!live.trouble)
        transaction.or_else("the pins of the maps",
                            [dir, &live] { return publish_pins(dir, live.program); });
    return remove_pins(dir);
}

Result<LivePoint> FilterPoint::open_to_detach(const bpf::PinDir& dir) const {
    auto opened = open_point(dir, hook_);
    if (!opened.has_value() && could_pass(opened.error()))
        return std::move(opened).error();
    if (opened.has_value() && *opened)
        return std::move(**opened);
    LivePoint unknown;
    unknown.trouble = Error::failed("unknown");
    return unknown;
}

Result<bool> FilterPoint::unpin_link(const bpf::PinDir& dir) {
    const bool next = NETCTL_TRY(dir.look_for(next_link));
    if (!next && !NETCTL_TRY(dir.look_for("link")))
        return false;
    NETCTL_TRY(dir.unpin("link")); // before the one that is to come
    if (next)
        NETCTL_TRY(dir.unpin(next_link));
    return true;
}

Error FilterPoint::moved() const {
    return Error::failed(
        fmt::format("{} is in another network namespace now, with its filter", title()),
        fmt::format(
            "--netns with a root of its own filters it there; `detach {}` takes this one away",
            title()));
}

/// A point is named after its interface; the same name in another namespace is another interface.
Result<> FilterPoint::check_netns(const PointState& state, const bpf::PinDir& dir) const {
    // 0: the settings cannot be read; what is attached was looked for here.
    if (state.point.netns_inode == 0 ||
        state.point.netns_inode == NETCTL_TRY(sys::current_netns_inode()))
        return {};
    return Error::failed(fmt::format("{} at {} is an interface of another network namespace",
                                     interface_, dir.path()),
                         "name the namespace with --netns, or use another --root");
}

} // namespace netctl::datapath
