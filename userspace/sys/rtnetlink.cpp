// SPDX-License-Identifier: GPL-2.0-only
#include "sys/rtnetlink.hpp"

#include <cerrno>
#include <sys/socket.h>
#include <sys/time.h>

#include <fmt/format.h>
#include <netlink/errno.h>
#include <netlink/netlink.h>

namespace netctl::sys {

Result<Rtnetlink> connect_rtnetlink() {
    Rtnetlink socket(nl_socket_alloc());
    if (!socket)
        return Error::system(ENOMEM, "cannot make a netlink socket");
    if (const int status = nl_connect(socket.get(), NETLINK_ROUTE); status < 0)
        return netlink_error("cannot connect to rtnetlink", status);
    const timeval patience{10, 0};
    if (setsockopt(nl_socket_get_fd(socket.get()), SOL_SOCKET, SO_RCVTIMEO, &patience,
                   sizeof patience) != 0)
        return Error::system(errno, "cannot set up the netlink socket");
    return socket;
}

Error netlink_error(const std::string& what, int status) {
    Error error = Error::failed(fmt::format("{}: {}", what, nl_geterror(status)));
    if (status != -NLE_NODEV && status != -NLE_OBJ_NOTFOUND)
        error.code = EIO;
    return error;
}

} // namespace netctl::sys
