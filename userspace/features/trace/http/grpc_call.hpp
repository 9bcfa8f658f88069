// SPDX-License-Identifier: GPL-2.0-only
//
// What of a call is gRPC's own: "gRPC over HTTP2" of its documentation.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "features/trace/http/http_parser.hpp"

namespace netctl::trace {

/// Whether it is gRPC's, and not that of gRPC-Web, which puts its trailers elsewhere.
bool is_grpc_type(std::string_view content_type);
/// `NOT_FOUND`; empty if there is none of that number.
std::string_view grpc_status_name(std::uint32_t status);
/// The number of `5` or `NOT_FOUND`.
std::optional<std::uint32_t> parse_grpc_status(std::string_view text);
/// Of grpc-timeout, `100m` or `5S`, in nanoseconds; 0 if it is none.
Time parse_grpc_timeout(std::string_view text);
/// grpc-message is percent-encoded.
std::string decode_grpc_message(std::string_view text);

/// Counts the messages of one direction: each has a byte of flags, four of length, and itself.
class GrpcMessages {
  public:
    void data(std::string_view content);
    /// So much of the content is missing.
    void skip(std::uint64_t length);
    /// Those that began; empty: bytes are missing that would tell, or they are none.
    std::optional<std::uint64_t> count() const {
        return known_ ? std::optional(count_) : std::nullopt;
    }

  private:
    static constexpr std::size_t prefix_size = 5;

    std::array<unsigned char, prefix_size> prefix_{};
    std::size_t have_ = 0;
    std::uint64_t left_ = 0; ///< of the message under way
    std::uint64_t count_ = 0;
    bool known_ = true;
};

} // namespace netctl::trace
