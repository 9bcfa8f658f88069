// SPDX-License-Identifier: GPL-2.0-only
//
// Both directions of one connection: requests and responses put together into transactions.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "features/trace/http_parser.hpp"
#include "features/trace/memory_budget.hpp"
#include "features/trace/parties.hpp"

namespace netctl::trace {

/// What is told of a request or a response.
struct Message {
    bool seen = false;
    MessageEnd end = MessageEnd::complete;
    int version_minor = 1;
    Time first_byte = 0;
    Time last_byte = 0;
    std::uint64_t wire_bytes = 0; ///< head, body and its framing
    std::uint64_t head_bytes = 0;
    std::uint64_t body_bytes = 0; ///< content, without chunk framing
    bool absurd = false;          ///< see Head::absurd
    std::string content_type;
    std::string content_encoding;
    std::vector<HeaderField> fields; ///< if Options::keep_fields
    std::string body;                ///< its captured beginning, at most Options::body_limit
    /// `body` without its content coding, if decode_bodies() was asked and could.
    std::optional<std::string> decoded;
    bool decoded_whole = false; ///< and nothing of it is missing
};

struct Transaction {
    Endpoint client;
    Endpoint server;
    /// In place of these, of a Unix socket: as in sockaddr_un, an abstract name begins with 0; empty if unnamed.
    std::optional<std::string> unix_path;
    Process client_process;
    Process server_process;
    bool tls = false;         ///< it went through TLS, and was read within the process
    bool placed = true;       ///< its socket is known; if not, there are no addresses
    bool client_view = false; ///< told by the client's socket, not the server's or the wire
    std::string method;       ///< empty: the request was not seen
    std::string target;
    std::string host;
    int status = 0; ///< 0: there was no response, or it was not seen
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
    std::uint64_t malformed = 0;  ///< messages that are no HTTP/1 where one was due
    std::uint64_t holes = 0;      ///< missing bytes that may have held whole messages
    std::uint64_t unframed = 0;   ///< messages whose end was guessed
    std::uint64_t http2 = 0;      ///< connections with HTTP/2's preface
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

class HttpConnection : private MessageSink {
  public:
    using Emit = std::function<void(Transaction&)>;
    /// A side is a sender. Which of the two is the client shows in what they say.
    enum Side : unsigned { a = 0, b = 1 };

    /// Requests under way at once on one connection.
    static constexpr std::size_t exchange_limit = 4096;

    HttpConnection(const ParserOptions& options, ParserCounters& counters, MemoryBudget& budget,
                   Emit emit)
        : options_(&options), counters_(&counters), share_(&budget), emit_(std::move(emit)) {}
    HttpConnection(const HttpConnection&) = delete;
    HttpConnection& operator=(const HttpConnection&) = delete;

    /// Its beginning was not seen: requests may wait for answers that nobody saw.
    void join_midway() { doubtful_ = true; }
    /// What `side` sent; see MessageParser::data. `moment` is its first byte's.
    void data(Side side, std::string_view data, const Moment& moment);
    void gap(Side side, std::uint64_t length, Time now);
    /// `side` sends no more.
    void close(Side side, Time now);
    /// The connection is gone.
    void close(Time now);
    /// Tracing ends, or looks no longer at this connection: tells what is under way.
    void abandon(Time now);
    /// Time passes: ends messages whose framing was lost, if nothing comes of them any more, and tells
    /// requests that have waited for an answer for `patience` or longer, each once, unless that is 0.
    void tick(Time now, Time patience);

    /// How many of the bytes that `side` sends next are of a body and not wanted; 0 if that is not known.
    std::uint64_t skippable(Side side) const;
    bool roles_known() const { return roles_known_; }
    Side client() const { return client_; }
    /// Whether one of its first requests, or of its latest, began with this byte.
    bool has_request_at(std::uint32_t at) const;
    /// Nothing more will come of this connection.
    bool opaque() const { return opaque_; }

  private:
    struct Exchange {
        Transaction transaction;
        Moment asked;    ///< the request's first byte; of a hole, about where it began
        Moment answered; ///< the response's first byte
        bool request_done = false;
        bool response_begun = false;
        bool response_done = false;
        bool hole = false;  ///< requests may be missing here
        bool early = false; ///< an answer whose request may come yet, if packets changed places
        bool expects = false;
        bool stall_told = false;
        std::size_t cost = 0; ///< in memory
    };
    /// As many requests are remembered by their numbers, the first half of them for good.
    static constexpr std::size_t remembered = 32;
    /// Answers without a request that are kept at once.
    static constexpr std::size_t early_limit = 16;

    Framing on_head(Head& head, const Moment& begin, Time now) override;
    void on_body(MessageKind kind, std::string_view data) override;
    void on_end(MessageKind kind, MessageEnd end, std::uint64_t wire, std::uint64_t body,
                Time now) override;
    void on_malformed(MessageKind kind, Time now) override;
    void on_lost(MessageKind kind, Time now) override;
    void on_unframed(MessageKind kind) override;
    bool awaits_another() override;
    bool is_due(MessageKind kind) override;

    Framing on_request(Head& head, const Moment& begin, Time now);
    Framing on_response(Head& head, const Moment& begin, Time now);
    /// Decides who is the client; false if that needs more. `moment` becomes that of `data`.
    bool decide_roles(Side side, std::string_view& data, Moment& moment);
    /// The request that an answer is for; null: none that was seen. Tells those before it that got none.
    Exchange* find_asked(const Moment& answer);
    Exchange* find_asked_by_order();
    /// A new request: where its early answer is, or a new exchange.
    Exchange& exchange_for(const Moment& asked);
    Exchange& add(const std::deque<std::unique_ptr<Exchange>>::iterator& where);
    std::size_t unanswered() const;
    void remember_request(std::uint32_t at);
    void settle();
    void emit_front();
    void drop_front();
    void emit(const std::deque<std::unique_ptr<Exchange>>::iterator& which);
    void fill_in_progress(Exchange& exchange) const;
    void become_opaque();
    void charge(Time now);

    MessageParser& parser_of(Side side) { return side == client_ ? *requests_ : *responses_; }

    const ParserOptions* options_;
    ParserCounters* counters_;
    MemoryShare share_;
    Emit emit_;
    std::unique_ptr<MessageParser> requests_;
    std::unique_ptr<MessageParser> responses_;
    /// In the order of the requests. Their addresses stay, as moving one costs more than allocating it.
    std::deque<std::unique_ptr<Exchange>> exchanges_;
    std::array<std::string, 2> held_; ///< first bytes that do not yet tell what they are
    std::array<Moment, 2> held_since_;
    std::array<std::uint32_t, 2> reached_{}; ///< the end of what each side sent so far
    std::array<bool, 2> numbered_{};         ///< `reached_` is known
    std::array<std::uint32_t, remembered> requests_at_{};
    std::uint64_t requests_numbered_ = 0; ///< of which `requests_at_` has the first and the last
    Exchange* asking_ = nullptr;          ///< whose request is not complete
    Exchange* answering_ = nullptr;       ///< whose response is under way
    std::array<bool, 2> hole_first_{}; ///< bytes are missing before the first that were understood
    std::size_t exchanges_cost_ = 0;
    Side client_ = a;
    bool roles_known_ = false;
    bool opaque_ = false;
    bool pipelined_ = false;     ///< more than one request was under way at once
    bool doubtful_ = false;      ///< bytes are missing that would tell which answers are whose
    bool response_lost_ = false; ///< since the last head of a response, one may have been missed
    bool interim_ = false;       ///< the response under way is a 1xx
    bool tunnel_asked_ = false;  ///< CONNECT or Upgrade was sent
};

} // namespace netctl::trace
