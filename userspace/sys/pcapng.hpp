// SPDX-License-Identifier: GPL-2.0-only
//
// Writing pcapng, which libpcap reads and does not write.
#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "core/result.hpp"

namespace netctl::sys {

/// A file of one section and one interface of raw IP packets, in nanoseconds (draft-ietf-opsawg-pcapng).
class PcapngWriter {
  public:
    static Result<PcapngWriter> create(const std::string& path);
    /// `time_ns` since the epoch; `length` is the packet's, `bytes` what there is of it. `comment` stands with it,
    /// if it is not empty; it is UTF-8.
    Result<> write(std::uint64_t time_ns, std::uint32_t length, std::span<const std::uint8_t> bytes,
                   std::string_view comment);
    /// Everything written so far is in the file afterwards.
    Result<> flush();

  private:
    struct Close {
        void operator()(std::FILE* file) const;
    };
    Result<> put(const std::string& block);

    std::unique_ptr<std::FILE, Close> file_;
    std::string path_;
};

} // namespace netctl::sys
