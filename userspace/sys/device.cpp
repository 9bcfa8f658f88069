// SPDX-License-Identifier: GPL-2.0-only
#include "sys/device.hpp"

#include <algorithm>
#include <cstring>
#include <linux/ethtool.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <fmt/format.h>

#include "core/fd.hpp"
#include "sys/rtnetlink.hpp"

namespace netctl::sys {

namespace {

constexpr unsigned short ethernet = 1; // ARPHRD_ETHER; its two headers do not go together

ifreq request_of(const std::string& interface) {
    ifreq request{};
    std::memcpy(request.ifr_name, interface.data(),
                std::min(interface.size(), sizeof request.ifr_name - 1));
    return request;
}

int read_index(nl_msg* message, void* into) {
    const auto* header = static_cast<const ifinfomsg*>(nlmsg_data(nlmsg_hdr(message)));
    *static_cast<unsigned*>(into) = static_cast<unsigned>(header->ifi_index);
    return NL_OK;
}

/// 0: there is none. if_nametoindex() takes no names of more than 15 characters.
unsigned index_of_altname(const std::string& name) {
    const auto socket = connect_rtnetlink();
    const NetlinkMessage message(nlmsg_alloc_simple(RTM_GETLINK, NLM_F_REQUEST));
    ifinfomsg header{};
    unsigned index = 0;
    if (!socket || !message ||
        nlmsg_append(message.get(), &header, sizeof header, NLMSG_ALIGNTO) < 0 ||
        nla_put_string(message.get(), IFLA_ALT_IFNAME, name.c_str()) < 0)
        return 0;
    nl_socket_modify_cb(socket->get(), NL_CB_VALID, NL_CB_CUSTOM, read_index, &index);
    if (nl_send_auto(socket->get(), message.get()) < 0 || nl_recvmsgs_default(socket->get()) < 0)
        return 0;
    return index;
}

bool ask(unsigned long what, ifreq& request) {
    const Fd any(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    return any && ioctl(any.get(), what, &request) == 0;
}

} // namespace

std::string driver_of(const std::string& interface) {
    ethtool_drvinfo info{};
    info.cmd = ETHTOOL_GDRVINFO;
    ifreq request = request_of(interface);
    request.ifr_data = reinterpret_cast<char*>(&info);
    if (!ask(SIOCETHTOOL, request))
        return {};
    return {info.driver, strnlen(info.driver, sizeof info.driver)};
}

std::string mac_of(const std::string& interface) {
    ifreq request = request_of(interface);
    if (!ask(SIOCGIFHWADDR, request) || request.ifr_hwaddr.sa_family != ethernet)
        return {};
    const auto* bytes = reinterpret_cast<const unsigned char*>(request.ifr_hwaddr.sa_data);
    return fmt::format("{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", bytes[0], bytes[1], bytes[2],
                       bytes[3], bytes[4], bytes[5]);
}

bool has_altname(const std::string& interface, const std::string& name) {
    const unsigned index = if_nametoindex(interface.c_str());
    return index != 0 && name != interface && index == index_of_altname(name);
}

} // namespace netctl::sys
