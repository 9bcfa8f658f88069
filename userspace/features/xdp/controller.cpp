// SPDX-License-Identifier: GPL-2.0-only
#include "features/xdp/controller.hpp"

#include <algorithm>
#include <cerrno>
#include <set>

#include <fmt/format.h>

#include "bpf/pin_dir.hpp"
#include "datapath/filter_point.hpp"
#include "datapath/generation.hpp"
#include "datapath/root.hpp"
#include "netctl/abi/classify.h"
#include "sys/netlink.hpp"
#include "sys/netns.hpp"
#include "sys/text_file.hpp"
#include "xdp_filter.skel.h"
#include "xdp_filter_ct.skel.h"

namespace netctl::xdp {

using datapath::FilterPoint;
using datapath::Generation;
using datapath::GenerationRequest;
using datapath::LivePoint;
using datapath::LoadedFilter;
using datapath::LockedRoot;
using datapath::PointState;
using datapath::Root;

namespace {

constexpr const char* program_name = "xdp_filter";

/// Interfaces that the rules name, once each: their number sizes the map before it is made.
std::size_t count_devices(const PointState& state) {
    std::vector<std::string> names;
    for (const auto& installed : state.rules)
        for (const Action& action : installed.rule.actions)
            if (!action.device.empty())
                names.push_back(action.device);
    std::sort(names.begin(), names.end());
    names.erase(std::unique(names.begin(), names.end()), names.end());
    return names.size();
}

Error taken(const std::string& interface, const bpf::XdpOccupant& occupant) {
    return Error::failed(
        fmt::format("{} already has the XDP program '{}' (id {}, {} mode)", interface,
                    occupant.program_name, occupant.program_id, to_string(occupant.mode)),
        "--replace takes the interface from it; `bpftool prog show id ID` tells more about it");
}

/// What to do about a driver that refuses, by what the kernel says.
std::string native_hint(int code, const sys::Interface& interface) {
    if (code == ERANGE || code == EINVAL)
        return fmt::format("the driver may want a smaller MTU than {} or other offloads (`ip link "
                           "set {} mtu 1500`, `ethtool -K {} lro off`); --mode generic works with "
                           "any",
                           interface.mtu, interface.name, interface.name);
    return "--mode generic works on any interface";
}

Result<bpf::Link> attach_link(const sys::Interface& interface, const bpf::Program& program,
                              const AttachRequest& request, AttachReport& report) {
    if (request.mode != ModeChoice::generic) {
        auto link = bpf::attach_xdp(interface.index, program, bpf::XdpMode::native);
        if (link) {
            report.mode = bpf::XdpMode::native;
            return link;
        }
        if (link.error().code == EBUSY)
            return taken(interface.name, NETCTL_TRY(bpf::query_xdp(interface.index)));
        if (request.mode == ModeChoice::native) {
            Error error = std::move(link).error();
            error.kind = ErrorKind::unsupported;
            error.hint = native_hint(error.code, interface);
            return std::move(error).within(
                fmt::format("{} has no native mode for this program", interface.name));
        }
        report.notes.push_back(fmt::format("{} is attached in generic mode, since native mode is "
                                           "not to be had: {}",
                                           interface.name, link.error().what));
    }
    auto link = bpf::attach_xdp(interface.index, program, bpf::XdpMode::generic);
    if (!link) {
        if (link.error().code == EBUSY)
            return taken(interface.name, NETCTL_TRY(bpf::query_xdp(interface.index)));
        return std::move(link).error().within(interface.name);
    }
    report.mode = bpf::XdpMode::generic;
    return link;
}

/// Takes an interface over from a program that is attached without a link: in one step, so there is never a
/// moment without a program, and if ours is refused the other stays. The kernel lets no link do that, so
/// ours is attached without one, too: its pinned program leads to it.
Result<> take_over(const sys::Interface& interface, const bpf::PinDir& dir,
                   const bpf::Program& program, const bpf::XdpOccupant& occupant,
                   Transaction& transaction) {
    transaction.or_else(dir.path_of("program"), [dir] { return dir.unpin("program"); });
    NETCTL_TRY(dir.replace("program", program));
    auto status = bpf::replace_xdp(interface.index, program, occupant.mode, occupant.program_id);
    if (status)
        return {};
    const std::string hint =
        status.error().code == EBUSY
            ? "it is held by a link of somebody else's: end its owner, or remove its pin"
            : "the other program is still attached";
    return Error::failed(fmt::format("cannot take {} from the XDP program '{}' (id {}): {}",
                                     interface.name, occupant.program_name, occupant.program_id,
                                     status.error().what),
                         hint);
}

/// Refuses what --replace cannot do in one step.
Result<> check_take_over(const sys::Interface& interface, const AttachRequest& request,
                         const bpf::XdpOccupant& occupant) {
    if (!request.replace)
        return taken(interface.name, occupant);
    const bool native = occupant.mode == bpf::XdpMode::native;
    if (occupant.mode == bpf::XdpMode::offload || (request.mode == ModeChoice::native && !native) ||
        (request.mode == ModeChoice::generic && native))
        return Error::failed(
            fmt::format(
                "the XDP program '{}' (id {}) runs in {} mode on {}, and another mode cannot "
                "take over from it without a moment in which nothing filters",
                occupant.program_name, occupant.program_id, to_string(occupant.mode),
                interface.name),
            occupant.mode == bpf::XdpMode::offload
                ? "detach it first"
                : fmt::format("--mode {}, or detach it first", to_string(occupant.mode)));
    return {};
}

/// The filter of one interface.
class Point : public FilterPoint {
  public:
    Point(RootOptions root, std::string netns, std::string interface)
        : FilterPoint(Hook::xdp, std::move(root), std::move(netns), std::move(interface)) {}

    bpf::PinDir dir(const Root& root) const override {
        return root.dir().sub("xdp").sub(datapath::point_name(netns(), interface()));
    }

    Result<LoadedFilter> load(const Root& root, PointState& state, const LivePoint* previous,
                              bool simulate) const override {
        const auto [skeleton, object] =
            NETCTL_TRY(datapath::ask_conntrack(state.rules) ? bpf::open_object<xdp_filter_ct>()
                                                            : bpf::open_object<xdp_filter>());
        std::vector<std::uint32_t> targets; // their interfaces, by the numbers that actions have
        const std::size_t devices = std::max<std::size_t>(count_devices(state), 1);
        NETCTL_TRY(object.set_max_entries("devices", static_cast<std::uint32_t>(devices)));
        const GenerationRequest request{program_name,
                                        Hook::xdp,
                                        &state,
                                        previous,
                                        [&](const std::string& device) -> Result<std::uint32_t> {
                                            targets.push_back(
                                                NETCTL_TRY(sys::find_interface(device)).index);
                                            return static_cast<std::uint32_t>(targets.size() - 1);
                                        },
                                        simulate};
        Generation generation = NETCTL_TRY(datapath::load_generation(object, root, request));
        const bpf::RawMap map = NETCTL_TRY(object.map("devices"));
        for (std::uint32_t i = 0; i < targets.size(); i++) {
            const std::uint32_t value[2]{targets[i], 0}; // bpf_devmap_val: no program
            NETCTL_TRY(map.update(&i, value));
        }
        return LoadedFilter{skeleton, object, std::move(generation)};
    }

    Error not_attached() const override {
        return Error::failed(fmt::format("no XDP filter is attached to {}", interface()),
                             fmt::format("attach one with `netctl xdp attach {}`", interface()));
    }

    nc_verdict first_default() const override { return NC_VERDICT_PASS; }

  protected:
    void complete(nc_point& point, const LivePoint& live) const override {
        const auto occupant = bpf::query_xdp(live.link_info.ifindex);
        if (occupant)
            point.mode = static_cast<__u32>(occupant->mode);
    }

    Result<> swap(const LivePoint& live, const bpf::Program& program) const override {
        if (live.link)
            return live.link.update(program);
        const std::uint32_t ifindex = live.link_info.ifindex;
        return bpf::replace_xdp(ifindex, program, NETCTL_TRY(bpf::query_xdp(ifindex)).mode,
                                live.link_info.program_id);
    }

    Error attached_already() const override {
        return Error::failed(
            fmt::format("netctl's XDP filter is attached to {} already", interface()),
            "`netctl xdp rule` changes its rules, `netctl xdp set` its default; detach it first to "
            "change "
            "its mode");
    }

    Error lost() const override {
        return Error::failed(
            fmt::format("{} is gone, or was: its rules cannot be changed until it is attached "
                        "again",
                        interface()),
            fmt::format("`netctl xdp attach {}` once it is back; `detach` forgets its rules",
                        interface()));
    }

    /// What rules come to on a veth that does not meet what they need of it.
    void tell(const PointState& before, const PointState& after,
              std::vector<std::string>& notes) const override {
        tell_of_redirects(before, after, notes);
        tell_of_cookies(before, after, notes);
        // The driver looks at what its peer's program has sent only if there is a program there, too.
        const auto sends_back = [](const Rule& rule) {
            const ActionKind kind = rule.actions.back().kind;
            return kind == ActionKind::tx || kind == ActionKind::reject ||
                   datapath::answers_syns(rule);
        };
        if (after.point.mode != static_cast<__u32>(bpf::XdpMode::native) ||
            !has_any(after, sends_back) || has_any(before, sends_back))
            return;
        const auto own = sys::find_interface(interface());
        if (own && own->kind == "veth")
            notes.push_back(fmt::format(
                "{0} is a veth: what 'reject', 'syncookie' and 'tx' send back in native mode "
                "arrives only if "
                "the "
                "interface at its other end has an XDP program, too; attach with --mode generic, "
                "or reject in tc",
                interface()));
    }

    /// Whether a rule that can be read is one of these.
    template <class Wanted> static bool has_any(const PointState& state, const Wanted& wanted) {
        return std::any_of(state.rules.begin(), state.rules.end(),
                           [&](const datapath::InstalledRule& installed) {
                               return !installed.rule.actions.empty() && wanted(installed.rule);
                           });
    }

    /// What the settings of the interface's network namespace come to.
    static void tell_of_cookies(const PointState& before, const PointState& after,
                                std::vector<std::string>& notes) {
        const auto over_limit = [](const Rule& rule) {
            return rule.limit && rule.limit->over_syncookie;
        };
        const bool over = has_any(after, over_limit) && !has_any(before, over_limit);
        if (!has_any(after, datapath::answers_syns) ||
            (has_any(before, datapath::answers_syns) && !over))
            return;
        const auto cookies = sys::read_text("/proc/sys/net/ipv4/tcp_syncookies");
        if (cookies && cookies->starts_with('0'))
            notes.push_back(fmt::format(
                "net.ipv4.tcp_syncookies is 0: the kernel gives no cookies, and {}; with 1 it "
                "gives them while the queue of a listener is full",
                over ? "'over syncookie' drops" : "'syncookie' lets everything pass"));
        else if (cookies && over && !cookies->starts_with('2'))
            notes.emplace_back("'over syncookie' drops SYNs while the queue of their listener has "
                               "room, unless net.ipv4.tcp_syncookies is 2");
        const auto times = sys::read_text("/proc/sys/net/ipv4/tcp_timestamps");
        if (times && !times->starts_with('2'))
            notes.emplace_back("connections made by 'syncookie' have no window scaling and no "
                               "SACK, unless net.ipv4.tcp_timestamps is 2");
    }

    /// veth hands over frames whose checksums the sender's stack left to hardware; XDP does not fill them in.
    static void tell_of_redirects(const PointState& before, const PointState& after,
                                  std::vector<std::string>& notes) {
        std::set<std::string> known;
        for (const auto& installed : before.rules)
            for (const Action& action : installed.rule.actions)
                known.insert(action.device);
        for (const auto& installed : after.rules)
            for (const Action& action : installed.rule.actions) {
                if (action.device.empty() || !known.insert(action.device).second)
                    continue;
                const auto target = sys::find_interface(action.device);
                if (target && target->kind == "veth")
                    notes.push_back(fmt::format("{} is a veth: what a host or container sends over "
                                                "one has no checksums, and "
                                                "redirected TCP and UDP are dropped at the "
                                                "receiver, unless the sender has them "
                                                "made: `ethtool -K IFACE tx off` on its interface",
                                                action.device));
            }
    }

    Result<> run(const bpf::Program& program, std::span<const std::uint8_t> frame) const override {
        NETCTL_TRY(bpf::test_run(program, frame));
        return {};
    }
};

} // namespace

std::string to_string(bpf::XdpMode mode) {
    switch (mode) {
    case bpf::XdpMode::native: return "native";
    case bpf::XdpMode::generic: return "generic";
    case bpf::XdpMode::offload: return "offload";
    case bpf::XdpMode::none: break;
    }
    return "none";
}

std::unique_ptr<FilterPoint> Controller::point(const std::string& interface) const {
    return std::make_unique<Point>(root_, netns_, interface);
}

Result<AttachReport> Controller::attach(const AttachRequest& request) const {
    const auto guard = NETCTL_TRY(sys::NetnsGuard::enter(netns_));
    AttachReport report;
    const LockedRoot root = NETCTL_TRY(LockedRoot::acquire(root_));
    const sys::Interface interface = NETCTL_TRY(sys::find_interface(request.interface));
    if (!interface.ethernet)
        return Error::unsupported(fmt::format("{} is no Ethernet device", interface.name),
                                  "netctl tc works on devices without Ethernet headers");
    Point filter(root_, netns_, interface.name);
    if (request.dared)
        filter.dare();
    filter.when_ready(request.ready);
    const auto left = NETCTL_TRY(filter.left_behind(root, report.notes));
    const bpf::PinDir dir = filter.dir(root);
    const bpf::XdpOccupant occupant = NETCTL_TRY(bpf::query_xdp(interface.index));
    const bool take = occupant.mode != bpf::XdpMode::none;
    if (take)
        NETCTL_TRY(check_take_over(interface, request, occupant));
    PointState state = NETCTL_TRY(filter.next_state(root, left, request.settings, interface));
    const LoadedFilter loaded =
        NETCTL_TRY(filter.load(root, state, left ? &*left : nullptr, false));
    const bpf::Program& program = loaded.generation.program;
    NETCTL_TRY(filter.ready());
    bpf::Link link;
    Transaction transaction(report.notes);
    report.mode = occupant.mode;
    if (!take)
        link = NETCTL_TRY(attach_link(interface, program, request, report));
    // The mode is known only now; the program does not read it.
    state.point.mode = static_cast<__u32>(report.mode);
    const std::uint32_t zero = 0;
    const bpf::RawMap point_map = NETCTL_TRY(program.map("point"));
    NETCTL_TRY(point_map.update(&zero, &state.point));
    report.program_id = NETCTL_TRY(program.info()).id;
    NETCTL_TRY(FilterPoint::make_dir(dir, transaction));
    if (take)
        NETCTL_TRY(take_over(interface, dir, program, occupant, transaction));
    else
        NETCTL_TRY(FilterPoint::pin_link(dir, link, transaction));
    return std::move(transaction).commit([&](Aftermath& after) {
        if (take)
            after.note(fmt::format("took {} from the XDP program '{}' (id {})", interface.name,
                                   occupant.program_name, occupant.program_id));
        // Of an attachment of the other kind.
        after.tidy("an older pin", dir.unpin(take ? "link" : "program"));
        after.tidy("the pins of the maps", datapath::publish_pins(dir, program));
        after.value("the root's generation", root.next_generation(), std::uint64_t{0});
        report.rules = state.rules.size();
        const std::vector<std::string>& notes = loaded.generation.notes;
        report.notes.insert(report.notes.end(), notes.begin(), notes.end());
        return report;
    });
}

Result<std::vector<std::string>> Controller::detach(const std::string& interface) const {
    std::vector<std::string> notes;
    // A namespace that is gone has taken all of it along.
    const auto guard = NETCTL_TRY(sys::NetnsGuard::enter_if_there(netns_));
    const LockedRoot root = NETCTL_TRY(LockedRoot::open(root_));
    const Point filter(root_, netns_, interface);
    if (guard)
        NETCTL_TRY(filter.follow(root, notes));
    const bpf::PinDir dir = filter.dir(root);
    if (!NETCTL_TRY(datapath::look_pinned(dir))) {
        // What an attach or detach has left that was killed.
        NETCTL_TRY(dir.remove_all());
        return filter.not_attached();
    }
    const LivePoint live = NETCTL_TRY(filter.open_to_detach(dir));
    Transaction transaction(notes);
    NETCTL_TRY(FilterPoint::take_pins(dir, live, transaction));
    const bool had_link = NETCTL_TRY(FilterPoint::unpin_link(dir));
    if (!had_link && guard && live.link_info.ifindex != 0) {
        const std::uint32_t ifindex = live.link_info.ifindex;
        NETCTL_TRY(bpf::detach_xdp(ifindex, NETCTL_TRY(bpf::query_xdp(ifindex)).mode,
                                   live.link_info.program_id));
    } else if (!had_link) {
        NETCTL_TRY(dir.unpin("program"));
    }
    return std::move(transaction).commit([&](Aftermath& after) {
        after.tidy(dir.path(), dir.remove_all());
        after.value("the root's generation", root.next_generation(), std::uint64_t{0});
        return notes;
    });
}

Status Controller::read_status(const bpf::PinDir& dir) const {
    const datapath::PointName name = datapath::parse_point_name(dir.name());
    auto live = datapath::open_point(dir, Hook::xdp);
    Status status;
    if (live.has_value() && *live) {
        static_cast<datapath::FilterStatus&>(status) =
            datapath::read_status(name, std::move(**live), Hook::xdp);
    } else {
        status.interface = status.now = name.interface;
        status.netns = name.netns;
        status.trouble = live.has_value() ? "it is pinned no more" : live.error().what;
    }
    status.mode = static_cast<bpf::XdpMode>(status.settings.mode);
    return status;
}

Result<Status> Controller::status(const std::string& interface) const {
    const Root root = NETCTL_TRY(Root::open(root_));
    const auto filter = point(interface);
    const bpf::PinDir dir = NETCTL_TRY(filter->find(root));
    if (!datapath::is_pinned(dir))
        return filter->not_attached();
    return read_status(dir);
}

Result<std::vector<Status>> Controller::status_of_all() const {
    const Root root = NETCTL_TRY(Root::open(root_));
    std::vector<Status> all;
    for (const bpf::PinDir& dir : datapath::list_points(root, Hook::xdp))
        all.push_back(read_status(dir));
    return all;
}

} // namespace netctl::xdp
