// SPDX-License-Identifier: GPL-2.0-only
//
// HTTP/2's frames (RFC 9113 4) out of one direction of a connection, cut anywhere, with holes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "features/trace/http/http_parser.hpp"

namespace netctl::trace {

enum class FrameType : std::uint8_t {
    data = 0,
    headers = 1,
    priority = 2,
    rst_stream = 3,
    settings = 4,
    push_promise = 5,
    ping = 6,
    goaway = 7,
    window_update = 8,
    continuation = 9,
};

struct Frame {
    static constexpr std::size_t header_size = 9;
    static constexpr std::uint8_t end_stream = 0x1;
    static constexpr std::uint8_t end_headers = 0x4;
    static constexpr std::uint8_t padded = 0x8;
    static constexpr std::uint8_t priority = 0x20;

    std::uint32_t length = 0; ///< of the payload
    FrameType type = FrameType::data;
    std::uint8_t flags = 0;
    std::uint32_t stream = 0;

    bool has(std::uint8_t flag) const { return (flags & flag) != 0; }
};

/// The frame whose header `text` begins with; empty if it is shorter than one.
std::optional<Frame> parse_frame_header(std::string_view text);

/// Whether `text` is frames from its first byte to its last, of which the last may be cut: each of a known type
/// with the flags, the stream and the length that this type may have, and not larger than frames are unless
/// the sides agree on more.
bool looks_like_frames(std::string_view text);

class FrameSink {
  public:
    virtual ~FrameSink() = default;
    /// `begin` is the first byte of its header.
    virtual void on_frame(MessageKind side, const Frame& frame, const Moment& begin) = 0;
    virtual void on_payload(MessageKind side, const Frame& frame, std::string_view data) = 0;
    /// So many bytes of the payload come next that are missing.
    virtual void on_missing(MessageKind side, const Frame& frame, std::uint64_t length) = 0;
    virtual void on_frame_end(MessageKind side, const Frame& frame, Time now) = 0;
    /// Whole frames are missing, or, if `malformed`, what is there are none. This may be said several times
    /// before the next frame.
    virtual void on_frames_lost(MessageKind side, bool malformed, Time now) = 0;
};

/// What it cannot place is skipped until a write, a read or a segment begins like frames.
class FrameReader {
  public:
    /// `side`: requests for what the client sends. `synced`: what comes first is a frame.
    FrameReader(MessageKind side, FrameSink& sink, bool synced)
        : sink_(&sink), side_(side), lost_(!synced) {}

    /// Bytes in order; see MessageParser::data.
    void data(std::string_view data, const Moment& moment);
    void gap(std::uint64_t length, Time now);
    /// Payload of the frame under way that is still to come.
    std::uint32_t remaining() const { return in_frame_ ? left_ : 0; }
    /// Within the payload of a DATA frame.
    bool in_data() const { return in_frame_ && frame_.type == FrameType::data; }

  private:
    void end_frame(Time now);
    void lose(bool malformed, Time now);

    FrameSink* sink_;
    MessageKind side_;
    bool lost_;
    bool in_frame_ = false;
    bool found_again_ = false; ///< behind a hole, and no second frame has proven it
    std::uint32_t left_ = 0;
    std::size_t header_have_ = 0;
    std::array<char, Frame::header_size> header_{};
    Moment begin_;
    Frame frame_;
};

} // namespace netctl::trace
