// SPDX-License-Identifier: GPL-2.0-only
//
// The packets of a running trace, in a file.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>

#include "core/result.hpp"
#include "sys/pcap.hpp"
#include "sys/pcapng.hpp"

namespace netctl::trace {

/// A capture of IP packets that others may read while it grows. With the first error it ends, as what
/// follows a packet that is half written could not be read; the trace goes on.
class CaptureFile {
  public:
    /// pcapng if the name ends so, or else pcap.
    static Result<CaptureFile> create(const std::string& path);

    /// `time_ns` since the epoch; `length` is the packet's, `bytes` what there is of it. `comment`, UTF-8, is left
    /// out of a pcap file.
    void write(std::uint64_t time_ns, std::uint32_t length, std::span<const std::uint8_t> bytes,
               std::string_view comment = {});
    /// Everything written so far is in the file afterwards.
    void flush();
    /// As flush(), but once a second at most, however often it is called.
    void flush_at_times();
    /// The error that ended it; it is handed out once.
    std::optional<Error> take_error();

  private:
    using Writer = std::variant<sys::PcapWriter, sys::PcapngWriter>;
    explicit CaptureFile(Writer writer) : writer_(std::move(writer)) {}
    void fail(const Error& error);

    Writer writer_;
    bool unflushed_ = false;
    std::chrono::steady_clock::time_point flushed_;
    bool failed_ = false;
    std::optional<Error> untold_;
};

} // namespace netctl::trace
