// SPDX-License-Identifier: GPL-2.0-only
//
// Writing pcapng, which libpcap reads and does not write.
#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "core/result.hpp"
#include "sys/pcap.hpp"

namespace netctl::sys {

/// Where packets of a file were seen.
struct PcapngInterface {
    LinkType link_type = LinkType::raw_ip; ///< or ethernet
    std::string name{}, description{};     ///< UTF-8; left out if empty
    std::uint32_t snaplen = 0;             ///< most bytes kept of a packet; 0: any number
};

/// What a BPF program answered, in the numbers of its hook: XDP_* or TC_ACT_*.
struct BpfVerdict {
    enum class Hook : std::uint8_t { tc = 1, xdp = 2 } hook = Hook::xdp;
    std::int64_t action = 0;
};

struct PcapngPacket {
    std::uint64_t time_ns = 0; ///< since the epoch
    std::uint32_t length = 0;  ///< on the wire
    std::span<const std::uint8_t> bytes{};
    std::string_view comment{}; ///< UTF-8; left out if empty
    enum class Direction : std::uint32_t { unknown, inbound, outbound } direction{};
    std::optional<BpfVerdict> verdict{};
};

/// What became of the packets of an interface while a file was written.
struct PcapngStatistics {
    std::uint64_t time_ns = 0; ///< when it was counted, since the epoch
    std::uint64_t written = 0; ///< packets that are in the file
    std::uint64_t lost = 0;    ///< that should be in it, and are not
    std::string_view comment{};
};

/// A file of one section and one interface, its times in nanoseconds (draft-ietf-opsawg-pcapng; epb_verdict is as
/// xdpdump writes it).
class PcapngWriter {
  public:
    /// `-` is standard output. `comment`, UTF-8, is the section's.
    static Result<PcapngWriter> create(const std::string& path,
                                       const PcapngInterface& interface = {},
                                       std::string_view comment = {});
    Result<> write(const PcapngPacket& packet);
    Result<> write(const PcapngStatistics& statistics);
    /// Everything written so far is in the file afterwards.
    Result<> flush();
    /// Bytes so far.
    std::uint64_t size() const { return size_; }

  private:
    struct Close {
        void operator()(std::FILE* file) const;
    };
    Result<> put(const std::string& block);

    std::unique_ptr<std::FILE, Close> file_;
    std::string path_;
    std::uint64_t size_ = 0;
};

} // namespace netctl::sys
