// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/http/tcp_stream.hpp"

#include <algorithm>

namespace netctl::trace {

namespace {

/// The largest window there is (1 GiB, RFC 7323); what is further off is of another connection, or
/// forged.
constexpr std::int32_t window_limit = 1 << 30;
/// How far ahead of what is known a sender may be of whose bytes some were not captured: more than
/// windows are in practice, and the more that is missing the less is it worth to go on.
constexpr std::int32_t likely_limit = 64 << 20;

} // namespace

bool TcpStream::is_stray(const TcpSegment& segment, std::int32_t ahead) {
    if (ahead <= likely_limit && ahead >= -window_limit)
        return false;
    // The receiver acknowledges such numbers: then it is we who are lost.
    if (far_acknowledged_ && !before(*far_acknowledged_, segment.sequence) &&
        *far_acknowledged_ - segment.sequence <= segment.length + 1) {
        flush(segment.time);
        gap_(1, segment.time);
        ++counters_->missing_bytes;
        next_ = furthest_ = segment.sequence;
        far_acknowledged_.reset();
        return false;
    }
    ++counters_->strays;
    return true;
}

void TcpStream::segment(const TcpSegment& segment) {
    if (segment.syn) {
        // A repeated SYN changes nothing; another one means that the ports are used again.
        if (synced_ && segment.sequence + 1 == next_ && position_ == 0)
            return;
        held_.clear();
        share_.set(0);
        synced_ = true;
        ended_ = false;
        position_ = 0;
        acknowledged_.reset();
        far_acknowledged_.reset();
        next_ = furthest_ = segment.sequence + 1;
        if (segment.length > 0) { // TCP Fast Open
            TcpSegment data = segment;
            data.sequence = next_;
            deliver(data);
        }
        return;
    }
    if (segment.length == 0 && !segment.fin)
        return;
    if (!synced_) {
        synced_ = true;
        next_ = furthest_ = segment.sequence;
    }
    if (is_stray(segment, distance(segment.sequence)))
        return;
    const std::int32_t ahead = distance(segment.sequence);
    if (before(furthest_, segment.sequence + segment.length))
        furthest_ = segment.sequence + segment.length;
    if (ahead > 0)
        return hold(segment, static_cast<std::uint32_t>(ahead));
    const auto behind = static_cast<std::uint32_t>(-ahead);
    TcpSegment rest = segment;
    if (behind > 0) {
        if (behind >= segment.length) {
            if (segment.length > 0)
                ++counters_->retransmitted;
            if (!(segment.fin && behind == segment.length))
                return;
        } else {
            ++counters_->overlapping;
        }
        rest.length -= behind;
        rest.payload.remove_prefix(std::min<std::size_t>(behind, rest.payload.size()));
        if (rest.urgent)
            rest.urgent =
                *rest.urgent >= behind ? std::optional(*rest.urgent - behind) : std::nullopt;
    }
    deliver(rest);
    drain();
}

void TcpStream::hold(const TcpSegment& segment, std::uint32_t ahead) {
    ++counters_->reordered;
    const std::string_view payload = segment.payload.substr(0, segment.length);
    const auto [at, fresh] = held_.try_emplace(position_ + ahead);
    Held& held = at->second;
    // Of two that begin together the longer one is kept; drain() cuts what overlaps.
    if (held.length < segment.length || (held.length == 0 && segment.fin)) {
        share_.set(share_.bytes() + payload.size() + (fresh ? held_cost : 0) - held.payload.size());
        held.time = segment.time;
        held.seen = segment.acknowledged;
        held.numbered = segment.ack;
        held.length = segment.length;
        held.payload = payload;
        held.skipped = segment.skipped;
        held.urgent = segment.urgent;
    }
    held.fin |= segment.fin;
    while (!held_.empty() &&
           (share_.bytes() > held_limit || held_.size() > 4096 || share_.exceeded())) {
        ++counters_->given_up;
        skip_to_first_held(segment.time);
        drain();
    }
}

void TcpStream::deliver(TcpSegment segment) {
    std::string_view payload = segment.payload.substr(0, segment.length);
    last_ = std::max(last_, segment.time);
    Moment moment(last_);
    if (segment.ack)
        moment = Moment(last_, next_, segment.acknowledged);
    next_ += segment.length;
    position_ += segment.length;
    if (before(furthest_, next_))
        furthest_ = next_;
    if (segment.urgent && *segment.urgent < payload.size()) {
        if (*segment.urgent > 0)
            data_(payload.substr(0, *segment.urgent), moment);
        moment.at += *segment.urgent + 1;
        segment.length -= *segment.urgent + 1;
        payload.remove_prefix(*segment.urgent + 1);
    }
    if (!payload.empty())
        data_(payload, moment);
    if (payload.size() < segment.length) {
        if (!segment.skipped)
            counters_->missing_bytes += segment.length - payload.size();
        gap_(segment.length - payload.size(), last_);
    }
    if (segment.fin && !ended_) {
        ended_ = true;
        held_.clear();
        share_.set(0);
    }
}

void TcpStream::drain() {
    while (!held_.empty() && held_.begin()->first <= position_) {
        auto node = held_.extract(held_.begin());
        Held& held = node.mapped();
        share_.set(share_.bytes() - held.payload.size() - held_cost);
        const std::uint64_t behind = position_ - node.key();
        if (behind > held.length || (behind == held.length && !held.fin)) {
            ++counters_->retransmitted;
            continue;
        }
        if (behind > 0)
            ++counters_->overlapping;
        TcpSegment segment;
        segment.time = held.time;
        segment.acknowledged = held.seen;
        segment.ack = held.numbered;
        segment.fin = held.fin;
        segment.skipped = held.skipped;
        segment.length = held.length - static_cast<std::uint32_t>(behind);
        segment.payload = held.payload;
        segment.payload.remove_prefix(std::min<std::size_t>(behind, segment.payload.size()));
        if (held.urgent && *held.urgent >= behind)
            segment.urgent = *held.urgent - static_cast<std::uint32_t>(behind);
        deliver(segment);
    }
}

void TcpStream::skip_to_first_held(Time now) {
    const std::uint64_t missing = held_.begin()->first - position_;
    counters_->missing_bytes += missing;
    position_ += missing;
    next_ += static_cast<std::uint32_t>(missing);
    last_ = std::max(last_, std::min(now, held_.begin()->second.time));
    gap_(missing, last_);
}

void TcpStream::acknowledged(std::uint32_t sequence, Time now) {
    if (synced_ && !ended_ &&
        (distance(sequence) > likely_limit || distance(sequence) < -window_limit)) {
        far_acknowledged_ = sequence;
        return;
    }
    if (!acknowledged_ || before(*acknowledged_, sequence))
        acknowledged_ = sequence;
    if (!synced_ || ended_)
        return;
    const std::int32_t ahead = distance(sequence);
    if (ahead <= 0)
        return;
    const std::uint64_t acknowledged = position_ + static_cast<std::uint32_t>(ahead);
    while (!held_.empty() && held_.begin()->first < acknowledged) {
        skip_to_first_held(now);
        drain();
    }
}

bool TcpStream::resets(std::uint32_t sequence) const {
    if (!synced_ && !acknowledged_)
        return true;
    return (synced_ &&
            (sequence == next_ || sequence == furthest_ || (ended_ && sequence == next_ + 1))) ||
           (acknowledged_ && sequence == *acknowledged_);
}

void TcpStream::flush(Time now) {
    while (!held_.empty()) {
        skip_to_first_held(now);
        drain();
    }
}

} // namespace netctl::trace
