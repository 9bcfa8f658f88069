// SPDX-License-Identifier: GPL-2.0-only
#include "sys/netlink.hpp"

#include <linux/if_arp.h>

#include <fmt/format.h>
#include <netlink/cache.h>
#include <netlink/netlink.h>
#include <netlink/route/link.h>
#include <netlink/route/link/veth.h>

#include "core/suggest.hpp"
#include "sys/rtnetlink.hpp"

namespace netctl::sys {

namespace {

/// The kernel's list (dev_is_mac_header_xmit in include/linux/if_arp.h), less what is no interface for
/// traffic.
bool is_layer3(unsigned type) {
    switch (type) {
    case ARPHRD_NONE:
    case ARPHRD_RAWIP:
    case ARPHRD_PPP:
    case ARPHRD_TUNNEL:
    case ARPHRD_TUNNEL6:
    case ARPHRD_SIT:
    case ARPHRD_IPGRE:
    case ARPHRD_IP6GRE: return true;
    default: return false;
    }
}

} // namespace

Result<std::vector<Interface>> list_interfaces() {
    const Rtnetlink socket = NETCTL_TRY(connect_rtnetlink());
    nl_cache* links = nullptr;
    const int status = rtnl_link_alloc_cache(socket.get(), AF_UNSPEC, &links);
    if (status < 0)
        return netlink_error("cannot list interfaces", status);
    const NetlinkCache cache(links);

    std::vector<Interface> interfaces;
    for (nl_object* object = nl_cache_get_first(cache.get()); object;
         object = nl_cache_get_next(object)) {
        auto* link = reinterpret_cast<rtnl_link*>(object);
        const char* kind = rtnl_link_get_type(link);
        const unsigned type = rtnl_link_get_arptype(link);
        interfaces.push_back({static_cast<std::uint32_t>(rtnl_link_get_ifindex(link)),
                              rtnl_link_get_name(link), kind ? kind : "", rtnl_link_get_mtu(link),
                              (rtnl_link_get_flags(link) & IFF_UP) != 0,
                              type == ARPHRD_ETHER || type == ARPHRD_LOOPBACK, is_layer3(type)});
    }
    return interfaces;
}

Result<> make_veth(const std::string& here, const std::string& there, int pid) {
    const Rtnetlink socket = NETCTL_TRY(connect_rtnetlink());
    const int status = rtnl_link_veth_add(socket.get(), here.c_str(), there.c_str(), pid);
    if (status < 0)
        return netlink_error("cannot make veth devices", status);
    return {};
}

Result<std::optional<Interface>> look_for_interface(const std::string& name) {
    for (const Interface& interface : NETCTL_TRY(list_interfaces()))
        if (interface.name == name)
            return std::optional(interface);
    return std::optional<Interface>();
}

Result<Interface> find_interface(const std::string& name) {
    const std::vector<Interface> interfaces = NETCTL_TRY(list_interfaces());
    std::vector<std::string> names;
    for (const Interface& interface : interfaces) {
        if (interface.name == name)
            return interface;
        names.push_back(interface.name);
    }
    return Error::failed(
        fmt::format("there is no interface '{}' here{}", name, did_you_mean(name, names)),
        "`ip link` lists the interfaces; --netns NAME looks in another namespace");
}

} // namespace netctl::sys
