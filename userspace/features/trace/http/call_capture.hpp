// SPDX-License-Identifier: GPL-2.0-only
//
// What processes sent and received, as packets for a capture file.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "features/trace/http/capture_file.hpp"
#include "features/trace/http/http_connection.hpp"
#include "netctl/abi/http.h"

namespace netctl::trace {

/// The end of a connection that a process has, as far as a packet's headers tell it.
struct CallEnd {
    const Endpoint* local = nullptr;
    const Endpoint* remote = nullptr;
    const std::optional<std::string>* unix_path = nullptr;
    const Process* process = nullptr;
    bool server = false;
};

/// Writes each piece as TCP segments, with the connection's own sequence numbers and the process as a comment.
/// These packets were never on a wire: they are as long as what passed, and as much of them is there as was
/// copied. A Unix socket's are between ports of 127.0.0.1, of which the server's is 80.
class CallCapture {
  public:
    explicit CallCapture(CaptureFile file) : file_(std::move(file)) {}

    /// `record` is of NC_HTTP_DATA, with `bytes` the captured part, or NC_HTTP_END.
    void write(const CallEnd& end, const nc_http_record& record, std::string_view bytes, Time now);
    CaptureFile& file() { return file_; }

  private:
    CaptureFile file_;
};

} // namespace netctl::trace
