// SPDX-License-Identifier: GPL-2.0-only
//
// HTTP/1.x messages out of one direction of a connection, cut anywhere, with holes.
//
// A tracer is not an endpoint: it joins in the middle, sees prefixes of large writes, and loses
// bytes. So this parser takes two kinds of input, bytes and holes of known length, and skips a hole
// that lies inside a body whose length is known, which no endpoint's parser can do. Framing follows
// RFC 9112, section 6.3. It never keeps a body, and bounds what it keeps of a head.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace netctl::trace {

/// Nanoseconds on the clock of the source; only differences and order matter to the parser.
using Time = std::uint64_t;
constexpr Time second = 1'000'000'000;

/// When a byte passed and, where the source knows, which: its number in its direction, and the number
/// of the first byte of the other direction that its sender did not have yet. Both as TCP's sequence
/// numbers are: they wrap, and only differences below 2^31 mean something.
struct Moment {
    Time time = 0;
    std::uint32_t at = 0;
    std::uint32_t seen = 0;
    bool numbered = false; ///< `at` and `seen` count

    Moment() = default;
    Moment(Time when)
        : time(when) {} // NOLINT(google-explicit-constructor): a moment without numbers
    Moment(Time when, std::uint32_t own, std::uint32_t other)
        : time(when), at(own), seen(other), numbered(true) {}
};

/// Whether sequence number `a` is before `b`.
constexpr bool before(std::uint32_t a, std::uint32_t b) {
    return static_cast<std::int32_t>(a - b) < 0;
}

/// Heads above this are marked absurd; what is above it is framed, but not kept.
constexpr std::size_t head_limit = 64 * 1024;

struct HeaderField {
    std::string name;
    std::string value;
};

enum class MessageKind : std::uint8_t { request, response };

/// What of a head is no text.
struct HeadNumbers {
    int status = 0; ///< response, 100 to 999
    int version_minor = 1;
    std::optional<std::uint64_t> content_length;
    bool transfer_coded = false; ///< there is a Transfer-Encoding
    bool chunked = false;        ///< and its last coding is chunked
    bool expect_continue = false;
    bool upgrade = false;
    bool upgrade_h2c = false; ///< to HTTP/2 without TLS, RFC 7540 3.2
    bool close = false;       ///< Connection: close
    bool keep_alive = false;  ///< Connection: keep-alive
    bool absurd = false;      ///< above head_limit, or framed in contradictory ways
    std::uint64_t bytes = 0;  ///< of the head on the wire, the empty line included
};

/// A start line and what of the fields matters for framing, pairing and display.
struct Head : HeadNumbers {
    MessageKind kind = MessageKind::request;
    std::string method; ///< request
    std::string target; ///< request, as sent
    std::string reason; ///< response
    std::string host;
    std::string content_type;
    std::string content_encoding;
    std::vector<HeaderField> fields; ///< only if the parser was told to keep them

    /// As made anew, but what its strings hold in memory they keep.
    void clear();
};

/// How the end of a message's body is found.
enum class Framing : std::uint8_t {
    none,        ///< there is no body
    length,      ///< Head::content_length bytes
    chunked,     ///< until the last chunk and the trailers
    until_close, ///< until the connection ends
    tunnel,      ///< from here on, this connection is not HTTP
};

/// The framing of a request, RFC 9112 6.3.
Framing request_framing(const Head& head);
/// The framing of a response to a request with `method`; empty if the method is not known.
Framing response_framing(const Head& head, std::string_view method);

/// Why a message ended.
enum class MessageEnd : std::uint8_t {
    complete,
    cut,      ///< the connection ended, or the next message began, before it was complete
    unframed, ///< a hole swallowed the framing; it is over, but its length is a lower bound
};

/// What an HTTP/2 client sends first (RFC 9113 3.4).
constexpr std::string_view http2_preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What the first bytes of a direction look like.
enum class StartGuess : std::uint8_t { no, maybe, request, response, http2 };

/// A start line whose method is none of the known ones is recognised by its end; this is how long it
/// may be.
constexpr std::size_t start_limit = 8 * 1024;

/// Decides from the first bytes of a write, read or segment. `maybe` means that more bytes are
/// needed, and is never returned for start_limit bytes or more.
StartGuess guess_start(std::string_view data);

class MessageSink {
  public:
    virtual ~MessageSink() = default;
    /// A head is complete; `begin` is when its first byte was seen. The sink may move out of it.
    virtual Framing on_head(Head& head, const Moment& begin, Time now) = 0;
    /// Captured bytes of the body, without its framing.
    virtual void on_body(MessageKind kind, std::string_view data) = 0;
    /// The message whose head was announced is over. `wire` counts all its bytes, `body` those of
    /// its content.
    virtual void on_end(MessageKind kind, MessageEnd end, std::uint64_t wire, std::uint64_t body,
                        Time now) = 0;
    /// Bytes that are no HTTP where a head was due.
    virtual void on_malformed(MessageKind kind, Time now) = 0;
    /// A hole that may hold whole messages.
    virtual void on_lost(MessageKind kind, Time now) = 0;
    /// A hole after which the end of the message under way is not known.
    virtual void on_unframed(MessageKind kind) = 0;
    /// A response that lasts until the connection ends is followed by something that looks like
    /// another response: true if one is awaited.
    virtual bool awaits_another() = 0;
    /// Whether a message of this kind is due: what is none then is told as malformed.
    virtual bool is_due(MessageKind kind) = 0;
};

class MessageParser {
  public:
    MessageParser(MessageKind kind, MessageSink& sink, bool keep_fields)
        : sink_(&sink), kind_(kind), keep_fields_(keep_fields) {}

    /// Bytes in order. A call's first byte should be where a write, a read or a segment began: only
    /// there does the parser look for a message after it lost its place.
    void data(std::string_view data, const Moment& moment);
    /// `length` bytes passed that were not captured.
    void gap(std::uint64_t length, Time now);
    /// This direction has ended.
    void close(Time now);
    /// Ends a message whose framing was lost, at the time of its last byte; called when the other side
    /// shows that it is over.
    void end_unframed();
    /// The same if nothing came of it since `before`.
    void end_unframed_before(Time before);
    /// The request whose body was announced with Expect is not going to have one.
    void abandon_body(Time now);
    /// What follows is not HTTP.
    void become_tunnel() {
        state_ = State::tunnel;
        line_.clear();
        kept_ = 0;
    }
    /// Forgets what it holds, as if it had been lost.
    void forget(Time now);

    /// Of the message under way, so far: all bytes, and those of its content.
    std::uint64_t wire_bytes() const { return wire_; }
    std::uint64_t body_bytes() const { return body_; }
    /// What it holds in memory, roughly.
    std::size_t held() const { return line_.size() + kept_; }

    /// Between two messages.
    bool idle() const { return state_ == State::start && !begun_; }
    bool unframed() const { return state_ == State::unframed; }
    bool in_message() const { return announced_; }
    /// How many of the last bytes that came are behind the head with which this ceased to be HTTP/1.
    std::size_t rest() const { return rest_; }
    /// In a body of which nothing was seen yet.
    bool body_untouched() const {
        return (state_ == State::length || state_ == State::chunk_size) && body_ == 0 &&
               line_.empty();
    }
    /// The bytes of the body that may still come without a look at them; 0 if not known.
    std::uint64_t skippable() const {
        return state_ == State::length || state_ == State::chunk_data ? remaining_ : 0;
    }

  private:
    enum class State : std::uint8_t {
        lost, ///< looking for a message at the beginning of a write or segment
        start,
        fields,
        length,
        chunk_size,
        chunk_data,
        chunk_end,
        trailers,
        until_close,
        unframed,
        tunnel,
    };
    enum class Line : std::uint8_t { partial, whole };

    Line take_line(std::string_view& data, std::string_view& line);
    void release_line();
    bool parse_start(std::string_view line);
    void parse_field(std::string_view line);
    void parse_chunk_size(std::string_view line, Time now);
    void finish_head(Time now);
    void finish(MessageEnd end, Time now);
    void malformed(Time now);
    void lose(Time now);
    void body(std::string_view data);

    MessageSink* sink_;
    MessageKind kind_;
    bool keep_fields_;
    State state_ = State::lost;
    bool begun_ = false;     ///< a byte of the head was seen
    bool tentative_ = false; ///< found again after a loss: not counted if it is no message
    bool announced_ = false; ///< on_head was called, on_end was not
    bool line_held_ = false;
    bool loss_told_ = false;  ///< since this direction was last in step
    bool noise_told_ = false; ///< since this direction was last in step
    bool fold_ = false;       ///< the last field was kept, so a folded line belongs to it
    std::uint64_t remaining_ = 0;
    std::uint64_t wire_ = 0;
    std::uint64_t body_ = 0;
    std::uint64_t line_cut_ = 0; ///< bytes of the line beyond what is kept
    std::size_t kept_ = 0;       ///< of the head's fields
    std::size_t rest_ = 0;
    Time last_ = 0; ///< of a message whose framing was lost: when its last byte passed
    Moment begin_;
    Head head_;
    std::string line_;
};

} // namespace netctl::trace
