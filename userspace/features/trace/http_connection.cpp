// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/http_connection.hpp"

#include <algorithm>

namespace netctl::trace {

std::string Endpoint::to_string() const {
    const std::string text = address.to_string();
    const std::string number = std::to_string(port);
    return address.family == Family::ipv6 ? "[" + text + "]:" + number : text + ":" + number;
}

bool HttpConnection::decide_roles(Side side, std::string_view& data) {
    std::string& held = held_[side];
    if (!held.empty()) {
        held.append(data);
        data = held;
    }
    switch (guess_start(data)) {
    case StartGuess::no: held.clear(); return false;
    case StartGuess::maybe:
        if (held.empty())
            held.assign(data);
        return false;
    case StartGuess::http2:
        ++counters_->http2;
        become_opaque();
        return false;
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

void HttpConnection::data(Side side, std::string_view data, Time now) {
    if (opaque_ || data.empty())
        return;
    if (!roles_known_) {
        if (!decide_roles(side, data))
            return;
        parser_of(side).data(data, now);
        held_[side].clear();
        // What the other side said so far was no beginning of anything, or too short to tell.
        const Side other = side == a ? b : a;
        if (!held_[other].empty() && !opaque_)
            parser_of(other).data(held_[other], now);
        held_[other].clear();
        return;
    }
    MessageParser& parser = parser_of(side);
    if (side == client_) {
        if (parser.idle() && data[0] == 'P' && guess_start(data) == StartGuess::http2) {
            ++counters_->http2;
            become_opaque();
            return;
        }
        // A client that waited for "100 Continue" and was refused sends its next request instead.
        if (!exchanges_.empty() && exchanges_.back()->expects && exchanges_.back()->response_done &&
            parser.body_untouched() && guess_start(data) == StartGuess::request)
            parser.abandon_body(now);
    }
    parser.data(data, now);
}

void HttpConnection::gap(Side side, std::uint64_t length, Time now) {
    if (opaque_ || length == 0)
        return;
    if (!roles_known_) {
        held_[side].clear();
        return;
    }
    parser_of(side).gap(length, now);
}

void HttpConnection::close(Side side, Time now) {
    if (!roles_known_ || opaque_)
        return;
    parser_of(side).close(now);
    if (side == client_ || opaque_)
        return;
    // The server will not answer what is left.
    while (!exchanges_.empty()) {
        Exchange& exchange = *exchanges_.front();
        if (exchange.hole) {
            exchanges_.pop_front();
            continue;
        }
        exchange.transaction.closed |= !exchange.response_done;
        emit_front();
    }
}

void HttpConnection::close(Time now) {
    if (!roles_known_)
        return;
    const Side server = client_ == a ? b : a;
    close(client_, now);
    close(server, now);
}

std::uint64_t HttpConnection::skippable(Side side) const {
    if (!roles_known_ || opaque_)
        return 0;
    const bool asked = side == client_;
    const std::uint64_t rest = (asked ? *requests_ : *responses_).skippable();
    if (rest == 0 || options_->body_limit == 0)
        return rest;
    if (exchanges_.empty())
        return 0;
    const std::string& body = asked ? exchanges_.back()->transaction.request.body
                                    : exchanges_.front()->transaction.response.body;
    return body.size() >= options_->body_limit ? rest : 0;
}

void HttpConnection::abandon() {
    counters_->unfinished += static_cast<std::uint64_t>(
        std::count_if(exchanges_.begin(), exchanges_.end(),
                      [](const auto& exchange) { return !exchange->hole; }));
    exchanges_.clear();
    opaque_ = true;
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

Framing HttpConnection::on_head(Head& head, Time begin, Time now) {
    return head.kind == MessageKind::request ? on_request(head, begin, now)
                                             : on_response(head, begin, now);
}

Framing HttpConnection::on_request(Head& head, Time begin, Time now) {
    // A client that does not pipeline has got its answer when it asks again; so whatever was lost
    // of that answer is over.
    if (!exchanges_.empty() && !pipelined_) {
        if (responses_->unframed()) {
            responses_->end_unframed(now);
        } else if (response_lost_) {
            while (!exchanges_.empty())
                emit_front();
        } else if (exchanges_.front()->hole) {
            exchanges_.pop_front();
        }
    }
    pipelined_ |= std::any_of(exchanges_.begin(), exchanges_.end(), [](const auto& exchange) {
        return !exchange->hole && !exchange->response_done;
    });
    Exchange& exchange = *exchanges_.emplace_back(std::make_unique<Exchange>());
    Transaction& transaction = exchange.transaction;
    const Framing framing = request_framing(head);
    request_open_ = true;
    tunnel_asked_ = head.method == "CONNECT" || head.upgrade;
    exchange.expects = head.expect_continue;
    transaction.method = std::move(head.method);
    transaction.target = std::move(head.target);
    transaction.host = std::move(head.host);
    Message& request = transaction.request;
    request.seen = true;
    request.version_minor = head.version_minor;
    request.first_byte = begin;
    request.last_byte = now;
    request.head_bytes = head.bytes;
    request.absurd = head.absurd;
    request.content_type = std::move(head.content_type);
    request.fields = std::move(head.fields);
    return framing;
}

Framing HttpConnection::on_response(Head& head, Time begin, Time now) {
    interim_ = head.status / 100 == 1 && head.status != 101;
    response_lost_ = false;
    if (exchanges_.empty() || exchanges_.front()->hole || exchanges_.front()->response_done) {
        if (interim_)
            return Framing::none;
        if (!exchanges_.empty() && exchanges_.front()->hole)
            exchanges_.pop_front();
        // Asked before we looked, or in bytes we lost.
        Exchange& unasked = *exchanges_.emplace_front(std::make_unique<Exchange>());
        unasked.request_done = true;
    }
    Exchange& exchange = *exchanges_.front();
    if (interim_) {
        ++exchange.transaction.interim;
        return Framing::none;
    }
    Transaction& transaction = exchange.transaction;
    const Framing framing = response_framing(head, transaction.method);
    exchange.response_begun = true;
    transaction.status = head.status;
    transaction.reason = std::move(head.reason);
    Message& response = transaction.response;
    response.seen = true;
    response.version_minor = head.version_minor;
    response.first_byte = begin;
    response.last_byte = now;
    response.head_bytes = head.bytes;
    response.absurd = head.absurd;
    response.content_type = std::move(head.content_type);
    response.fields = std::move(head.fields);
    if (framing == Framing::tunnel) {
        ++counters_->tunnels;
        exchange.request_done = true;
    }
    return framing;
}

void HttpConnection::on_body(MessageKind kind, std::string_view data) {
    if (options_->body_limit == 0 || exchanges_.empty() ||
        (kind == MessageKind::response ? interim_ : !request_open_))
        return;
    Message& message = kind == MessageKind::request ? exchanges_.back()->transaction.request
                                                    : exchanges_.front()->transaction.response;
    const std::size_t room =
        options_->body_limit - std::min<std::size_t>(options_->body_limit, message.body.size());
    message.body.append(data.substr(0, room));
}

void HttpConnection::on_end(MessageKind kind, MessageEnd end, std::uint64_t wire,
                            std::uint64_t body, Time now) {
    if (end == MessageEnd::unframed)
        ++counters_->unframed;
    if (kind == MessageKind::response && interim_) {
        interim_ = false;
        return;
    }
    if (exchanges_.empty() || (kind == MessageKind::request && !request_open_))
        return;
    if (kind == MessageKind::request)
        request_open_ = false;
    // Requests arrive at the back, responses are for the front.
    Exchange& exchange = *(kind == MessageKind::request ? exchanges_.back() : exchanges_.front());
    Message& message =
        kind == MessageKind::request ? exchange.transaction.request : exchange.transaction.response;
    message.end = end;
    message.wire_bytes = wire;
    message.body_bytes = body;
    message.last_byte = now;
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
           exchanges_.front()->response_done)
        emit_front();
}

void HttpConnection::emit_front() {
    const std::unique_ptr<Exchange> exchange = std::move(exchanges_.front());
    exchanges_.pop_front();
    if (exchange->hole)
        return;
    if (!exchange->request_done)
        request_open_ = false; // what still comes of its body has nowhere to go
    Transaction& transaction = exchange->transaction;
    if (!transaction.request.seen)
        ++counters_->unasked;
    if (!transaction.response.seen)
        ++counters_->unanswered;
    ++counters_->transactions;
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
        if (exchanges_.empty() || !exchanges_.back()->hole)
            exchanges_.emplace_back(std::make_unique<Exchange>())->hole = true;
        return;
    }
    response_lost_ = true;
    // Of several requests under way it cannot be known which were answered in the hole.
    if (exchanges_.size() > 1 && pipelined_) {
        while (!exchanges_.empty())
            emit_front();
    }
}

bool HttpConnection::awaits_another() {
    return exchanges_.size() > 1;
}

} // namespace netctl::trace
