// SPDX-License-Identifier: GPL-2.0-only
//
// A connection to rtnetlink, and what is asked and answered there.
#pragma once

#include <memory>
#include <string>

#include <netlink/cache.h>
#include <netlink/msg.h>
#include <netlink/socket.h>

#include "core/result.hpp"

namespace netctl::sys {

struct FreeRtnetlink {
    void operator()(nl_sock* socket) const { nl_socket_free(socket); }
    void operator()(nl_cache* cache) const { nl_cache_free(cache); }
    void operator()(nl_msg* message) const { nlmsg_free(message); }
};
using Rtnetlink = std::unique_ptr<nl_sock, FreeRtnetlink>;
using NetlinkCache = std::unique_ptr<nl_cache, FreeRtnetlink>;
using NetlinkMessage = std::unique_ptr<nl_msg, FreeRtnetlink>;

/// A connection of its own in the current network namespace. An answer is waited for ten seconds at most:
/// libnl's lists ask and do not look whether the question could be sent, and would wait for ever.
Result<Rtnetlink> connect_rtnetlink();

/// What libnl says of a failure. Its numbers are no errno: the code is EIO, for what may pass, and 0 where what was asked
/// about is not there.
Error netlink_error(const std::string& what, int status);

} // namespace netctl::sys
