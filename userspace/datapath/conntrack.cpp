// SPDX-License-Identifier: GPL-2.0-only
#include "datapath/conntrack.hpp"

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include <linux/bpf.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <fmt/format.h>

#include "bpf/object.hpp"
#include "bpf/xdp.hpp"
#include "conntrack_probe.skel.h"
#include "core/fd.hpp"

namespace netctl::datapath {

namespace {

using Probe = bpf::Skeleton<conntrack_probe>;

constexpr std::uint32_t found = 2; // XDP_PASS

/// Addresses and ports of a datagram that was sent, as the kernel looks them up; none if none could be sent.
std::vector<std::byte> send_to_self(Family family) {
    const int kind = family == Family::ipv4 ? AF_INET : AF_INET6;
    const Fd socket(::socket(kind, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_in6 address{}; // the larger one
    socklen_t size = sizeof address;
    if (family == Family::ipv4) {
        auto& ipv4 = reinterpret_cast<sockaddr_in&>(address);
        ipv4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        size = sizeof ipv4;
    } else {
        address.sin6_addr = in6addr_loopback;
    }
    auto* const plain = reinterpret_cast<sockaddr*>(&address);
    plain->sa_family = static_cast<sa_family_t>(kind);
    if (!socket || bind(socket.get(), plain, size) != 0 ||
        getsockname(socket.get(), plain, &size) != 0 ||
        sendto(socket.get(), "", 1, MSG_DONTWAIT, plain, size) != 1)
        return {};
    bpf_sock_tuple tuple{};
    if (family == Family::ipv4) {
        const auto& ipv4 = reinterpret_cast<const sockaddr_in&>(address);
        tuple.ipv4.saddr = tuple.ipv4.daddr = ipv4.sin_addr.s_addr;
        tuple.ipv4.sport = tuple.ipv4.dport = ipv4.sin_port;
    } else {
        std::memcpy(tuple.ipv6.saddr, &address.sin6_addr, sizeof tuple.ipv6.saddr);
        std::memcpy(tuple.ipv6.daddr, &address.sin6_addr, sizeof tuple.ipv6.daddr);
        tuple.ipv6.sport = tuple.ipv6.dport = address.sin6_port;
    }
    const auto bytes = std::as_bytes(std::span(&tuple, 1));
    return {bytes.begin(), bytes.end()};
}

Result<bool> has_entry(Family family, std::span<const std::byte> tuple) {
    const Probe probe = NETCTL_TRY(Probe::open());
    const std::uint32_t size =
        family == Family::ipv4 ? sizeof bpf_sock_tuple{}.ipv4 : sizeof bpf_sock_tuple{}.ipv6;
    NETCTL_TRY(probe.object().set_rodata("asked", tuple));
    NETCTL_TRY(probe.object().set_constant("asked_size", {&size, 1}));
    NETCTL_TRY(probe.object().load());
    const std::array<std::uint8_t, 64> frame{};
    const bpf::Program program = NETCTL_TRY(probe.object().program("conntrack_probe"));
    return NETCTL_TRY(bpf::test_run(program, frame)).action == found;
}

} // namespace

Result<> try_conntrack() {
    const Probe probe = NETCTL_TRY(Probe::open());
    auto loaded = probe.object().load();
    if (!loaded && (loaded.error().code == EPERM || loaded.error().code == EACCES))
        return loaded; // which says nothing about the kernel
    if (!loaded)
        return Error::unsupported(
            "this kernel lets no program ask connection tracking: it has no bpf_xdp_ct_lookup()",
            "`modprobe nf_conntrack`; Linux 6.0 or later has it, with "
            "CONFIG_DEBUG_INFO_BTF_MODULES");
    return {};
}

std::optional<bool> tracks(Family family) {
    const std::vector<std::byte> tuple = send_to_self(family);
    if (tuple.empty())
        return {};
    const auto entry = has_entry(family, tuple);
    return entry.has_value() ? std::optional(*entry) : std::nullopt;
}

std::string untracked_note() {
    const auto ipv4 = tracks(Family::ipv4), ipv6 = tracks(Family::ipv6);
    const bool off4 = !ipv4.value_or(true), off6 = !ipv6.value_or(true);
    if (!off4 && !off6)
        return {};
    return fmt::format(
        "connection tracking is off here{}: to `ct` no connection is established; turn it on by "
        "a rule that asks for it: {}",
        off4 && off6 ? ""
        : off4       ? " for IPv4"
                     : " for IPv6",
        track_command);
}

} // namespace netctl::datapath
