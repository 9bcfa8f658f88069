// SPDX-License-Identifier: GPL-2.0-only
//
// From captured frames to connections, and to HTTP transactions or whatever else is made of them: link and network headers,
// TCP.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <unordered_map>

#include "features/trace/http/frame_layers.hpp"
#include "features/trace/http/http_connection.hpp"
#include "features/trace/http/tcp_stream.hpp"

namespace netctl::trace {

struct PacketCounters {
    std::uint64_t frames = 0;
    FrameCounters layers;
    std::uint64_t evicted = 0; ///< connections forgotten because there were too many
    // Connections of which nothing could be made, by what they said first:
    std::uint64_t tls = 0;
    std::uint64_t not_http = 0;
    TcpCounters tcp;
};

struct PacketOptions {
    LayerOptions layers;
    /// Whether a wrong checksum may be what the sender's network card had still to fill in, as in a capture
    /// that was made on its machine: then it counts only against who sent right ones.
    bool checksums_may_be_unfilled = true;
    Time stalled = 0; ///< tell requests that wait for so long; 0: do not
};

class PacketTracer {
  public:
    /// Connections kept at once; the one that was quiet for longest goes first.
    static constexpr std::size_t connection_limit = 16384;

    /// Of what `sender` sends, no bytes are wanted up to the sequence number `until`, which is at most
    /// 2^30 ahead; and of what `receiver` sends, up to `back`, if there is one.
    using Skip = std::function<void(const Endpoint& sender, const Endpoint& receiver,
                                    std::uint32_t until, std::optional<std::uint32_t> back)>;
    /// What is left of a body below this is not worth telling.
    static constexpr std::uint64_t skip_from = 128 * 1024;

    /// A new connection between two ends: Conversation::a is what the lower one sends. The budget lives as long as it.
    using Make = std::function<std::unique_ptr<Conversation>(
        const Endpoint& low, const Endpoint& high, MemoryBudget& budget)>;
    /// What is in UDP, as much of it as was captured, and its length.
    using OnDatagram = std::function<void(Time now, const TcpPlace& place)>;

    PacketTracer(PacketCounters& counters, Make make, PacketOptions packet_options,
                 OnDatagram on_datagram = {})
        : packet_options_(packet_options),
          counters_(&counters),
          make_(std::move(make)),
          on_datagram_(std::move(on_datagram)) {}
    /// Of HTTP; `options` have to outlive it.
    PacketTracer(const ParserOptions& options, ParserCounters& parser_counters,
                 PacketCounters& counters, HttpConnection::Emit emit, Skip skip = {},
                 PacketOptions packet_options = {});

    /// `length` is the frame's on the wire, `bytes` what was captured of it.
    void frame(Time now, FrameStart start, std::span<const std::uint8_t> bytes,
               std::uint32_t length);
    /// The same; `verify` says whether somebody vouches for the checksum.
    void frame(Time now, FrameStart start, std::span<const std::uint8_t> bytes,
               std::uint32_t length, bool verify);
    /// Time passes without frames.
    void tick(Time now);
    /// No more frames: gives up holes, and tells what is under way.
    void finish(Time now);
    std::size_t connections() const { return flows_.size(); }
    /// Bytes held for connections, as they are counted against the budget.
    std::size_t memory() const { return budget_.used(); }

  private:
    struct Key {
        Endpoint low, high;
        std::uint64_t path = 0;
        bool operator==(const Key&) const = default;
    };
    struct Hash {
        std::size_t operator()(const Key& key) const;
    };
    struct Flow {
        explicit Flow(MemoryBudget& budget) : share(&budget) {}
        MemoryShare share;
        Time last = 0;
        bool closed = false;
        std::uint8_t first_byte = 0; ///< of the first payload
        bool spoke = false;
        bool began = false; ///< a SYN was seen
        std::unique_ptr<Conversation> talk;
        std::array<std::unique_ptr<TcpStream>, 2> streams;
        std::array<std::optional<std::uint32_t>, 2> until; ///< what was skipped last
        std::array<std::uint8_t, 2> right_checksums{};     ///< up to a few
        std::array<bool, 2> unfilled{};                    ///< checksums
    };
    /// What a connection takes that has said nothing yet, roughly.
    static constexpr std::size_t flow_cost = 2048;

    void tcp(Time now, const TcpPlace& place);
    bool is_forged(Flow& flow, Conversation::Side side, const TcpPlace& place) const;
    Flow& flow_of(const Key& key, Time now);
    void reset(Flow& flow, const Key& key);
    void skip_body(Flow& flow, Conversation::Side side, const Endpoint& sender,
                   const Endpoint& receiver);
    /// Counts it, if it is not shown.
    void leave(Flow& flow, Time now);
    void sweep(Time now);
    void relieve(Time now);
    void evict(std::size_t count, Time now);

    PacketOptions packet_options_;
    PacketCounters* counters_;
    Make make_;
    Skip skip_;
    OnDatagram on_datagram_;
    MemoryBudget budget_;
    std::unordered_map<Key, std::unique_ptr<Flow>, Hash> flows_;
    Time swept_ = 0;
    Time relieved_ = 0;
};

} // namespace netctl::trace
