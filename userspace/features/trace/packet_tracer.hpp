// SPDX-License-Identifier: GPL-2.0-only
//
// From captured frames to HTTP transactions: link and network headers, TCP, connections.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <unordered_map>

#include "features/trace/http_connection.hpp"
#include "features/trace/tcp_stream.hpp"

namespace netctl::trace {

struct PacketCounters {
    std::uint64_t frames = 0;
    std::uint64_t fragments = 0; ///< IP fragments: not put together
    std::uint64_t damaged = 0;   ///< headers that are cut or contradict themselves
    std::uint64_t other = 0;     ///< not TCP
    std::uint64_t evicted = 0;   ///< connections forgotten because there were too many
    TcpCounters tcp;
};

/// Where a frame begins.
enum class FrameStart : std::uint8_t {
    ethernet,
    ip,           ///< IPv4 or IPv6, by its version
    linux_cooked, ///< 16 bytes of Linux cooked header, version 1
};

class PacketTracer {
  public:
    /// Connections kept at once; the one that was quiet for longest goes first.
    static constexpr std::size_t connection_limit = 65536;

    /// Of what `sender` sends, no bytes are wanted up to the sequence number `until`, which is at most
    /// 2^30 ahead; and of what `receiver` sends, up to `back`, if there is one.
    using Skip = std::function<void(const Endpoint& sender, const Endpoint& receiver,
                                    std::uint32_t until, std::optional<std::uint32_t> back)>;
    /// What is left of a body below this is not worth telling.
    static constexpr std::uint64_t skip_from = 128 * 1024;

    PacketTracer(const ParserOptions& options, ParserCounters& parser_counters,
                 PacketCounters& counters, HttpConnection::Emit emit, Skip skip = {})
        : options_(&options),
          parser_counters_(&parser_counters),
          counters_(&counters),
          emit_(std::move(emit)),
          skip_(std::move(skip)) {}

    /// `length` is the frame's on the wire, `bytes` what was captured of it.
    void frame(Time now, FrameStart start, std::span<const std::uint8_t> bytes,
               std::uint32_t length);
    /// No more frames: gives up holes, and counts what is under way.
    void finish(Time now);
    std::size_t connections() const { return flows_.size(); }

  private:
    struct Key {
        Endpoint low, high;
        bool operator==(const Key&) const = default;
    };
    struct Hash {
        std::size_t operator()(const Key& key) const;
    };
    struct Flow {
        Time last = 0;
        Time now = 0; ///< of the segment being handled, for the streams' callbacks
        bool closed = false;
        std::unique_ptr<HttpConnection> http;
        std::array<std::unique_ptr<TcpStream>, 2> streams;
        std::array<std::optional<std::uint32_t>, 2> until; ///< what was skipped last
    };

    void ip(Time now, std::span<const std::uint8_t> bytes, std::uint32_t length);
    void tcp(Time now, const Endpoint& source, const Endpoint& target,
             std::span<const std::uint8_t> bytes, std::uint32_t length);
    Flow& flow_of(const Key& key, Time now);
    void reset(Flow& flow, const Key& key);
    void skip_body(Flow& flow, HttpConnection::Side side, const Endpoint& sender,
                   const Endpoint& receiver);
    void sweep(Time now);

    const ParserOptions* options_;
    ParserCounters* parser_counters_;
    PacketCounters* counters_;
    HttpConnection::Emit emit_;
    Skip skip_;
    std::unordered_map<Key, std::unique_ptr<Flow>, Hash> flows_;
    Time swept_ = 0;
};

} // namespace netctl::trace
