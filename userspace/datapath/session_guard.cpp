// SPDX-License-Identifier: GPL-2.0-only
#include "datapath/session_guard.hpp"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <ifaddrs.h>
#include <memory>
#include <net/if.h>
#include <netinet/in.h>
#include <sstream>

#include <fmt/format.h>

#include "core/rule_keys.hpp"
#include "datapath/conntrack.hpp"
#include "datapath/judge.hpp"
#include "datapath/rule_action.hpp"
#include "sys/session.hpp"

namespace netctl::datapath {

namespace {

/// IPv4 in IPv6 is IPv4 on the wire; a scope is no part of the address.
std::optional<Address> wire_address(const std::string& text) {
    auto parsed = Address::parse(text.substr(0, text.find('%')));
    if (!parsed)
        return std::nullopt;
    static constexpr std::uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    if (parsed->family == Family::ipv6 && std::memcmp(parsed->bytes.data(), mapped, 12) == 0) {
        Address inner;
        std::copy_n(parsed->bytes.begin() + 12, 4, inner.bytes.begin());
        return inner;
    }
    return *parsed;
}

std::optional<std::uint16_t> port_of(const std::string& text) {
    std::uint16_t port = 0;
    const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), port);
    return status == std::errc{} && end == text.data() + text.size() ? std::optional(port)
                                                                     : std::nullopt;
}

/// Whether an interface of the current network namespace has an address.
bool has_address(const std::string& interface, const Address& address) {
    ifaddrs* all = nullptr;
    if (getifaddrs(&all) != 0)
        return false;
    const std::unique_ptr<ifaddrs, decltype(&freeifaddrs)> guard(all, freeifaddrs);
    for (const ifaddrs* one = all; one != nullptr; one = one->ifa_next) {
        if (one->ifa_addr == nullptr || interface != one->ifa_name)
            continue;
        const int family = address.family == Family::ipv4 ? AF_INET : AF_INET6;
        if (one->ifa_addr->sa_family != family)
            continue;
        const auto* v4 = reinterpret_cast<const sockaddr_in*>(one->ifa_addr);
        const auto* v6 = reinterpret_cast<const sockaddr_in6*>(one->ifa_addr);
        const void* bytes = family == AF_INET ? static_cast<const void*>(&v4->sin_addr)
                                              : static_cast<const void*>(&v6->sin6_addr);
        if (std::memcmp(bytes, address.bytes.data(), address.bits() / 8) == 0)
            return true;
    }
    return false;
}

/// The rule, or null for the default verdict, that takes a packet of the session away; nothing if all go on.
Result<std::optional<const Rule*>> refusing(const PointState& state,
                                            const classifier::SetOracle& sets,
                                            const std::vector<nc_packet>& packets) {
    for (const nc_packet& packet : packets) {
        const Judged judged = NETCTL_TRY(judge(state, packet, sets));
        if (judged.verdict != NC_VERDICT_PASS && judged.verdict != NC_VERDICT_NEXT)
            return std::optional(judged.rule);
    }
    return std::optional<const Rule*>();
}

} // namespace

std::optional<SshSession> ssh_session() {
    const auto told = sys::inherited_variable("SSH_CONNECTION");
    if (!told)
        return std::nullopt;
    std::istringstream words(*told);
    std::string client, client_port, server, server_port;
    words >> client >> client_port >> server >> server_port;
    const auto from = wire_address(client), to = wire_address(server);
    const auto from_port = port_of(client_port), to_port = port_of(server_port);
    if (!from || !to || !from_port || !to_port)
        return std::nullopt;
    return SshSession{*from, *to, *from_port, *to_port};
}

std::vector<nc_packet> packets_of(const SshSession& session, bool egress, bool ether,
                                  bool tracked) {
    nc_packet packet{};
    const bool ipv4 = session.server.family == Family::ipv4;
    packet.has = NC_HAS_PROTO | NC_HAS_PORTS | NC_HAS_FLAGS | (ipv4 ? NC_HAS_IPV4 : NC_HAS_IPV6) |
                 (ether ? NC_HAS_ETHER : 0);
    const Address& src = egress ? session.server : session.client;
    const Address& dst = egress ? session.client : session.server;
    std::memcpy(packet.src, src.bytes.data(), sizeof packet.src);
    std::memcpy(packet.dst, dst.bytes.data(), sizeof packet.dst);
    packet.sport = egress ? session.server_port : session.client_port;
    packet.dport = egress ? session.client_port : session.server_port;
    packet.proto = protocol_tcp;
    packet.ether_type = ipv4 ? 0x0800 : 0x86dd;
    packet.ttl = 64;
    packet.socket = egress ? NC_SOCKET_NONE : NC_SOCKET_ESTABLISHED;
    packet.has |= NC_HAS_CT;
    packet.ct = tracked ? NC_CT_ESTABLISHED : NC_CT_NEW;
    constexpr std::uint8_t ack = 0x10, push = 0x08;
    std::vector<nc_packet> packets;
    for (const auto& [flags, payload] :
         {std::pair(ack, 0U), std::pair<std::uint8_t, unsigned>(ack | push, 100U)}) {
        packet.flags = flags;
        packet.len = (ether ? 14U : 0U) + (ipv4 ? 20U : 40U) + 32U + payload;
        packets.push_back(packet);
    }
    return packets;
}

Result<> check_session(const std::optional<GuardedState>& before, const GuardedState& after,
                       const Passage& passage) {
    const auto session = ssh_session();
    if (!session || !has_address(passage.interface, session->server))
        return {};
    const bool egress = passage.egress;
    const bool tracked =
        !ask_conntrack(after.state.rules) || tracks(session->server.family).value_or(true);
    const std::vector<nc_packet> packets = packets_of(*session, egress, passage.ether, tracked);
    const auto now = NETCTL_TRY(refusing(after.state, after.sets, packets));
    if (!now || (before && NETCTL_TRY(refusing(before->state, before->sets, packets))))
        return {};
    const std::string what = *now != nullptr ? fmt::format("'{}'", to_string(**now))
                                             : std::string("the default verdict");
    const std::string rule =
        fmt::format("{} {} proto tcp {} {} pass", egress ? "dst" : "src",
                    session->client.to_string(), egress ? "sport" : "dport", session->server_port);
    return Error::usage(fmt::format("{} would cut this ssh session off, from {} port {}", what,
                                    session->client.to_string(), session->client_port),
                        fmt::format("put `{}` in front; --yes does it all the same", rule));
}

Result<> check_session(const Root& root, const PointState* before, const PointState& state,
                       const Passage& passage) {
    const auto session = ssh_session();
    if (!session || !has_address(passage.interface, session->server))
        return {};
    LiveSets sets = NETCTL_TRY(LiveSets::open(root, state.rules));
    std::optional<LiveSets> sets_before;
    std::optional<GuardedState> was;
    if (before != nullptr) {
        sets_before = NETCTL_TRY(LiveSets::open(root, before->rules));
        was = GuardedState{*before, sets_before->oracle()};
    }
    auto checked = check_session(was, GuardedState{state, sets.oracle()}, passage);
    NETCTL_TRY(sets.status());
    if (sets_before)
        NETCTL_TRY(sets_before->status());
    return checked;
}

} // namespace netctl::datapath
