// SPDX-License-Identifier: GPL-2.0-only
//
// Lines of the TCP instruments.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "core/text.hpp"
#include "features/trace/parties.hpp"
#include "netctl/abi/trace_tcp.h"

namespace netctl::trace::tcp {

/// An event of the kernel side in the words of users.
struct Event {
    std::uint64_t time_ns = 0;            ///< of day
    Process process;                      ///< the socket's owner
    std::optional<std::string> cgroup;    ///< of the socket, below the mount; nothing if it is gone
    Endpoint local, remote;               ///< a local port of 0 is not chosen yet
    std::optional<std::uint64_t> took_ns; ///< see nc_tcp_event::since_ns
    std::string reason; ///< of a reset that was sent, or a drop; empty: none is known
    std::string place;  ///< DROP: `tcp_v4_rcv+0x1c`
    nc_tcp_event raw{};
};

/// As records have an end; an address that an IPv6 socket speaks IPv4 with is IPv4.
Endpoint end_of(std::uint8_t family, const std::uint8_t (&address)[16], std::uint16_t port);

/// From the record; addresses that IPv6 sockets speak IPv4 with are IPv4.
Event make_event(const nc_tcp_event& raw, std::int64_t clock_offset,
                 const std::map<std::uint32_t, std::string>& reasons);

/// `SYN_SENT`; `?` for none of TCP's.
std::string_view state_name(std::uint8_t state);
/// CONNECT: `established`, `failed` (with an error) or `given-up` (closed before it was decided).
std::string_view connect_result(const nc_tcp_event& event);
/// CONNECT: errno of what failed; 0: nothing did. To have no port left is no error of the socket's in the kernel.
int connect_error(const nc_tcp_event& event);
/// RETRANSMIT: `syn`, `syn-ack`, `timeout`, `fast` or `probe`.
std::string_view why_again(std::uint8_t why);
/// CLOSE: `local-fin`, `remote-fin`, `local-reset`, `remote-reset`, `timeout`, or `error`.
std::string_view how_ended(const nc_tcp_event& event);

/// The titles of an event's kind.
Text header_of(nc_tcp_kind kind);
void append_event_text(Text& out, const Event& event);
/// One document and a line feed.
void append_event_json(Text& out, const Event& event);

} // namespace netctl::trace::tcp
