// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/packet_tracer.hpp"

#include <algorithm>
#include <cstring>

namespace netctl::trace {

namespace {

/// A closed connection is remembered for its last retransmissions, a quiet one for as long as
/// servers commonly keep one.
constexpr Time lingering = 2 * second;
constexpr Time quiet_memory = 600 * second;

std::uint16_t be16(const std::uint8_t* at) {
    return static_cast<std::uint16_t>(at[0] << 8 | at[1]);
}
std::uint32_t be32(const std::uint8_t* at) {
    return static_cast<std::uint32_t>(be16(at)) << 16 | be16(at + 2);
}

bool is_tag(std::uint16_t type) {
    return type == 0x8100 || type == 0x88a8 || type == 0x9100;
}

} // namespace

std::size_t PacketTracer::Hash::operator()(const Key& key) const {
    std::uint64_t hash = 0xcbf29ce484222325;
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
    ++counters_->frames;
    std::size_t offset = 0;
    std::uint16_t type = 0;
    switch (start) {
    case FrameStart::ip: return ip(now, bytes, length);
    case FrameStart::ethernet: offset = 14; break;
    case FrameStart::linux_cooked: offset = 16; break;
    }
    if (bytes.size() < offset) {
        ++counters_->damaged;
        return;
    }
    type = be16(&bytes[offset - 2]);
    while (is_tag(type)) {
        if (bytes.size() < offset + 4) {
            ++counters_->damaged;
            return;
        }
        type = be16(&bytes[offset + 2]);
        offset += 4;
    }
    if (type != 0x0800 && type != 0x86dd) {
        ++counters_->other;
        return;
    }
    ip(now, bytes.subspan(offset), length - static_cast<std::uint32_t>(offset));
}

void PacketTracer::ip(Time now, std::span<const std::uint8_t> bytes, std::uint32_t length) {
    const auto damaged = [&] { ++counters_->damaged; };
    if (bytes.size() < 20)
        return damaged();
    Endpoint source, target;
    std::size_t header = 0;
    std::uint32_t total = 0; // 0: the kernel merged more than the field can say
    std::uint8_t protocol = 0;
    if (bytes[0] >> 4 == 4) {
        header = (bytes[0] & 15) * 4;
        if (header < 20 || bytes.size() < header)
            return damaged();
        total = be16(&bytes[2]);
        if ((be16(&bytes[6]) & 0x3fff) != 0) {
            ++counters_->fragments;
            return;
        }
        protocol = bytes[9];
        std::memcpy(source.address.bytes.data(), &bytes[12], 4);
        std::memcpy(target.address.bytes.data(), &bytes[16], 4);
    } else if (bytes[0] >> 4 == 6) {
        if (bytes.size() < 40)
            return damaged();
        const std::uint16_t payload = be16(&bytes[4]);
        total = payload ? 40u + payload : 0;
        source.address.family = target.address.family = Family::ipv6;
        std::memcpy(source.address.bytes.data(), &bytes[8], 16);
        std::memcpy(target.address.bytes.data(), &bytes[24], 16);
        protocol = bytes[6];
        header = 40;
        // Hop-by-hop, routing, destination options, authentication, mobility; RFC 8200.
        while (protocol == 0 || protocol == 43 || protocol == 60 || protocol == 51 ||
               protocol == 135 || protocol == 44) {
            if (bytes.size() < header + 8)
                return damaged();
            if (protocol == 44) {
                if ((be16(&bytes[header + 2]) & 0xfff9) != 0) {
                    ++counters_->fragments;
                    return;
                }
                protocol = bytes[header];
                header += 8;
                continue;
            }
            const std::size_t size =
                protocol == 51 ? (bytes[header + 1] + 2u) * 4 : (bytes[header + 1] + 1u) * 8;
            protocol = bytes[header];
            header += size;
        }
        if (bytes.size() < header)
            return damaged();
    } else {
        return damaged();
    }
    if (protocol != 6) {
        ++counters_->other;
        return;
    }
    // Ethernet pads short frames; the datagram ends where it says.
    if (total != 0)
        length = std::min(length, total);
    if (length < header)
        return damaged();
    bytes = bytes.subspan(0, std::min<std::size_t>(bytes.size(), length));
    if (bytes.size() < header + 20)
        return damaged();
    bytes = bytes.subspan(header);
    source.port = be16(&bytes[0]);
    target.port = be16(&bytes[2]);
    tcp(now, source, target, bytes, length - static_cast<std::uint32_t>(header));
}

PacketTracer::Flow& PacketTracer::flow_of(const Key& key, Time now) {
    std::unique_ptr<Flow>& slot = flows_[key];
    if (!slot) {
        slot = std::make_unique<Flow>();
        reset(*slot, key);
    }
    slot->last = slot->now = now;
    return *slot;
}

void PacketTracer::reset(Flow& flow, const Key& key) {
    flow.closed = false;
    flow.until = {};
    Flow* self = &flow;
    flow.http = std::make_unique<HttpConnection>(
        *options_, *parser_counters_, [this, self, key](Transaction& transaction) {
            const bool low = self->http->client() == HttpConnection::a;
            transaction.client = low ? key.low : key.high;
            transaction.server = low ? key.high : key.low;
            emit_(transaction);
        });
    for (const auto side : {HttpConnection::a, HttpConnection::b}) {
        flow.streams[side] = std::make_unique<TcpStream>(
            counters_->tcp,
            [self, side](std::string_view data) { self->http->data(side, data, self->now); },
            [self, side](std::uint64_t length) { self->http->gap(side, length, self->now); });
    }
}

void PacketTracer::tcp(Time now, const Endpoint& source, const Endpoint& target,
                       std::span<const std::uint8_t> bytes, std::uint32_t length) {
    const std::size_t header = (bytes[12] >> 4) * 4;
    if (header < 20 || bytes.size() < header || length < header) {
        ++counters_->damaged;
        return;
    }
    const std::uint8_t flags = bytes[13];
    TcpSegment segment;
    segment.sequence = be32(&bytes[4]);
    segment.acknowledged = be32(&bytes[8]);
    segment.fin = flags & 0x01;
    segment.syn = flags & 0x02;
    segment.rst = flags & 0x04;
    segment.ack = flags & 0x10;
    segment.length = length - static_cast<std::uint32_t>(header);
    segment.payload = {reinterpret_cast<const char*>(bytes.data()) + header, bytes.size() - header};

    const bool from_low = source < target;
    const Key key{from_low ? source : target, from_low ? target : source};
    const auto side = from_low ? HttpConnection::a : HttpConnection::b;
    const auto other = from_low ? HttpConnection::b : HttpConnection::a;
    if (now > swept_ + second)
        sweep(now);

    auto found = flows_.find(key);
    if (found == flows_.end() && segment.length == 0 && !segment.syn)
        return; // nothing to tell yet
    Flow& flow = flow_of(key, now);
    if (flow.closed) {
        if (!segment.syn || segment.ack)
            return;
        reset(flow, key);
    } else if (segment.syn && !segment.ack && flow.http->roles_known()) {
        // The ports are used again and we missed the end, unless it is a repeated SYN; that one
        // cannot come after the first request.
        flow.http->close(now);
        reset(flow, key);
    }
    if (const auto until = flow.until[side])
        segment.skipped =
            static_cast<std::int32_t>(*until - segment.sequence - segment.length) >= 0;
    if (segment.ack && !segment.syn)
        flow.streams[other]->acknowledged(segment.acknowledged);
    flow.streams[side]->segment(segment);
    if (segment.rst) {
        flow.streams[other]->flush();
        flow.http->close(now);
        flow.closed = true;
    } else if (flow.streams[side]->ended()) {
        flow.http->close(side, now);
        flow.closed = flow.streams[other]->ended();
    } else if (skip_) {
        skip_body(flow, side, source, target);
    }
}

void PacketTracer::skip_body(Flow& flow, HttpConnection::Side side, const Endpoint& sender,
                             const Endpoint& receiver) {
    constexpr std::uint64_t furthest = 1 << 30;
    const std::uint64_t rest = flow.http->skippable(side);
    if (rest < skip_from)
        return;
    const std::uint32_t next = flow.streams[side]->next();
    std::optional<std::uint32_t>& until = flow.until[side];
    // Of a longer body this is said anew on the way.
    if (until && static_cast<std::int32_t>(*until - next) >=
                     static_cast<std::int32_t>(std::min(rest, furthest / 2)))
        return;
    until = next + static_cast<std::uint32_t>(std::min(rest, furthest));
    const auto other = side == HttpConnection::a ? HttpConnection::b : HttpConnection::a;
    skip_(sender, receiver, *until,
          flow.http->skippable(other) > 0 ? flow.until[other] : std::nullopt);
}

void PacketTracer::sweep(Time now) {
    swept_ = now;
    const auto older = [&](const Flow& flow, Time age) { return flow.last + age < now; };
    std::erase_if(flows_, [&](const auto& entry) {
        Flow& flow = *entry.second;
        if (flow.closed)
            return older(flow, lingering);
        if (!older(flow, quiet_memory))
            return false;
        flow.http->abandon();
        return true;
    });
    if (flows_.size() <= connection_limit)
        return;
    // Down to three quarters, so that this is rare.
    std::vector<std::pair<Time, const Key*>> ages;
    ages.reserve(flows_.size());
    for (const auto& [key, flow] : flows_)
        ages.emplace_back(flow->last, &key);
    const std::size_t excess = flows_.size() - connection_limit / 4 * 3;
    std::nth_element(ages.begin(), ages.begin() + static_cast<std::ptrdiff_t>(excess), ages.end());
    for (std::size_t i = 0; i < excess; ++i) {
        const auto found = flows_.find(*ages[i].second);
        if (!found->second->closed) {
            ++counters_->evicted;
            found->second->http->abandon();
        }
        flows_.erase(found);
    }
}

void PacketTracer::finish(Time now) {
    for (auto& [key, flow] : flows_) {
        if (flow->closed)
            continue;
        flow->now = std::max(flow->now, now);
        flow->streams[0]->flush();
        flow->streams[1]->flush();
        flow->http->abandon();
    }
    flows_.clear();
}

} // namespace netctl::trace
