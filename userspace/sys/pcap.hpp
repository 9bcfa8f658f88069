// SPDX-License-Identifier: GPL-2.0-only
//
// Capture files, through libpcap.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/result.hpp"

struct pcap;
struct pcap_dumper;

namespace netctl::sys {

struct CapturedFrame {
    std::uint64_t time_ns = 0;       ///< since the epoch
    std::uint32_t length = 0;        ///< on the wire
    std::vector<std::uint8_t> bytes; ///< what was captured of it
};

enum class LinkType { ethernet, raw_ip, linux_sll, linux_sll2, loopback, ppp, other };

class PcapReader {
  public:
    /// pcap or pcapng, by themselves or compressed with gzip or zstd; `-` is standard input. A pcapng file may
    /// have several interfaces, of one link type.
    static Result<PcapReader> open(const std::string& path);
    LinkType link_type() const;
    /// libpcap's name of it, for messages.
    std::string link_type_name() const;
    /// Nothing at the end of the file. A file that ends inside a frame is an error.
    Result<std::optional<CapturedFrame>> next();

  private:
    struct Close {
        void operator()(pcap* handle) const;
    };
    Error failed(const char* what) const;

    std::unique_ptr<std::string> trouble_; ///< of the file below; it outlives `handle_`
    std::unique_ptr<pcap, Close> handle_;
    std::string path_;
};

class PcapWriter {
  public:
    /// Nanosecond pcap. `-` is standard output.
    static Result<PcapWriter> create(const std::string& path,
                                     LinkType link_type = LinkType::ethernet);
    Result<> write(std::uint64_t time_ns, std::uint32_t length,
                   std::span<const std::uint8_t> bytes);
    /// Everything written so far is in the file afterwards.
    Result<> flush();

  private:
    struct Close {
        void operator()(pcap* handle) const;
    };
    struct CloseDumper {
        void operator()(pcap_dumper* dumper) const;
    };
    std::unique_ptr<pcap, Close> handle_;
    std::unique_ptr<pcap_dumper, CloseDumper> dumper_;
    std::string path_;
};

} // namespace netctl::sys
