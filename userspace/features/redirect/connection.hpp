// SPDX-License-Identifier: GPL-2.0-only
//
// A TCP connection of our own over loopback, for the self-test and the benchmark.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <sys/socket.h>
#include <vector>

#include "core/fd.hpp"
#include "core/result.hpp"
#include "sys/cgroup.hpp"

namespace netctl::redirect {

/// How long something that must happen may take: a machine that is out of CPU is no broken kernel.
constexpr int patience_ms = 10000;

struct LocalConnection {
    Fd client;
    Fd server;
    std::uint16_t client_port = 0; ///< host byte order
    std::uint16_t server_port = 0;

    /// Both ends non-blocking, over loopback.
    static Result<LocalConnection> open(bool ipv6 = false);
    /// The server's end has this IPv4 address, in network byte order, in the network namespace of
    /// that path, or in the current one.
    static Result<LocalConnection> open_to(std::uint32_t address, const std::string& netns);

  private:
    static Result<LocalConnection> open(sockaddr_storage address, const std::string& netns);
};

/// Writes all, waiting for room for at most patience_ms a piece.
Result<> send_all(int fd, const std::string& bytes, int flags = 0);
/// Reads `size` bytes, waiting for at most patience_ms a piece; fewer at the end of the stream.
Result<std::string> receive(int fd, std::size_t size);

/// Keeps a connection on TCP whatever rules there are, another netctl's too: gives it a feature that no
/// redirection honours, and that changes nothing by itself.
Result<> stay_on_tcp(int fd);

/// Runs `work` in a process of its own, which lives in a new cgroup below `parent` (empty: the root)
/// and has its own session; what it writes to the descriptor that it gets is returned. Killed, with
/// the cgroup removed, after `timeout_ms`.
Result<std::string> run_in_cgroup(const std::function<void(const sys::Cgroup&, int)>& work,
                                  unsigned timeout_ms, const std::string& parent = {});

} // namespace netctl::redirect
