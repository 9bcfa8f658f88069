// SPDX-License-Identifier: GPL-2.0-only
//
// What is told of a request and its response, whichever HTTP carried them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "features/trace/http/http_parser.hpp"
#include "features/trace/parties.hpp"

namespace netctl::trace {

/// What is told of a request or a response.
struct Message {
    bool seen = false;
    MessageEnd end = MessageEnd::complete;
    bool http2 = false;
    int version_minor = 1; ///< of HTTP/1
    Time first_byte = 0;
    Time last_byte = 0;
    std::uint64_t wire_bytes = 0; ///< head, body and its framing
    std::uint64_t head_bytes = 0;
    std::uint64_t body_bytes = 0; ///< content, without chunk framing
    bool absurd = false; ///< see Head::absurd; HTTP/2: the head could not be read to its end
    std::string content_type;
    std::string content_encoding;
    std::vector<HeaderField> fields;   ///< if Options::keep_fields
    std::vector<HeaderField> trailers; ///< HTTP/2; likewise
    /// HTTP/2: fields that stand in a part of the header table that was not seen.
    unsigned unknown_fields = 0;
    std::string body; ///< its captured beginning, at most Options::body_limit
    /// `body` without its content coding, if decode_bodies() was asked and could.
    std::optional<std::string> decoded;
    bool decoded_whole = false; ///< and nothing of it is missing
};

/// HTTP/2: who ended a stream before its end, and with which error (RFC 9113 7).
struct Reset {
    bool by_server = false;
    bool goaway =
        false; ///< not the stream's own: the connection goes away, and it is not processed
    std::optional<std::uint32_t> code;
};

/// `CANCEL`; empty if the registry has none.
std::string_view reset_name(std::uint32_t code);

/// A call of gRPC ("gRPC over HTTP2" of its documentation).
struct GrpcCall {
    std::optional<std::uint32_t> status; ///< grpc-status, if it came
    std::string message;                 ///< grpc-message, decoded
    /// Messages that began, by direction; empty: bytes are missing that would tell.
    std::optional<std::uint64_t> sent = 0;
    std::optional<std::uint64_t> received = 0;
    Time deadline = 0; ///< grpc-timeout, 0: none
};

struct Transaction {
    Endpoint client;
    Endpoint server;
    /// In place of these, of a Unix socket: as in sockaddr_un, an abstract name begins with 0; empty if unnamed.
    std::optional<std::string> unix_path;
    Process client_process;
    Process server_process;
    std::optional<std::uint32_t> stream; ///< HTTP/2
    bool pushed = false;                 ///< HTTP/2: the server promised it, and nobody asked
    std::optional<Reset> reset;
    std::optional<GrpcCall> grpc;
    bool tls = false;         ///< it went through TLS, and was read within the process
    bool placed = true;       ///< its socket is known; if not, there are no addresses
    bool client_view = false; ///< told by the client's socket, not the server's or the wire
    std::string method;       ///< empty: the request was not seen; HTTP/2: or it is not known
    std::string target;       ///< HTTP/2: likewise
    std::string host;
    int status = 0; ///< 0: there was no response, or it was not seen; HTTP/2: or it is not known
    std::string reason;
    unsigned interim = 0; ///< 1xx responses before the final one
    bool closed = false;  ///< the connection ended before the response was complete
    bool waiting = false; ///< it was not over when this was told
    bool stalled = false; ///< told by HttpConnection::tick: another one follows
    bool guessed = false; ///< that the answer is this request's: bytes are missing that would tell
    Time until = 0;       ///< without a response: until when it was waited for; 0: not known
    /// The request's first byte, as in Moment, if the source knows.
    std::optional<std::uint32_t> asked_at;
    Message request;
    Message response;

    /// As Endpoint::to_string(); `unix:/run/x.sock`, `unix:@abstract`, `unix:` for a server on a Unix socket, and
    /// `unix` for its client; `-` if the socket is not known.
    std::string client_name() const;
    std::string server_name() const;
    Time start() const { return request.seen ? request.first_byte : response.first_byte; }
    Time end() const {
        return std::max(until, response.seen ? response.last_byte : request.last_byte);
    }
    /// From the request's first byte to the response's; 0 if one of them was not seen.
    Time latency() const {
        return request.seen && response.seen && response.first_byte > request.first_byte
                   ? response.first_byte - request.first_byte
                   : 0;
    }
    Time duration() const { return end() > start() ? end() - start() : 0; }
};

/// What could not be told, besides what the transactions themselves say.
struct ParserCounters {
    std::uint64_t transactions = 0;
    std::uint64_t malformed = 0; ///< messages that are no HTTP where one was due
    std::uint64_t holes = 0;     ///< missing bytes that may have held whole messages
    std::uint64_t unframed = 0;  ///< messages whose end was guessed
    std::uint64_t http2 = 0;     ///< connections that spoke HTTP/2
    /// HTTP/2: header tables of a direction that were not known from their beginning, or no longer.
    std::uint64_t tables_unknown = 0;
    std::uint64_t tunnels = 0;    ///< connections that became something else: CONNECT, 101
    std::uint64_t unanswered = 0; ///< requests whose response was not seen
    std::uint64_t unasked = 0;    ///< responses whose request was not seen
    std::uint64_t unfinished = 0; ///< transactions under way when tracing ended
    std::uint64_t stalled = 0;    ///< told while they hung
    std::uint64_t guessed =
        0; ///< answers paired with requests though bytes between them are missing
    std::uint64_t dropped = 0; ///< messages and transactions given up for the memory that they took
};

struct ParserOptions {
    bool keep_fields = false;
    std::uint32_t body_limit = 0;
    /// Answers may pass where they are not seen, as those of connections that netctl redirects: who asks
    /// again without one has got it.
    bool answers_may_hide = false;
};

/// Counts a transaction that is told.
void count_told(ParserCounters& counters, const Transaction& transaction);

} // namespace netctl::trace
