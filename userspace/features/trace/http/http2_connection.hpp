// SPDX-License-Identifier: GPL-2.0-only
//
// Both directions of an HTTP/2 connection (RFC 9113): its streams as transactions.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "features/trace/http/grpc_call.hpp"
#include "features/trace/http/hpack.hpp"
#include "features/trace/http/http2_frames.hpp"
#include "features/trace/http/memory_budget.hpp"
#include "features/trace/http/request_numbers.hpp"
#include "features/trace/http/transaction.hpp"

namespace netctl::trace {

/// Who sends what begins with `text`, if that looks like an HTTP/2 connection that was joined late: frames, with a
/// whole head of a request or a response among them.
std::optional<MessageKind> guess_http2(std::string_view text);

class Http2Connection : private FrameSink {
  public:
    using Emit = std::function<void(Transaction&)>;

    /// Streams that are not over, on one connection.
    static constexpr std::size_t stream_limit = 4096;
    /// The largest block of a head that is decoded.
    static constexpr std::size_t block_limit = head_limit;

    /// `seen`: from the connection's beginning; the preface has been taken. Here and below, a side is named by what it
    /// sends.
    Http2Connection(const ParserOptions& options, ParserCounters& counters, MemoryBudget& budget,
                    bool seen, Emit emit);
    Http2Connection(const Http2Connection&) = delete;
    Http2Connection& operator=(const Http2Connection&) = delete;

    /// The request that asked for the upgrade to HTTP/2, whose answer is that of stream 1 (RFC 7540 3.2). The
    /// preface comes still.
    void adopt(Transaction request);

    /// As those of HttpConnection.
    void data(MessageKind side, std::string_view data, const Moment& moment);
    void gap(MessageKind side, std::uint64_t length, Time now);
    void close(MessageKind side, Time now);
    void abandon(Time now);
    void tick(Time now, Time patience);
    std::uint64_t skippable(MessageKind side) const;
    bool has_request_at(std::uint32_t at) const { return numbers_.has(at); }

  private:
    struct Stream {
        Transaction transaction;
        bool request_done = false;
        bool response_begun = false;
        bool response_done = false;
        bool early = false; ///< an answer whose request may come yet, if packets changed places
        bool stall_told = false;
        std::size_t cost = 0;
        std::array<GrpcMessages, 2> messages; ///< by side
    };
    using Streams = std::map<std::uint32_t, Stream>;

    /// A head, or trailers, that are under way or decoded.
    struct Block {
        bool open = false;
        bool damaged = false; ///< bytes of it are missing
        bool promise = false;
        bool end_stream = false;
        std::uint32_t stream = 0;
        std::uint32_t promised = 0;
        std::uint64_t wire = 0; ///< with its frames' headers
        Moment begin;
        std::string bytes;
    };
    struct Direction {
        Direction(MessageKind side, FrameSink& sink, bool seen, bool synced)
            : reader(side, sink, synced), decoder(seen) {}
        FrameReader reader;
        HeaderDecoder decoder;
        Block block;
        // Of the frame under way: what stands before its content, and what of that there is.
        std::size_t prefix_size = 0;
        std::string prefix;
        std::uint64_t content = 0; ///< bytes still to come
        bool hole = false;
        std::string control;     ///< the first bytes of one that is neither head nor body
        bool lost = false;       ///< whole frames are missing, and this was told
        std::size_t preface = 0; ///< bytes of it that are still to come
    };
    struct Fields;

    void on_frame(MessageKind side, const Frame& frame, const Moment& begin) override;
    void on_payload(MessageKind side, const Frame& frame, std::string_view data) override;
    void on_missing(MessageKind side, const Frame& frame, std::uint64_t length) override;
    void on_frame_end(MessageKind side, const Frame& frame, Time now) override;
    void on_frames_lost(MessageKind side, bool malformed, Time now) override;

    Direction& of(MessageKind side) { return *directions_[static_cast<std::size_t>(side)]; }
    const Direction& of(MessageKind side) const {
        return *directions_[static_cast<std::size_t>(side)];
    }
    Message& message_of(Stream& stream, MessageKind side) const {
        return side == MessageKind::request ? stream.transaction.request
                                            : stream.transaction.response;
    }
    static bool& done(Stream& stream, MessageKind side) {
        return side == MessageKind::request ? stream.request_done : stream.response_done;
    }
    void finish_prefix(Direction& direction, const Frame& frame);
    void content(MessageKind side, const Frame& frame, std::string_view data);
    void missing_content(MessageKind side, const Frame& frame, std::uint64_t length);
    void lose_table(Direction& direction);
    void begin_block(Direction& direction, const Frame& frame, const Moment& begin);
    void finish_block(MessageKind side, Time now);
    void on_request(std::uint32_t id, Fields& fields, const Block& block, Time now);
    void on_response(std::uint32_t id, Fields& fields, const Block& block, Time now);
    /// What a head says of `message`, request or response.
    void begin_message(Stream& stream, Message& message, Fields& fields, const Block& block,
                       Time now);
    void fill_request(std::uint32_t id, Stream& stream, Fields& fields, const Block& block,
                      Time now);
    void fill_trailers(Stream& stream, MessageKind side, Fields& fields, const Block& block,
                       Time now);
    void note_grpc(Stream& stream, const Fields& fields) const;
    Stream* find(std::uint32_t id);
    Stream& add(std::uint32_t id);
    void end_side(std::uint32_t id, MessageKind side, Time now);
    void reset(std::uint32_t id, const Reset& reset, Time now);
    void go_away(MessageKind side, std::string_view payload, Time now);
    void settle(std::uint32_t id);
    void emit(Streams::iterator which);
    void count_messages(Stream& stream) const;
    bool has_ended(std::uint32_t id) const;
    std::size_t held() const;
    void charge(Time now);

    const ParserOptions* options_;
    ParserCounters* counters_;
    MemoryShare share_;
    Emit emit_;
    std::array<std::unique_ptr<Direction>, 2> directions_; ///< by side
    Streams streams_;
    std::size_t streams_cost_ = 0;
    std::uint32_t last_asked_ = 0; ///< the client's newest stream
    bool asked_ = false;           ///< and it was seen
    /// Streams that were told last: what still comes of them tells nothing.
    std::array<std::uint32_t, 128> ended_{};
    std::size_t ended_at_ = 0;
    RequestNumbers numbers_;
};

} // namespace netctl::trace
