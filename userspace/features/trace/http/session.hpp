// SPDX-License-Identifier: GPL-2.0-only
//
// A running HTTP tracer, whatever it looks at: what is asked of it, what it hands out, what it counts.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/result.hpp"
#include "features/trace/http/call_tracer.hpp"
#include "features/trace/http/packet_tracer.hpp"
#include "netctl/abi/http.h"

namespace netctl::trace {

enum class Source {
    automatic, ///< system calls if the kernel can and no interface is named, else packets
    syscall,   ///< what processes send and receive
    socket,    ///< packets of an interface
    file,      ///< packets of a capture file
};

struct Request {
    Source source = Source::automatic;
    std::string interface;            ///< empty or `any`: all
    std::string netns;                ///< name or path; empty: the one we run in
    bool only_netns = false;          ///< system calls: only sockets of that namespace
    std::vector<std::uint16_t> ports; ///< host order; empty: all
    std::uint32_t pid = 0;            ///< 0: all
    std::string comm;
    std::string cgroup; ///< path; empty: all
    bool both_sides = false;
    bool containers = false;      ///< find out those of processes
    std::string read;             ///< capture file to read; Source::file
    std::string write;            ///< capture file to write; packets only
    std::uint32_t turn_bytes = 0; ///< see nc_http_config; 0: the default
    std::uint32_t ring_bytes = 0; ///< 0: as the programs have it
    std::uint64_t stalled = 0;    ///< ns that a request waits before that is told; 0: never
    bool tunnels = true;          ///< capture files: look into tunnels
    bool tls = false;             ///< system calls: look into OpenSSL, too
    std::vector<std::string> tls_libraries; ///< and into these files
    ParserOptions parser;
};

struct Counters {
    nc_http_counters kernel{};    ///< summed over the CPUs
    std::uint64_t recursions = 0; ///< calls the kernel skipped, as the program was under way
    std::uint64_t received = 0;   ///< records read from the ring, or frames from the file
    ParserCounters parser;
    CallCounters calls;
    PacketCounters packets;
    std::size_t sealed = 0;   ///< TLS connections that were not decoded, if Request::tls
    std::string sealed_about; ///< whose they were, and why
};

/// Traces from when it is made until stop(), and hands out transactions while poll() and stop() run.
class Session {
  public:
    using Emit = std::function<void(const Transaction&)>;

    virtual ~Session() = default;

    /// Hands out what there is, or a part of it. False at the end of a file.
    virtual Result<bool> poll() = 0;
    /// Waits until it is worth while to look again: some milliseconds, or not at all.
    virtual void rest() {}
    /// Stops tracing, and hands out what is in the ring.
    virtual Result<> stop() = 0;
    virtual Result<Counters> counters() const = 0;
    /// `system calls (tracepoints)`, `packets of eth0`.
    virtual std::string description() const = 0;
    /// Where the settings are pinned; empty if nowhere.
    virtual std::string pins() const { return {}; }
    /// The first trouble with the capture file being written; it is told once.
    virtual std::optional<Error> write_error() { return std::nullopt; }
};

} // namespace netctl::trace
