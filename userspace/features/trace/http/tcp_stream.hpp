// SPDX-License-Identifier: GPL-2.0-only
//
// One direction of a TCP connection put back in order from captured segments.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "features/trace/http/http_parser.hpp"
#include "features/trace/http/memory_budget.hpp"

namespace netctl::trace {

struct TcpCounters {
    std::uint64_t retransmitted = 0; ///< segments that had nothing new
    std::uint64_t reordered = 0;     ///< segments that came before their turn
    std::uint64_t overlapping = 0;   ///< segments of which a part was not new
    std::uint64_t missing_bytes = 0; ///< bytes that were never captured
    std::uint64_t strays =
        0; ///< segments and resets that no receiver would take: far off, or of a wrong checksum
    std::uint64_t given_up =
        0; ///< holes that were given up as the memory for what waits behind them was used up
};

/// What is in a segment: sequence numbers in host order, and the captured part of the payload.
struct TcpSegment {
    Time time = 0;
    std::uint32_t sequence = 0;
    std::uint32_t acknowledged = 0; ///< valid if `ack`
    bool syn = false, ack = false, fin = false, rst = false;
    std::uint32_t length = 0; ///< of the payload on the wire
    std::string_view payload; ///< its captured prefix
    bool skipped = false;     ///< what is not captured was not wanted
    /// Where in the payload the urgent byte is, which no reader finds in the stream.
    std::optional<std::uint32_t> urgent;
};

/// Where bytes arrive twice, the first to arrive are taken: a receiver that follows RFC 9293 does
/// the same. A hole is given up when the receiver acknowledges what lies behind it, as then it is
/// the capture that lost it, or when too much waits behind it.
class TcpStream {
  public:
    using Data = std::function<void(std::string_view, const Moment&)>;
    using Gap = std::function<void(std::uint64_t, Time)>;

    /// Segments held behind a hole.
    static constexpr std::size_t held_limit = 1024 * 1024;

    TcpStream(TcpCounters& counters, MemoryBudget& budget, Data data, Gap gap)
        : counters_(&counters), share_(&budget), data_(std::move(data)), gap_(std::move(gap)) {}

    void segment(const TcpSegment& segment);
    /// The other direction says that it has everything before `sequence`.
    void acknowledged(std::uint32_t sequence, Time now);
    /// Whether a reset with this number is the sender's: it has to be the number that the receiver
    /// expects (RFC 5961, 3.2), as far as that is known.
    bool resets(std::uint32_t sequence) const;
    /// The other direction tells where this one begins, whose SYN was not seen.
    void start_at(std::uint32_t sequence) {
        if (synced_)
            return;
        synced_ = true;
        next_ = furthest_ = sequence;
    }
    /// Gives up what is missing before everything held.
    void flush(Time now);
    /// The sequence number that is due.
    std::uint32_t next() const { return next_; }
    bool holds() const { return !held_.empty(); }
    /// A FIN was reached, or there was a reset.
    bool ended() const { return ended_; }
    void reset() { ended_ = true; }

  private:
    struct Held {
        Time time = 0;
        std::uint32_t seen = 0;
        bool numbered = false;
        std::uint32_t length = 0;
        std::string payload;
        bool fin = false;
        bool skipped = false;
        std::optional<std::uint32_t> urgent;
    };
    /// What is kept of a held segment besides its payload.
    static constexpr std::size_t held_cost = sizeof(Held) + 64;

    /// Sequence numbers as distances from where the stream is; negative: in the past.
    std::int32_t distance(std::uint32_t sequence) const {
        return static_cast<std::int32_t>(sequence - next_);
    }
    bool is_stray(const TcpSegment& segment, std::int32_t ahead);
    void deliver(TcpSegment segment);
    void hold(const TcpSegment& segment, std::uint32_t ahead);
    void drain();
    void skip_to_first_held(Time now);

    TcpCounters* counters_;
    MemoryShare share_;
    Data data_;
    Gap gap_;
    bool synced_ = false;
    bool ended_ = false;
    std::uint32_t next_ = 0;
    std::uint64_t position_ = 0; ///< next_ without wrapping, so that held segments can be ordered
    std::uint32_t furthest_ = 0; ///< the end of what was sent, also of what is held
    std::optional<std::uint32_t> acknowledged_; ///< by the other end, whether or not there was data
    std::optional<std::uint32_t> far_acknowledged_; ///< by the other end, though it cannot be
    Time last_ = 0;
    std::map<std::uint64_t, Held> held_;
};

} // namespace netctl::trace
