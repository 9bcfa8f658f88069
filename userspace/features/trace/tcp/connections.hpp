// SPDX-License-Identifier: GPL-2.0-only
//
// What TCP connections do, as records of the kernel side.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "bpf/map.hpp"
#include "core/result.hpp"
#include "features/trace/instrument.hpp"
#include "features/trace/selection.hpp"
#include "netctl/abi/trace_tcp.h"

namespace netctl::trace::tcp {

struct ConnectionsRequest {
    nc_tcp_kind kind = NC_TCP_CONNECT; ///< what is to be told
    std::uint64_t min_ns = 0;          ///< CONNECT: nothing that took less
    std::uint32_t ring_bytes = 0;
    Selection selection;
};

struct Connections {
    Instrument instrument;
    /// Names of enum sk_rst_reason, or for DROP of skb_drop_reason, as the kernel has them but for what they all begin with, in
    /// lower case. Empty where it gives no reasons.
    std::map<std::uint32_t, std::string> reasons;
};

using OnEvent = std::function<void(const nc_tcp_event&)>;

/// Traces from now on. `on_event` is called while the instrument's poll() or stop() run.
Result<Connections> trace_connections(const ConnectionsRequest& request, OnEvent on_event);

struct RoundTrips {
    Instrument instrument;
    bpf::RawMap groups; ///< per CPU, nc_rtt_group to nc_rtt_values
};

/// Counts round-trip times by groups from now on; `by` are NC_RTT_BY_*.
Result<RoundTrips> count_round_trips(const Selection& selection, std::uint32_t by);

/// Looks at listening sockets now, and with each iterate(). `on_listener` is called while the instrument's drain() or stop()
/// run, once for each file that is open of one.
Result<Instrument> look_at_listeners(const Selection& selection,
                                     std::function<void(const nc_tcp_listener&)> on_listener);

} // namespace netctl::trace::tcp
