// SPDX-License-Identifier: GPL-2.0-only
//
// `list`: connections that are joined, and those that are on TCP with the reason.
#include <algorithm>
#include <cstring>
#include <fstream>
#include <set>
#include <sstream>

#include "datapath/root.hpp"
#include "features/redirect/controller.hpp"
#include "features/redirect/joiner.hpp"
#include "features/redirect/rule_text.hpp"

namespace netctl::redirect {

namespace {

/// Live TCP connections of this network namespace as (local port, remote port) pairs.
std::set<std::pair<std::uint16_t, std::uint16_t>> live_ports() {
    std::set<std::pair<std::uint16_t, std::uint16_t>> ports;
    for (const char* path : {"/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"}) {
        std::ifstream file(path);
        std::string line;
        std::getline(file, line);
        while (std::getline(file, line)) {
            std::istringstream words(line);
            std::string index, local, remote, state;
            words >> index >> local >> remote >> state;
            const auto port = [](const std::string& text) {
                const std::size_t colon = text.rfind(':');
                return static_cast<std::uint16_t>(
                    std::strtoul(text.c_str() + colon + 1, nullptr, 16));
            };
            if (state == "01" && local.find(':') != std::string::npos &&
                remote.find(':') != std::string::npos)
                ports.emplace(port(local), port(remote));
        }
    }
    return ports;
}

Connection describe(const nc_rd_end& end) {
    Connection connection;
    connection.family = end.family == 4 ? Family::ipv4 : Family::ipv6;
    connection.local = to_address(end.family, end.local);
    connection.remote = to_address(end.family, end.remote);
    connection.local_port = end.local_port;
    connection.remote_port = end.remote_port;
    return connection;
}

std::string process_name(const nc_rd_process& process) {
    return std::string(process.name, strnlen(process.name, sizeof(process.name)));
}

} // namespace

Result<std::vector<Connection>> Controller::list() const {
    const auto root = NETCTL_TRY(datapath::Root::open(root_));
    const Datapath datapath = NETCTL_TRY(open_enabled(root));
    std::vector<Connection> all;
    std::set<std::string> seen;
    const auto name_of = [](const nc_rd_event& event) {
        return std::string(reinterpret_cast<const char*>(&event), sizeof(event));
    };
    for (const nc_rd_pair& pair : NETCTL_TRY(datapath.pairs())) {
        if (!alive(pair))
            continue;
        Connection connection = describe(pair.end);
        const bool redirecting = is_redirected(pair, 0) || is_redirected(pair, 1);
        connection.state = pair.state == NC_RD_LEAVING ? "leaving"
                           : redirecting               ? "redirecting"
                                                       : "joined";
        if (pair.reason != NC_RD_REASON_NONE)
            connection.reason = reason_name(pair.reason);
        for (std::size_t i = 0; i < 2; i++)
            connection.ends[i] = {pair.process[i].pid,         process_name(pair.process[i]),
                                  pair.redirected_messages[i], pair.redirected_bytes[i],
                                  pair.passed_messages[i],     pair.passed_bytes[i]};
        connection.cross_netns = pair.netns != pair.peer_netns;
        seen.insert(name_of({pair.netns, pair.end}));
        seen.insert(name_of({pair.peer_netns, turned(pair.end)}));
        all.push_back(std::move(connection));
    }
    const std::uint64_t netns = current_netns_cookie();
    const auto live = live_ports();
    for (const auto& [event, recent] : NETCTL_TRY(datapath.recent())) {
        const nc_rd_event other{event.netns, turned(event.end)}; // both ends may have an entry
        if (event.netns != netns || !live.contains({event.end.local_port, event.end.remote_port}) ||
            seen.contains(name_of(other)) || !seen.insert(name_of(event)).second)
            continue;
        Connection connection = describe(event.end);
        connection.state = "tcp";
        connection.reason = reason_name(recent.reason);
        for (std::size_t i = 0; i < 2; i++)
            connection.ends[i] = {recent.process[i].pid,
                                  process_name(recent.process[i]),
                                  recent.redirected_messages[i],
                                  recent.redirected_bytes[i],
                                  0,
                                  0};
        all.push_back(std::move(connection));
    }
    return all;
}

} // namespace netctl::redirect
