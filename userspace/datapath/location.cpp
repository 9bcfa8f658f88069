// SPDX-License-Identifier: GPL-2.0-only
#include "datapath/location.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <net/if.h>

#include <fmt/format.h>

#include "bpf/tc.hpp"
#include "bpf/xdp.hpp"
#include "sys/netlink.hpp"
#include "sys/netns.hpp"

namespace netctl::datapath {

namespace {

/// Its name in the current namespace; empty if there is none of this index.
Result<std::string> name_of(std::uint32_t ifindex) {
    std::array<char, IF_NAMESIZE> name{};
    if (if_indextoname(ifindex, name.data()))
        return std::string(name.data());
    if (errno != ENXIO)
        return Error::system(errno, "cannot ask for an interface's name");
    return std::string();
}

/// Whether the interface of this index, in the current namespace, is the one of the attachment: an
/// interface keeps its index where it goes, and another one may get it here.
Result<bool> carries(std::uint32_t ifindex, const LivePoint& live, Hook hook) {
    if (!live.link)
        return true; // it was found there
    if (hook == Hook::xdp)
        return NETCTL_TRY(bpf::query_xdp(ifindex)).program_id == live.link_info.program_id;
    for (const bpf::TcDirection direction : {bpf::TcDirection::ingress, bpf::TcDirection::egress}) {
        const auto chain = NETCTL_TRY(bpf::query_tcx(ifindex, direction));
        if (chain && std::any_of(chain->begin(), chain->end(), [&](const bpf::TcxProgram& each) {
                return each.link_id == live.link_info.id;
            }))
            return true;
    }
    return false;
}

/// Where the pins of a point's attachments are.
std::vector<bpf::PinDir> attachments(const bpf::PinDir& point, Hook hook) {
    if (hook != Hook::tc)
        return {point};
    return {point.sub("ingress"), point.sub("egress")};
}

/// What of a point is needed to find its interface. Its rules are not, and may be many.
Result<std::optional<LivePoint>> open_attachment(const bpf::PinDir& dir, Hook hook) {
    const char* pin = dir.has(next_link) ? next_link : "link";
    if (!dir.has(pin))
        return open_point(dir, hook);
    LivePoint live;
    live.link = NETCTL_TRY(dir.open_link(pin));
    live.link_info = NETCTL_TRY(live.link.info());
    return std::optional<LivePoint>(std::move(live));
}

/// The name that a point's interface has now, if it is another than its own.
std::optional<std::string> new_name(const bpf::PinDir& point, Hook hook) {
    const PointName name = parse_point_name(point.name());
    for (const bpf::PinDir& dir : attachments(point, hook)) {
        const auto live = open_attachment(dir, hook);
        if (!live.has_value() || !*live || (*live)->link_info.ifindex == 0)
            continue; // what cannot be opened is none of whom is followed
        const Location location = locate(name, **live, hook);
        if (location.presence == Presence::renamed)
            return location.interface;
    }
    return std::nullopt;
}

/// locate(), unless the kernel refuses to tell.
Result<Location> ask_where(const PointName& name, const LivePoint& live, Hook hook) {
    Location location{Presence::attached, name.interface, {}};
    const auto guard = NETCTL_TRY(sys::NetnsGuard::enter_if_there(name.netns));
    if (!guard) {
        location.presence = Presence::vanished;
        return location;
    }
    const std::uint32_t ifindex = live.link_info.ifindex;
    if (ifindex == 0) {
        const auto interface = NETCTL_TRY(sys::look_for_interface(name.interface));
        // A link knows that its interface is gone; a filter may be taken away from one that stays.
        location.presence = !interface ? Presence::vanished
                            : !live.link && interface->index == live.state.point.ifindex
                                ? Presence::removed
                                : Presence::returned;
        return location;
    }
    const std::uint64_t netns = NETCTL_TRY(sys::current_netns_inode());
    if (live.state.point.netns_inode != 0 && live.state.point.netns_inode != netns)
        return location; // it never was in this namespace: there is nobody to ask
    const std::string now = NETCTL_TRY(name_of(ifindex));
    if (now.empty() || !NETCTL_TRY(carries(ifindex, live, hook))) {
        location.presence = Presence::moved;
    } else if (now != name.interface) {
        location.presence = Presence::renamed;
        location.interface = now;
    }
    return location;
}

} // namespace

Location locate(const PointName& name, const LivePoint& live, Hook hook) {
    auto location = ask_where(name, live, hook);
    if (location)
        return std::move(*location);
    return {Presence::unknown, name.interface, std::move(location).error()};
}

Result<std::optional<bpf::PinDir>>
find_renamed(const Root& root, Hook hook, const std::string& netns, const std::string& interface) {
    const bpf::PinDir base = root.dir().sub(std::string(to_string(hook)));
    for (const std::string& name : base.list())
        if (parse_point_name(name).netns == netns && new_name(base.sub(name), hook) == interface)
            return std::optional(base.sub(name));
    return std::optional<bpf::PinDir>();
}

Result<std::string> park(const LockedRoot& root, Hook hook, const PointName& name,
                         std::uint32_t ifindex) {
    const bpf::PinDir base = root.dir().sub(std::string(to_string(hook)));
    for (std::uint32_t number = ifindex;; number++) {
        const std::string parked = fmt::format("{}@{}", name.interface, number);
        const std::string pin = point_name(name.netns, parked);
        if (base.has(pin))
            continue;
        NETCTL_TRY(base.rename(point_name(name.netns, name.interface), pin));
        return parked;
    }
}

Result<> follow_renamed(const LockedRoot& root, Hook hook, const std::string& netns,
                        std::vector<std::string>& notes) {
    const bpf::PinDir base = root.dir().sub(std::string(to_string(hook)));
    for (const std::string& pin : base.list()) {
        const PointName name = parse_point_name(pin);
        if (name.netns != netns || !base.has(pin)) // it may have been parked
            continue;
        const auto now = new_name(base.sub(pin), hook);
        if (!now)
            continue;
        // Whoever has that name has it no longer: it is renamed in its turn, now or with the next writer.
        const std::string target = point_name(netns, *now);
        if (base.has(target)) {
            const std::string parked = NETCTL_TRY(park(root, hook, {netns, *now}, 0));
            notes.push_back(
                fmt::format("what was attached to the former {} goes by {} now", *now,
                            new_name(base.sub(point_name(netns, parked)), hook).value_or(parked)));
        }
        NETCTL_TRY(base.rename(pin, target));
        notes.push_back(
            fmt::format("{} is called {} now, and its filter with it", name.interface, *now));
    }
    return {};
}

} // namespace netctl::datapath
