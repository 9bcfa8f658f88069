// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/http/http_connection.hpp"

#include <algorithm>
#include <utility>

#include "features/trace/http/http2_connection.hpp"

namespace netctl::trace {

HttpConnection::HttpConnection(const ParserOptions& options, ParserCounters& counters,
                               MemoryBudget& budget, Emit emit)
    : options_(&options),
      counters_(&counters),
      budget_(&budget),
      share_(&budget),
      emit_(std::move(emit)) {}

HttpConnection::~HttpConnection() = default;

void HttpConnection::become_http2(bool seen) {
    while (!exchanges_.empty())
        emit_front();
    roles_known_ = true;
    requests_.reset();
    responses_.reset();
    http2_ =
        std::make_unique<Http2Connection>(*options_, *counters_, *budget_, seen,
                                          [this](Transaction& transaction) { emit_(transaction); });
}

bool HttpConnection::decide_roles(Side side, std::string_view& data, Moment& moment) {
    std::string& held = held_[side];
    if (held.empty()) {
        // Empty lines may come before a request (RFC 9112 2.2).
        const std::size_t lines = std::min(data.find_first_not_of("\r\n"), data.size());
        data.remove_prefix(lines);
        moment.at += static_cast<std::uint32_t>(lines);
        if (data.empty())
            return false;
        held_since_[side] = moment;
    } else {
        held.append(data);
        data = held;
        moment = held_since_[side];
    }
    switch (guess_start(data)) {
    case StartGuess::no:
        if (const auto kind = guess_http2(data)) {
            client_ = *kind == MessageKind::request ? side : side == a ? b : a;
            become_http2(false);
            return true;
        }
        held.clear();
        return false;
    case StartGuess::maybe:
        if (held.empty())
            held.assign(data);
        return false;
    case StartGuess::http2:
        client_ = side;
        become_http2(true);
        data.remove_prefix(http2_preface.size());
        moment.at += static_cast<std::uint32_t>(http2_preface.size());
        return true;
    case StartGuess::request: client_ = side; break;
    case StartGuess::response: client_ = side == a ? b : a; break;
    }
    roles_known_ = true;
    MessageSink& sink = *this;
    const bool keep = options_->keep_fields;
    requests_ = std::make_unique<MessageParser>(MessageKind::request, sink, keep);
    responses_ = std::make_unique<MessageParser>(MessageKind::response, sink, keep);
    return true;
}

void HttpConnection::data(Side side, std::string_view data, const Moment& moment) {
    if (opaque_ || data.empty())
        return;
    if (http2_)
        return http2_->data(kind_of(side), data, moment);
    if (moment.numbered) {
        numbered_[side] = true;
        reached_[side] = moment.at + static_cast<std::uint32_t>(data.size());
    }
    if (!roles_known_) {
        Moment begin = moment;
        const bool decided = decide_roles(side, data, begin);
        if (http2_) {
            if (!data.empty())
                http2_->data(kind_of(side), data, begin);
            held_[a].clear();
            held_[b].clear();
        } else if (decided) {
            if (hole_first_[client_])
                on_lost(MessageKind::request, moment.time);
            if (hole_first_[client_ == a ? b : a])
                on_lost(MessageKind::response, moment.time);
            parser_of(side).data(data, begin);
            held_[side].clear();
            // What the other side said so far was no beginning of anything, or too short to tell.
            const Side other = side == a ? b : a;
            if (!held_[other].empty() && !opaque_)
                parser_of(other).data(held_[other], held_since_[other]);
            held_[other].clear();
        }
        return charge(moment.time);
    }
    MessageParser& parser = parser_of(side);
    if (side == client_) {
        if (parser.idle() && data[0] == 'P' && guess_start(data) == StartGuess::http2) {
            become_http2(true);
            Moment begin = moment;
            begin.at += static_cast<std::uint32_t>(http2_preface.size());
            data.remove_prefix(http2_preface.size());
            if (!data.empty())
                http2_->data(MessageKind::request, data, begin);
            return charge(moment.time);
        }
        // A client that waited for "100 Continue" and was refused sends its next request instead.
        if (asking_ && asking_->expects && asking_->response_done && parser.body_untouched() &&
            guess_start(data) == StartGuess::request)
            parser.abandon_body(moment.time);
    }
    parser.data(data, moment);
    if (upgraded_) {
        const std::size_t rest = parser.rest();
        Moment begin = moment;
        begin.at += static_cast<std::uint32_t>(data.size() - rest);
        become_http2(true);
        http2_->adopt(*std::exchange(upgraded_, std::nullopt));
        if (rest > 0)
            http2_->data(kind_of(side), data.substr(data.size() - rest), begin);
    }
    charge(moment.time);
}

void HttpConnection::gap(Side side, std::uint64_t length, Time now) {
    if (opaque_ || length == 0)
        return;
    if (http2_)
        return http2_->gap(kind_of(side), length, now);
    if (!roles_known_) {
        held_[side].clear();
        hole_first_[side] = true;
        reached_[side] += static_cast<std::uint32_t>(length);
        return charge(now);
    }
    parser_of(side).gap(length, now);
    reached_[side] += static_cast<std::uint32_t>(length);
    charge(now);
}

/// What it holds of messages and transactions comes out of the common budget; if that is used up, it
/// gives up something of its own.
void HttpConnection::charge(Time now) {
    const auto held = [&] {
        std::size_t bytes = exchanges_cost_ + held_[a].size() + held_[b].size();
        if (requests_)
            bytes += requests_->held() + responses_->held();
        return bytes;
    };
    share_.set(held());
    constexpr std::size_t spared = 4096; // what any connection may hold
    while ((share_.exceeded() && share_.bytes() > spared) || exchanges_.size() > exchange_limit) {
        ++counters_->dropped;
        if (exchanges_.size() > 1) {
            doubtful_ = true;
            emit_front();
        } else if (requests_) {
            requests_->forget(now);
            responses_->forget(now);
            while (!exchanges_.empty())
                emit_front();
            share_.set(held());
            return;
        } else {
            held_[a].clear();
            held_[b].clear();
        }
        share_.set(held());
    }
}

void HttpConnection::close(Side side, Time now) {
    if (!roles_known_ || opaque_)
        return;
    if (http2_)
        return http2_->close(kind_of(side), now);
    parser_of(side).close(now);
    if (side == client_ || opaque_)
        return;
    // The server will not answer what is left, nor read on.
    while (!exchanges_.empty()) {
        Exchange& exchange = *exchanges_.front();
        if (!exchange.hole && !exchange.response_done) {
            exchange.transaction.closed = true;
            exchange.transaction.until = now;
        }
        emit_front();
    }
    charge(now);
}

void HttpConnection::close(Time now) {
    if (!roles_known_)
        return;
    const Side server = client_ == a ? b : a;
    close(client_, now);
    close(server, now);
}

void HttpConnection::abandon(Time now) {
    if (http2_)
        http2_->abandon(now);
    http2_.reset();
    while (!exchanges_.empty()) {
        Exchange& exchange = *exchanges_.front();
        if (!exchange.hole && exchange.transaction.request.seen && !exchange.response_done) {
            exchange.transaction.waiting = true;
            exchange.transaction.until = now;
        }
        emit_front();
    }
    become_opaque();
    charge(now);
}

void HttpConnection::tick(Time now, Time patience) {
    if (http2_)
        return http2_->tick(now, patience);
    constexpr Time quiet = second;
    if (requests_ && !opaque_) {
        requests_->end_unframed_before(now - quiet);
        responses_->end_unframed_before(now - quiet);
    }
    if (patience == 0)
        return;
    for (const auto& exchange : exchanges_) {
        const Transaction& transaction = exchange->transaction;
        if (exchange->hole || exchange->stall_told || exchange->response_begun ||
            !transaction.request.seen || transaction.request.first_byte + patience > now)
            continue;
        exchange->stall_told = true;
        Transaction told = transaction;
        told.waiting = told.stalled = true;
        told.until = now;
        if (exchange.get() == asking_) {
            told.request.wire_bytes = requests_->wire_bytes();
            told.request.body_bytes = requests_->body_bytes();
            told.request.end = MessageEnd::cut;
        }
        ++counters_->stalled;
        emit_(told);
    }
}

std::uint64_t HttpConnection::skippable(Side side) const {
    if (!roles_known_ || opaque_)
        return 0;
    if (http2_)
        return http2_->skippable(kind_of(side));
    const bool asked = side == client_;
    const std::uint64_t rest = (asked ? *requests_ : *responses_).skippable();
    if (rest == 0 || options_->body_limit == 0)
        return rest;
    const Exchange* exchange = asked ? asking_ : answering_;
    if (!exchange)
        return rest;
    const std::string& body =
        asked ? exchange->transaction.request.body : exchange->transaction.response.body;
    return body.size() >= options_->body_limit ? rest : 0;
}

void HttpConnection::become_opaque() {
    opaque_ = true;
    held_[a].clear();
    held_[b].clear();
    if (requests_)
        requests_->become_tunnel();
    if (responses_)
        responses_->become_tunnel();
}

Framing HttpConnection::on_head(Head& head, const Moment& begin, Time now) {
    return head.kind == MessageKind::request ? on_request(head, begin, now)
                                             : on_response(head, begin, now);
}

std::size_t HttpConnection::unanswered() const {
    return static_cast<std::size_t>(
        std::count_if(exchanges_.begin(), exchanges_.end(), [](const auto& exchange) {
            return !exchange->hole && !exchange->response_begun;
        }));
}

HttpConnection::Exchange&
HttpConnection::add(const std::deque<std::unique_ptr<Exchange>>::iterator& where) {
    Exchange& exchange = **exchanges_.insert(where, std::make_unique<Exchange>());
    exchange.cost = sizeof(Exchange);
    exchanges_cost_ += exchange.cost;
    return exchange;
}

HttpConnection::Exchange& HttpConnection::exchange_for(const Moment& asked) {
    while (!exchanges_.empty() && exchanges_.front()->early) {
        Exchange& answer = *exchanges_.front();
        // It answers what its sender had, and asks for nothing that was there already.
        if (asked.numbered && before(asked.at, answer.answered.seen) &&
            !before(answer.answered.at, asked.seen)) {
            answer.early = false;
            answer.transaction.guessed |= doubtful_;
            return answer;
        }
        emit_front();
    }
    return add(exchanges_.end());
}

Framing HttpConnection::on_request(Head& head, const Moment& begin, Time now) {
    const Side server = client_ == a ? b : a;
    // The client has got more than was seen of the server: what is missing may be an answer, which
    // came by another way or comes later.
    std::optional<std::uint32_t> seen_of_server;
    if (numbered_[server])
        seen_of_server = reached_[server];
    else if (!exchanges_.empty() && exchanges_.back()->asked.numbered)
        seen_of_server = exchanges_.back()->asked.seen;
    const bool behind = begin.numbered && seen_of_server && before(*seen_of_server, begin.seen);
    // A client that does not pipeline has got its answer when it asks again; so whatever was lost
    // of that answer is over.
    if (!exchanges_.empty() && !pipelined_) {
        if (responses_->unframed()) {
            responses_->end_unframed();
        } else if (response_lost_ && !begin.numbered) {
            while (!exchanges_.empty())
                emit_front();
        } else if (exchanges_.front()->hole && !begin.numbered) {
            drop_front();
        }
    }
    if (options_->answers_may_hide) {
        while (unanswered() > 0)
            emit_front();
    }
    pipelined_ |=
        unanswered() + (answering_ && !interim_ ? 1 : 0) > 0 && !behind && !response_lost_;
    Exchange& exchange = exchange_for(begin);
    Transaction& transaction = exchange.transaction;
    const Framing framing = request_framing(head);
    if (begin.numbered) {
        transaction.asked_at = begin.at;
        numbers_.remember(begin.at);
    }
    exchange.asked = begin;
    exchange.request_done = false;
    asking_ = &exchange;
    tunnel_asked_ = head.method == "CONNECT" || head.upgrade;
    exchange.expects = head.expect_continue;
    const std::size_t text = head.method.size() + head.target.size() + head.host.size();
    transaction.method = std::move(head.method);
    transaction.target = std::move(head.target);
    transaction.host = std::move(head.host);
    Message& request = transaction.request;
    request.seen = true;
    request.version_minor = head.version_minor;
    request.first_byte = begin.time;
    request.last_byte = now;
    request.head_bytes = head.bytes;
    request.absurd = head.absurd;
    request.content_type = std::move(head.content_type);
    request.content_encoding = std::move(head.content_encoding);
    request.fields = std::move(head.fields);
    exchange.cost += text + requests_->held();
    exchanges_cost_ += text + requests_->held();
    // It was not known that this answer has no body.
    if (answering_ == &exchange && transaction.method == "HEAD")
        responses_->abandon_body(now);
    return framing;
}

bool HttpConnection::has_request_at(std::uint32_t at) const {
    return numbers_.has(at) || (http2_ && http2_->has_request_at(at));
}

HttpConnection::Exchange* HttpConnection::find_asked_by_order() {
    if (exchanges_.empty())
        return nullptr;
    Exchange& front = *exchanges_.front();
    if (front.hole) {
        drop_front();
        return nullptr;
    }
    return front.response_done ? nullptr : &front;
}

HttpConnection::Exchange* HttpConnection::find_asked(const Moment& answer) {
    if (!answer.numbered)
        return find_asked_by_order();
    // What the server had when it answered, and what the client asked before it had the answer's
    // first byte.
    const auto open = [](const auto& exchange) { return !exchange->response_begun; };
    const auto first = std::find_if(exchanges_.begin(), exchanges_.end(), open);
    auto last = first;
    while (last != exchanges_.end() &&
           (!(*last)->asked.numbered || before((*last)->asked.at, answer.seen)))
        ++last;
    while (last != first && (*(last - 1))->asked.numbered && !(*(last - 1))->hole &&
           before(answer.at, (*(last - 1))->asked.seen))
        --last;
    if (first == last)
        return nullptr;
    Exchange& front = **first;
    Exchange& back = **(last - 1);
    if (last - first == 1 && front.hole)
        return nullptr;
    const auto give_up_before = [&](Exchange* kept) {
        while (exchanges_.front().get() != kept)
            emit_front();
    };
    // Whether the server had bytes behind the last of these requests that were not seen: one of them
    // may be what it answers.
    const bool more = numbered_[client_] && before(reached_[client_], answer.seen);
    const bool holes = std::any_of(first, last, [](const auto& one) { return one->hole; });
    if (!pipelined_) {
        // The client asks again only when it has its answer: this one is for the last request. Some answer
        // before was lost, or else that request would not be the only one.
        if (back.hole || (response_lost_ && more)) {
            while (std::find_if(exchanges_.begin(), exchanges_.end(), open) != exchanges_.end() &&
                   !exchanges_.empty() && before(exchanges_.front()->asked.at, answer.seen))
                emit_front();
            return nullptr;
        }
        give_up_before(&back);
        return &back;
    }
    doubtful_ |= holes;
    for (auto one = first; one != last; ++one)
        if (!(*one)->hole) {
            Exchange* found = one->get();
            give_up_before(found);
            found->transaction.guessed |= doubtful_;
            return found;
        }
    return nullptr;
}

Framing HttpConnection::on_response(Head& head, const Moment& begin, Time now) {
    interim_ = head.status / 100 == 1 && head.status != 101;
    Exchange* asked = find_asked(begin);
    response_lost_ = false;
    if (interim_) {
        if (asked)
            ++asked->transaction.interim;
        return Framing::none;
    }
    if (!asked) {
        // Asked before we looked, in bytes we lost, or in bytes that come later.
        const auto place = std::find_if(exchanges_.begin(), exchanges_.end(),
                                        [](const auto& one) { return !one->early; });
        if (static_cast<std::size_t>(place - exchanges_.begin()) >= early_limit) {
            // Its request may come yet, and take the next one's answer.
            doubtful_ = true;
            emit_front();
        }
        asked = &add(std::find_if(exchanges_.begin(), exchanges_.end(),
                                  [](const auto& one) { return !one->early; }));
        asked->early =
            begin.numbered && (!numbered_[client_] || before(reached_[client_], begin.seen));
        asked->request_done = true;
    }
    Exchange& exchange = *asked;
    // RFC 7540 3.2: the request becomes stream 1 of what follows.
    if (head.status == 101 && head.upgrade_h2c && exchange.transaction.request.seen) {
        ++exchange.transaction.interim;
        upgraded_ = std::move(exchange.transaction);
        const auto own = std::find_if(exchanges_.begin(), exchanges_.end(),
                                      [&](const auto& one) { return one.get() == asked; });
        exchanges_cost_ -= exchange.cost;
        if (asking_ == asked)
            asking_ = nullptr;
        exchanges_.erase(own);
        return Framing::tunnel;
    }
    answering_ = &exchange;
    Transaction& transaction = exchange.transaction;
    const Framing framing = response_framing(head, transaction.method);
    exchange.answered = begin;
    exchange.response_begun = true;
    transaction.status = head.status;
    transaction.reason = std::move(head.reason);
    Message& response = transaction.response;
    response.seen = true;
    response.version_minor = head.version_minor;
    response.first_byte = begin.time;
    response.last_byte = now;
    response.head_bytes = head.bytes;
    response.absurd = head.absurd;
    response.content_type = std::move(head.content_type);
    response.content_encoding = std::move(head.content_encoding);
    response.fields = std::move(head.fields);
    exchange.cost += responses_->held();
    exchanges_cost_ += responses_->held();
    if (framing == Framing::tunnel) {
        ++counters_->tunnels;
        exchange.request_done = true;
    }
    return framing;
}

void HttpConnection::on_body(MessageKind kind, std::string_view data) {
    Exchange* exchange = kind == MessageKind::response ? answering_ : asking_;
    if (options_->body_limit == 0 || !exchange || (kind == MessageKind::response && interim_))
        return;
    Message& message = kind == MessageKind::request ? exchange->transaction.request
                                                    : exchange->transaction.response;
    const std::size_t room =
        options_->body_limit - std::min<std::size_t>(options_->body_limit, message.body.size());
    const std::string_view part = data.substr(0, room);
    message.body.append(part);
    exchange->cost += part.size();
    exchanges_cost_ += part.size();
}

void HttpConnection::on_end(MessageKind kind, MessageEnd end, std::uint64_t wire,
                            std::uint64_t body, Time now) {
    if (end == MessageEnd::unframed)
        ++counters_->unframed;
    if (kind == MessageKind::response && interim_) {
        interim_ = false;
        return;
    }
    Exchange* const over =
        std::exchange(kind == MessageKind::request ? asking_ : answering_, nullptr);
    if (!over)
        return;
    Exchange& exchange = *over;
    Message& message =
        kind == MessageKind::request ? exchange.transaction.request : exchange.transaction.response;
    message.end = end;
    message.wire_bytes = wire;
    message.body_bytes = body;
    message.last_byte = std::max(now, message.first_byte);
    const bool tunnel =
        kind == MessageKind::response &&
        (exchange.transaction.status == 101 ||
         (exchange.transaction.method == "CONNECT" && exchange.transaction.status / 100 == 2));
    (kind == MessageKind::request ? exchange.request_done : exchange.response_done) = true;
    settle();
    if (tunnel)
        become_opaque();
}

void HttpConnection::settle() {
    while (!exchanges_.empty() && exchanges_.front()->request_done &&
           exchanges_.front()->response_done && !exchanges_.front()->early)
        emit_front();
}

void HttpConnection::drop_front() {
    exchanges_cost_ -= exchanges_.front()->cost;
    exchanges_.pop_front();
}

void HttpConnection::emit_front() {
    emit(exchanges_.begin());
}

/// Of a message that is not over: what there was of it.
void HttpConnection::fill_in_progress(Exchange& exchange) const {
    const auto fill = [](Message& message, const MessageParser& parser) {
        message.end = MessageEnd::cut;
        message.wire_bytes = parser.wire_bytes();
        message.body_bytes = parser.body_bytes();
    };
    if (&exchange == asking_)
        fill(exchange.transaction.request, *requests_);
    if (&exchange == answering_)
        fill(exchange.transaction.response, *responses_);
}

void HttpConnection::emit(const std::deque<std::unique_ptr<Exchange>>::iterator& which) {
    const std::unique_ptr<Exchange> exchange = std::move(*which);
    exchanges_.erase(which);
    exchanges_cost_ -= exchange->cost;
    fill_in_progress(*exchange);
    // What still comes of its messages has nowhere to go.
    if (asking_ == exchange.get())
        asking_ = nullptr;
    if (answering_ == exchange.get())
        answering_ = nullptr;
    if (exchange->hole)
        return;
    Transaction& transaction = exchange->transaction;
    count_told(*counters_, transaction);
    emit_(transaction);
}

void HttpConnection::on_malformed(MessageKind kind, Time) {
    if (kind == MessageKind::response)
        response_lost_ = true;
    // Bytes of the new protocol may overtake the answer that allows it.
    if (!tunnel_asked_)
        ++counters_->malformed;
}

void HttpConnection::on_lost(MessageKind kind, Time) {
    ++counters_->holes;
    if (kind == MessageKind::request) {
        if (exchanges_.empty() || !exchanges_.back()->hole) {
            Exchange& hole = add(exchanges_.end());
            hole.hole = true;
            if (numbered_[client_])
                hole.asked = Moment(0, reached_[client_], 0);
        }
        doubtful_ |= pipelined_;
        return;
    }
    response_lost_ = true;
    // Of several requests under way it cannot be known which were answered in the hole.
    if (unanswered() > 1 && pipelined_) {
        doubtful_ = true;
        while (!exchanges_.empty())
            emit_front();
    }
}

void HttpConnection::on_unframed(MessageKind kind) {
    response_lost_ |= kind == MessageKind::response;
}

bool HttpConnection::awaits_another() {
    return unanswered() > 0;
}

bool HttpConnection::is_due(MessageKind kind) {
    return kind == MessageKind::response && unanswered() > 0;
}

} // namespace netctl::trace
