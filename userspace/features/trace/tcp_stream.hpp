// SPDX-License-Identifier: GPL-2.0-only
//
// One direction of a TCP connection put back in order from captured segments.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>

namespace netctl::trace {

struct TcpCounters {
    std::uint64_t retransmitted = 0; ///< segments that had nothing new
    std::uint64_t reordered = 0;     ///< segments that came before their turn
    std::uint64_t overlapping = 0;   ///< segments of which a part was not new
    std::uint64_t missing_bytes = 0; ///< bytes that were never captured
};

/// What is in a segment: sequence numbers in host order, and the captured part of the payload.
struct TcpSegment {
    std::uint32_t sequence = 0;
    std::uint32_t acknowledged = 0; ///< valid if `ack`
    bool syn = false, ack = false, fin = false, rst = false;
    std::uint32_t length = 0; ///< of the payload on the wire
    std::string_view payload; ///< its captured prefix
    bool skipped = false;     ///< what is not captured was not wanted
};

/// Where bytes arrive twice, the first to arrive are taken: a receiver that follows RFC 9293 does
/// the same. A hole is given up when the receiver acknowledges what lies behind it, as then it is
/// the capture that lost it, or when too much waits behind it.
class TcpStream {
  public:
    using Data = std::function<void(std::string_view)>;
    using Gap = std::function<void(std::uint64_t)>;

    /// Segments held behind a hole.
    static constexpr std::size_t held_limit = 1024 * 1024;

    TcpStream(TcpCounters& counters, Data data, Gap gap)
        : counters_(&counters), data_(std::move(data)), gap_(std::move(gap)) {}

    void segment(const TcpSegment& segment);
    /// The other direction says that it has everything before `sequence`.
    void acknowledged(std::uint32_t sequence);
    /// Gives up what is missing before everything held.
    void flush();
    /// The sequence number that is due.
    std::uint32_t next() const { return next_; }
    /// A FIN was reached, or there was a reset.
    bool ended() const { return ended_; }

  private:
    struct Held {
        std::uint32_t length = 0;
        std::string payload;
        bool fin = false;
        bool skipped = false;
    };

    /// Sequence numbers as distances from where the stream is; negative: in the past.
    std::int32_t distance(std::uint32_t sequence) const {
        return static_cast<std::int32_t>(sequence - next_);
    }
    void deliver(std::uint32_t length, std::string_view payload, bool fin, bool skipped);
    void drain();
    void skip_to_first_held();

    TcpCounters* counters_;
    Data data_;
    Gap gap_;
    bool synced_ = false;
    bool ended_ = false;
    std::uint32_t next_ = 0;
    std::uint64_t position_ = 0; ///< next_ without wrapping, so that held segments can be ordered
    std::size_t held_bytes_ = 0;
    std::map<std::uint64_t, Held> held_;
};

} // namespace netctl::trace
