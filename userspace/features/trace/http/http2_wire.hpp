// SPDX-License-Identifier: GPL-2.0-only
//
// HTTP/2 as its two ends send it, for tests.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>

#include "features/trace/http/hpack_deflater.hpp"
#include "features/trace/http/http2_frames.hpp"

namespace netctl::trace {

inline std::string frame(FrameType type, int flags, std::uint32_t stream,
                         const std::string& payload) {
    const auto byte = [](std::size_t value) { return static_cast<char>(value & 255); };
    const std::size_t size = payload.size();
    return std::string{byte(size >> 16),
                       byte(size >> 8),
                       byte(size),
                       static_cast<char>(type),
                       byte(static_cast<std::size_t>(flags)),
                       byte(stream >> 24),
                       byte(stream >> 16),
                       byte(stream >> 8),
                       byte(stream)} +
           payload;
}

/// One after the other, and made in that order, as heads have to be.
inline std::string all_of(std::initializer_list<std::string> pieces) {
    std::string all;
    for (const std::string& piece : pieces)
        all += piece;
    return all;
}

inline std::string word(std::uint32_t value) {
    return {static_cast<char>(value >> 24), static_cast<char>(value >> 16 & 255),
            static_cast<char>(value >> 8 & 255), static_cast<char>(value & 255)};
}

inline std::string data_frame(std::uint32_t stream, const std::string& content, bool end) {
    return frame(FrameType::data, end ? Frame::end_stream : 0, stream, content);
}
inline std::string rst_frame(std::uint32_t stream, std::uint32_t code) {
    return frame(FrameType::rst_stream, 0, stream, word(code));
}
inline std::string goaway_frame(std::uint32_t last, std::uint32_t code) {
    return frame(FrameType::goaway, 0, 0, word(last) + word(code) + "debug");
}
inline std::string settings_frame(bool ack = false) {
    return frame(FrameType::settings, ack ? 1 : 0, 0,
                 ack ? std::string() : std::string("\0\3\0\0\0\x64", 6));
}

/// One end and its header table.
class Http2End {
  public:
    std::string head(std::uint32_t stream, const FieldList& fields, bool end) {
        return frame(FrameType::headers, Frame::end_headers | (end ? Frame::end_stream : 0), stream,
                     deflater.block(fields));
    }
    /// With padding, a priority, and in pieces of `piece` bytes.
    std::string head_in_pieces(std::uint32_t stream, const FieldList& fields, bool end,
                               std::size_t piece) {
        const std::string block = deflater.block(fields);
        std::string out =
            frame(FrameType::headers,
                  Frame::padded | Frame::priority | (end ? Frame::end_stream : 0), stream,
                  std::string(1, '\7') + word(0) + "\x10" + block.substr(0, piece) +
                      std::string(7, '\0'));
        for (std::size_t at = piece; at < block.size(); at += piece)
            out += frame(FrameType::continuation, 0, stream, block.substr(at, piece));
        return out + frame(FrameType::continuation, Frame::end_headers, stream, "");
    }
    std::string promise(std::uint32_t stream, std::uint32_t promised, const FieldList& fields) {
        return frame(FrameType::push_promise, Frame::end_headers, stream,
                     word(promised) + deflater.block(fields));
    }

    Deflater deflater;
};

inline FieldList get(const std::string& path) {
    return {{":method", "GET"},
            {":scheme", "http"},
            {":path", path},
            {":authority", "example.org"},
            {"user-agent", "test"}};
}
inline FieldList answer(const std::string& status) {
    return {{":status", status}, {"server", "test"}, {"content-type", "text/plain"}};
}

} // namespace netctl::trace
