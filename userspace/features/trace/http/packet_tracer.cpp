// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/http/packet_tracer.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

namespace netctl::trace {

namespace {

/// A closed connection is remembered for its last retransmissions, a quiet one for as long as
/// servers commonly keep one.
constexpr Time lingering = 2 * second;
constexpr Time quiet_memory = 600 * second;

/// Which of the two is the client is known by the time that something is told.
PacketTracer::Make make_http(const ParserOptions& options, ParserCounters& counters,
                             HttpConnection::Emit emit) {
    return [&options, &counters,
            emit = std::move(emit)](const Endpoint& low, const Endpoint& high,
                                    MemoryBudget& budget) -> std::unique_ptr<Conversation> {
        auto self = std::make_shared<const HttpConnection*>();
        auto http = std::make_unique<HttpConnection>(
            options, counters, budget, [emit, self, low, high](Transaction& transaction) {
                const bool first = (*self)->client() == Conversation::a;
                transaction.client = first ? low : high;
                transaction.server = first ? high : low;
                emit(transaction);
            });
        *self = http.get();
        return http;
    };
}

} // namespace

PacketTracer::PacketTracer(const ParserOptions& options, ParserCounters& parser_counters,
                           PacketCounters& counters, HttpConnection::Emit emit, Skip skip,
                           PacketOptions packet_options)
    : packet_options_(packet_options),
      counters_(&counters),
      make_(make_http(options, parser_counters, std::move(emit))),
      skip_(std::move(skip)) {}

std::size_t PacketTracer::Hash::operator()(const Key& key) const {
    std::uint64_t hash = 0xcbf29ce484222325 ^ key.path;
    const auto mix = [&](std::uint64_t value) {
        hash ^= value;
        hash *= 0x9e3779b97f4a7c15;
        hash ^= hash >> 29;
    };
    for (const Endpoint* end : {&key.low, &key.high}) {
        std::uint64_t words[2];
        std::memcpy(words, end->address.bytes.data(), sizeof words);
        mix(words[0]);
        mix(words[1] ^ end->port);
    }
    return hash;
}

void PacketTracer::frame(Time now, FrameStart start, std::span<const std::uint8_t> bytes,
                         std::uint32_t length) {
    frame(now, start, bytes, length, true);
}

void PacketTracer::frame(Time now, FrameStart start, std::span<const std::uint8_t> bytes,
                         std::uint32_t length, bool verify) {
    ++counters_->frames;
    TcpPlace place;
    LayerOptions layers = packet_options_.layers;
    layers.checksums &= verify;
    if (find_tcp(start, bytes, length, layers, counters_->layers, place))
        tcp(now, place);
    else if (place.datagram && on_datagram_)
        on_datagram_(now, place);
}

PacketTracer::Flow& PacketTracer::flow_of(const Key& key, Time now) {
    std::unique_ptr<Flow>& slot = flows_[key];
    if (!slot) {
        slot = std::make_unique<Flow>(budget_);
        slot->share.set(flow_cost);
        reset(*slot, key);
    }
    slot->last = now;
    return *slot;
}

void PacketTracer::reset(Flow& flow, const Key& key) {
    flow.closed = flow.spoke = flow.began = false;
    flow.until = {};
    flow.right_checksums = {};
    flow.unfilled = {};
    Flow* self = &flow;
    flow.talk = make_(key.low, key.high, budget_);
    for (const auto side : {Conversation::a, Conversation::b}) {
        flow.streams[side] = std::make_unique<TcpStream>(
            counters_->tcp, budget_,
            [self, side](std::string_view data, const Moment& moment) {
                self->talk->data(side, data, moment);
            },
            [self, side](std::uint64_t length, Time now) { self->talk->gap(side, length, now); });
    }
}

/// A receiver drops what has a wrong checksum.
bool PacketTracer::is_forged(Flow& flow, Conversation::Side side, const TcpPlace& place) const {
    constexpr std::uint8_t enough = 2;
    if (!place.checksum_wrong) {
        if (flow.right_checksums[side] < enough)
            ++flow.right_checksums[side];
        return false;
    }
    if (!packet_options_.checksums_may_be_unfilled)
        return true;
    flow.unfilled[side] |= flow.right_checksums[side] < enough;
    return !flow.unfilled[side];
}

void PacketTracer::tcp(Time now, const TcpPlace& place) {
    const std::span<const std::uint8_t> bytes = place.bytes;
    const std::size_t header = (bytes[12] >> 4) * 4u;
    if (header < 20 || bytes.size() < header || place.length < header) {
        ++counters_->layers.damaged;
        return;
    }
    const std::uint8_t flags = bytes[13];
    TcpSegment segment;
    segment.time = now;
    segment.sequence = be32(&bytes[4]);
    segment.acknowledged = be32(&bytes[8]);
    segment.fin = flags & 0x01;
    segment.syn = flags & 0x02;
    segment.rst = flags & 0x04;
    segment.ack = flags & 0x10;
    segment.length = place.length - static_cast<std::uint32_t>(header);
    segment.payload = {reinterpret_cast<const char*>(bytes.data()) + header, bytes.size() - header};
    if ((flags & 0x20) != 0) // RFC 6093: the pointer is to the byte behind, in what Linux does
        segment.urgent = be16(&bytes[18]) - 1u;

    const bool from_low = place.source < place.target;
    const Key key{from_low ? place.source : place.target, from_low ? place.target : place.source,
                  place.path};
    const auto side = from_low ? Conversation::a : Conversation::b;
    const auto other = from_low ? Conversation::b : Conversation::a;
    tick(now);

    auto found = flows_.find(key);
    if (found == flows_.end() && ((segment.length == 0 && !segment.syn) || segment.rst))
        return; // nothing to tell yet
    Flow& flow = flow_of(key, now);
    if (found == flows_.end() && !segment.syn)
        flow.talk->join_midway();
    TcpStream& sent = *flow.streams[side];
    TcpStream& received = *flow.streams[other];
    if (is_forged(flow, side, place)) {
        ++counters_->tcp.strays;
        return;
    }
    if (flow.closed) {
        if (!segment.syn || segment.ack)
            return;
        leave(flow, now);
        reset(flow, key);
        return tcp(now, place);
    }
    if (segment.rst) {
        if (!sent.resets(segment.sequence)) {
            ++counters_->tcp.strays;
            return;
        }
        sent.flush(now);
        sent.reset();
        received.flush(now);
        flow.talk->close(now);
        flow.closed = true;
        return;
    }
    if (segment.syn && !segment.ack && flow.talk->roles_known()) {
        // The ports are used again and we missed the end, unless it is a repeated SYN; that one
        // cannot come after the first request.
        flow.talk->close(now);
        leave(flow, now);
        reset(flow, key);
        return tcp(now, place);
    }
    if (segment.length > 0 && !flow.spoke) {
        flow.spoke = true;
        flow.first_byte =
            segment.payload.empty() ? 0 : static_cast<std::uint8_t>(segment.payload[0]);
    }
    if (const auto until = flow.until[side])
        segment.skipped =
            static_cast<std::int32_t>(*until - segment.sequence - segment.length) >= 0;
    flow.began |= segment.syn;
    if (segment.ack && flow.began)
        received.start_at(segment.acknowledged);
    if (segment.ack && !segment.syn) {
        received.acknowledged(segment.acknowledged, now);
        // What was held may have been the last of it.
        if (received.ended())
            flow.talk->close(other, now);
    }
    sent.segment(segment);
    if (sent.ended()) {
        flow.talk->close(side, now);
        flow.closed = received.ended();
    } else if (skip_) {
        skip_body(flow, side, place.source, place.target);
    }
    if (budget_.exceeded())
        relieve(now);
}

void PacketTracer::skip_body(Flow& flow, Conversation::Side side, const Endpoint& sender,
                             const Endpoint& receiver) {
    constexpr std::uint64_t furthest = 1 << 30;
    const std::uint64_t rest = flow.talk->skippable(side);
    if (rest < skip_from)
        return;
    const std::uint32_t next = flow.streams[side]->next();
    std::optional<std::uint32_t>& until = flow.until[side];
    // Of a longer body this is said anew on the way.
    if (until && static_cast<std::int32_t>(*until - next) >=
                     static_cast<std::int32_t>(std::min(rest, furthest / 2)))
        return;
    until = next + static_cast<std::uint32_t>(std::min(rest, furthest));
    const auto other = side == Conversation::a ? Conversation::b : Conversation::a;
    skip_(sender, receiver, *until,
          flow.talk->skippable(other) > 0 ? flow.until[other] : std::nullopt);
}

void PacketTracer::leave(Flow& flow, Time now) {
    const bool known = flow.talk->roles_known() || flow.talk->opaque();
    flow.talk->abandon(now);
    if (known || !flow.spoke)
        return;
    if (flow.first_byte == 0x16) // a handshake record, RFC 8446 5.1
        ++counters_->tls;
    else
        ++counters_->not_http;
}

void PacketTracer::tick(Time now) {
    if (now > swept_ + second)
        sweep(now);
}

void PacketTracer::sweep(Time now) {
    swept_ = now;
    const auto older = [&](const Flow& flow, Time age) { return flow.last + age < now; };
    std::erase_if(flows_, [&](const auto& entry) {
        Flow& flow = *entry.second;
        if (!flow.closed)
            flow.talk->tick(now, packet_options_.stalled);
        if (!older(flow, flow.closed ? lingering : quiet_memory))
            return false;
        leave(flow, now);
        return true;
    });
    // Down to three quarters, so that this is rare.
    if (flows_.size() > connection_limit)
        evict(flows_.size() - connection_limit / 4 * 3, now);
}

/// What is held of quiet connections goes first: whoever fills the memory shall not keep it.
void PacketTracer::relieve(Time now) {
    constexpr Time often = second / 10;
    if (now < relieved_ + often)
        return;
    relieved_ = now;
    for (auto& [key, flow] : flows_) {
        if (flow->last + second >= now)
            continue;
        for (const auto& stream : flow->streams) {
            if (stream->holds())
                ++counters_->tcp.given_up;
            stream->flush(now);
        }
    }
    if (budget_.exceeded())
        evict(flows_.size() / 8, now);
}

/// Those that were quiet for longest.
void PacketTracer::evict(std::size_t count, Time now) {
    if (count == 0)
        return;
    std::vector<std::pair<Time, const Key*>> ages;
    ages.reserve(flows_.size());
    for (const auto& [key, flow] : flows_)
        ages.emplace_back(flow->last, &key);
    std::nth_element(ages.begin(), ages.begin() + static_cast<std::ptrdiff_t>(count), ages.end());
    for (std::size_t i = 0; i < count; ++i) {
        const auto found = flows_.find(*ages[i].second);
        if (!found->second->closed)
            ++counters_->evicted;
        leave(*found->second, now);
        flows_.erase(found);
    }
}

void PacketTracer::finish(Time now) {
    for (auto& [key, flow] : flows_) {
        if (!flow->closed) {
            for (const auto side : {Conversation::a, Conversation::b}) {
                const bool ended = flow->streams[side]->ended();
                flow->streams[side]->flush(now);
                if (!ended && flow->streams[side]->ended())
                    flow->talk->close(side, now);
            }
        }
        leave(*flow, now);
    }
    flows_.clear();
}

} // namespace netctl::trace
