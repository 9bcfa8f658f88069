// SPDX-License-Identifier: GPL-2.0-only
//
// The packets of a running trace, in a file.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "core/result.hpp"
#include "sys/pcap.hpp"

namespace netctl::trace {

/// A capture of IP packets that others may read while it grows. With the first error it ends, as what
/// follows a packet that is half written could not be read; the trace goes on.
class CaptureFile {
  public:
    static Result<CaptureFile> create(const std::string& path);

    /// `time_ns` since the epoch; `length` is the packet's, `bytes` what there is of it.
    void write(std::uint64_t time_ns, std::uint32_t length, std::span<const std::uint8_t> bytes);
    /// Everything written so far is in the file afterwards.
    void flush();
    /// As flush(), but once a second at most, however often it is called.
    void flush_at_times();
    /// The error that ended it; it is handed out once.
    std::optional<Error> take_error();

  private:
    explicit CaptureFile(sys::PcapWriter writer) : writer_(std::move(writer)) {}
    void fail(const Error& error);

    sys::PcapWriter writer_;
    bool unflushed_ = false;
    std::chrono::steady_clock::time_point flushed_;
    bool failed_ = false;
    std::optional<Error> untold_;
};

} // namespace netctl::trace
