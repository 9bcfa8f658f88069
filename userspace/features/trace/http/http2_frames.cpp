// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/http/http2_frames.hpp"

#include <algorithm>
#include <cstring>

namespace netctl::trace {

namespace {

/// RFC 9113 4.2: unless the receiver allows for more.
constexpr std::uint32_t usual_frame_limit = 16384;

struct Shape {
    std::uint8_t flags;      ///< that are defined
    bool on_stream, on_none; ///< whether it may be of a stream, and of none
    std::uint32_t least, most;
};

/// RFC 9113 6.
constexpr std::array<Shape, 10> shapes = {{
    {0x09, true, false, 0, UINT32_MAX}, // DATA
    {0x2d, true, false, 1, UINT32_MAX}, // HEADERS
    {0x00, true, false, 5, 5},          // PRIORITY
    {0x00, true, false, 4, 4},          // RST_STREAM
    {0x01, false, true, 0, UINT32_MAX}, // SETTINGS
    {0x0c, true, false, 5, UINT32_MAX}, // PUSH_PROMISE
    {0x01, false, true, 8, 8},          // PING
    {0x00, false, true, 8, UINT32_MAX}, // GOAWAY
    {0x00, true, true, 4, 4},           // WINDOW_UPDATE
    {0x04, true, false, 0, UINT32_MAX}, // CONTINUATION
}};

/// What a receiver would not take for a connection error at once.
bool is_possible(const Frame& frame) {
    const auto type = static_cast<std::size_t>(frame.type);
    if (type >= shapes.size())
        return true; // RFC 9113 4.1: to be ignored
    const Shape& shape = shapes[type];
    return (frame.stream != 0 ? shape.on_stream : shape.on_none) && frame.length >= shape.least &&
           frame.length <= shape.most &&
           (frame.type != FrameType::settings || frame.length % 6 == 0);
}

/// What no sender has a reason not to keep to.
bool is_likely(const Frame& frame, std::uint8_t reserved_bit) {
    const auto type = static_cast<std::size_t>(frame.type);
    return type < shapes.size() && is_possible(frame) && (frame.flags & ~shapes[type].flags) == 0 &&
           frame.length <= usual_frame_limit && reserved_bit == 0;
}

} // namespace

std::optional<Frame> parse_frame_header(std::string_view text) {
    if (text.size() < Frame::header_size)
        return std::nullopt;
    const auto byte = [&](std::size_t at) {
        return static_cast<std::uint32_t>(static_cast<unsigned char>(text[at]));
    };
    Frame frame;
    frame.length = byte(0) << 16 | byte(1) << 8 | byte(2);
    frame.type = static_cast<FrameType>(byte(3));
    frame.flags = static_cast<std::uint8_t>(byte(4));
    frame.stream = (byte(5) & 0x7f) << 24 | byte(6) << 16 | byte(7) << 8 | byte(8);
    return frame;
}

bool looks_like_frames(std::string_view text) {
    bool any = false;
    while (const auto frame = parse_frame_header(text)) {
        if (!is_likely(*frame, static_cast<unsigned char>(text[5]) >> 7))
            return false;
        any = true;
        text.remove_prefix(std::min<std::size_t>(text.size(), Frame::header_size + frame->length));
    }
    return any;
}

void FrameReader::data(std::string_view data, const Moment& moment) {
    const char* const first = data.data();
    if (lost_) {
        if (!looks_like_frames(data))
            return sink_->on_frames_lost(side_, true, moment.time);
        lost_ = false;
        found_again_ = true;
    }
    while (!data.empty()) {
        if (!in_frame_) {
            if (header_have_ == 0) {
                begin_ = moment;
                begin_.at += static_cast<std::uint32_t>(data.data() - first);
            }
            const std::size_t take = std::min(Frame::header_size - header_have_, data.size());
            std::memcpy(&header_[header_have_], data.data(), take);
            header_have_ += take;
            data.remove_prefix(take);
            if (header_have_ < Frame::header_size)
                return;
            header_have_ = 0;
            frame_ = *parse_frame_header({header_.data(), header_.size()});
            if (!is_possible(frame_))
                return lose(true, moment.time);
            in_frame_ = true;
            left_ = frame_.length;
            sink_->on_frame(side_, frame_, begin_);
        } else {
            const std::size_t take = std::min<std::size_t>(left_, data.size());
            left_ -= static_cast<std::uint32_t>(take);
            sink_->on_payload(side_, frame_, data.substr(0, take));
            data.remove_prefix(take);
        }
        if (left_ == 0)
            end_frame(moment.time);
    }
}

void FrameReader::end_frame(Time now) {
    in_frame_ = false;
    sink_->on_frame_end(side_, frame_, now);
    found_again_ = false;
}

void FrameReader::lose(bool malformed, Time now) {
    lost_ = true;
    in_frame_ = false;
    left_ = 0;
    header_have_ = 0;
    sink_->on_frames_lost(side_, malformed && !found_again_, now);
    found_again_ = false;
}

void FrameReader::gap(std::uint64_t length, Time now) {
    if (in_frame_) {
        const std::uint64_t take = std::min<std::uint64_t>(left_, length);
        left_ -= static_cast<std::uint32_t>(take);
        length -= take;
        sink_->on_missing(side_, frame_, take);
        if (left_ == 0)
            end_frame(now);
    }
    if (length > 0)
        lose(false, now);
}

} // namespace netctl::trace
