// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/tcp_stream.hpp"

#include <algorithm>

namespace netctl::trace {

namespace {

/// A jump beyond any window (1 GiB, RFC 7323) is another connection, or rubbish.
constexpr std::int32_t window_limit = 1 << 30;

} // namespace

void TcpStream::segment(const TcpSegment& segment) {
    if (segment.rst) {
        flush();
        ended_ = true;
        return;
    }
    if (segment.syn) {
        // A repeated SYN changes nothing; another one means that the ports are used again.
        if (synced_ && segment.sequence + 1 == next_ && position_ == 0)
            return;
        held_.clear();
        held_bytes_ = 0;
        synced_ = true;
        ended_ = false;
        position_ = 0;
        next_ = segment.sequence + 1;
        if (segment.length > 0) // TCP Fast Open
            deliver(segment.length, segment.payload, segment.fin, segment.skipped);
        return;
    }
    if (segment.length == 0 && !segment.fin)
        return;
    if (!synced_) {
        synced_ = true;
        next_ = segment.sequence;
    }
    std::int32_t ahead = distance(segment.sequence);
    if (ahead > window_limit || ahead < -window_limit) {
        flush();
        gap_(1);
        ++counters_->missing_bytes;
        next_ = segment.sequence;
        ahead = 0;
    }
    std::uint32_t length = segment.length;
    std::string_view payload = segment.payload.substr(0, length);
    if (ahead > 0) {
        ++counters_->reordered;
        const std::uint64_t at = position_ + static_cast<std::uint32_t>(ahead);
        Held& held = held_[at];
        // Of two that begin together the longer one is kept; drain() cuts what overlaps.
        if (held.length < length || (held.length == 0 && segment.fin)) {
            held_bytes_ += payload.size();
            held_bytes_ -= held.payload.size();
            held.length = length;
            held.payload = payload;
            held.skipped = segment.skipped;
        }
        held.fin |= segment.fin;
        while (held_bytes_ > held_limit || held_.size() > 4096) {
            skip_to_first_held();
            drain();
        }
        return;
    }
    const auto behind = static_cast<std::uint32_t>(-ahead);
    if (behind > 0) {
        if (behind >= length) {
            if (length > 0)
                ++counters_->retransmitted;
            if (!(segment.fin && behind == length))
                return;
        } else {
            ++counters_->overlapping;
        }
        length -= behind;
        payload.remove_prefix(std::min<std::size_t>(behind, payload.size()));
    }
    deliver(length, payload, segment.fin, segment.skipped);
    drain();
}

void TcpStream::deliver(std::uint32_t length, std::string_view payload, bool fin, bool skipped) {
    next_ += length;
    position_ += length;
    if (!payload.empty())
        data_(payload);
    if (payload.size() < length) {
        if (!skipped)
            counters_->missing_bytes += length - payload.size();
        gap_(length - payload.size());
    }
    if (fin && !ended_) {
        ended_ = true;
        held_.clear();
        held_bytes_ = 0;
    }
}

void TcpStream::drain() {
    while (!held_.empty() && held_.begin()->first <= position_) {
        auto node = held_.extract(held_.begin());
        Held& held = node.mapped();
        held_bytes_ -= held.payload.size();
        const std::uint64_t behind = position_ - node.key();
        if (behind > held.length || (behind == held.length && !held.fin)) {
            ++counters_->retransmitted;
            continue;
        }
        if (behind > 0)
            ++counters_->overlapping;
        std::string_view payload = held.payload;
        payload.remove_prefix(std::min<std::size_t>(behind, payload.size()));
        deliver(held.length - static_cast<std::uint32_t>(behind), payload, held.fin, held.skipped);
    }
}

void TcpStream::skip_to_first_held() {
    const std::uint64_t missing = held_.begin()->first - position_;
    counters_->missing_bytes += missing;
    position_ += missing;
    next_ += static_cast<std::uint32_t>(missing);
    gap_(missing);
}

void TcpStream::acknowledged(std::uint32_t sequence) {
    if (!synced_ || ended_)
        return;
    const std::int32_t ahead = distance(sequence);
    if (ahead <= 0 || ahead > window_limit)
        return;
    const std::uint64_t acknowledged = position_ + static_cast<std::uint32_t>(ahead);
    while (!held_.empty() && held_.begin()->first < acknowledged) {
        skip_to_first_held();
        drain();
    }
}

void TcpStream::flush() {
    while (!held_.empty()) {
        skip_to_first_held();
        drain();
    }
}

} // namespace netctl::trace
