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

#include "features/trace/http/conversation.hpp"
#include "features/trace/http/http_parser.hpp"
#include "features/trace/http/memory_budget.hpp"
#include "features/trace/http/request_numbers.hpp"
#include "features/trace/http/transaction.hpp"

namespace netctl::trace {

class Http2Connection;

/// Which of the two sides is the client shows in what they say.
class HttpConnection : public Conversation, private MessageSink {
  public:
    using Emit = std::function<void(Transaction&)>;

    /// Requests under way at once on one connection.
    static constexpr std::size_t exchange_limit = 4096;

    HttpConnection(const ParserOptions& options, ParserCounters& counters, MemoryBudget& budget,
                   Emit emit);
    ~HttpConnection() override;

    /// Its beginning was not seen: requests may wait for answers that nobody saw.
    void join_midway() override { doubtful_ = true; }
    /// See MessageParser::data.
    void data(Side side, std::string_view data, const Moment& moment) override;
    void gap(Side side, std::uint64_t length, Time now) override;
    void close(Side side, Time now) override;
    void close(Time now) override;
    void abandon(Time now) override;
    /// Time passes: ends messages whose framing was lost, if nothing comes of them any more, and tells
    /// requests that have waited for an answer for `patience` or longer, each once, unless that is 0.
    void tick(Time now, Time patience) override;

    /// Of a body.
    std::uint64_t skippable(Side side) const override;
    bool roles_known() const override { return roles_known_; }
    Side client() const { return client_; }
    /// Whether one of its first requests, or of its latest, began with this byte.
    bool has_request_at(std::uint32_t at) const;
    bool opaque() const override { return opaque_; }

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
    /// What follows is HTTP/2; `seen`: from its beginning. The client is known.
    void become_http2(bool seen);
    MessageKind kind_of(Side side) const {
        return side == client_ ? MessageKind::request : MessageKind::response;
    }
    /// Decides who is the client; false if that needs more. `moment` becomes that of `data`.
    bool decide_roles(Side side, std::string_view& data, Moment& moment);
    /// The request that an answer is for; null: none that was seen. Tells those before it that got none.
    Exchange* find_asked(const Moment& answer);
    Exchange* find_asked_by_order();
    /// A new request: where its early answer is, or a new exchange.
    Exchange& exchange_for(const Moment& asked);
    Exchange& add(const std::deque<std::unique_ptr<Exchange>>::iterator& where);
    std::size_t unanswered() const;
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
    MemoryBudget* budget_;
    MemoryShare share_;
    Emit emit_;
    std::unique_ptr<MessageParser> requests_;
    std::unique_ptr<MessageParser> responses_;
    std::unique_ptr<Http2Connection> http2_; ///< in place of these two
    /// The request that is answered with HTTP/2.
    std::optional<Transaction> upgraded_;
    /// In the order of the requests. Their addresses stay, as moving one costs more than allocating it.
    std::deque<std::unique_ptr<Exchange>> exchanges_;
    std::array<std::string, 2> held_; ///< first bytes that do not yet tell what they are
    std::array<Moment, 2> held_since_;
    std::array<std::uint32_t, 2> reached_{}; ///< the end of what each side sent so far
    std::array<bool, 2> numbered_{};         ///< `reached_` is known
    RequestNumbers numbers_;
    Exchange* asking_ = nullptr;       ///< whose request is not complete
    Exchange* answering_ = nullptr;    ///< whose response is under way
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
