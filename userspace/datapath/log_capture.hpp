// SPDX-License-Identifier: GPL-2.0-only
//
// Logged packets in capture files: pcap, or pcapng with what became of them.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>

#include "datapath/filter_command.hpp"
#include "sys/pcap.hpp"
#include "sys/pcapng.hpp"

namespace netctl::datapath {

struct LogCaptureOptions {
    std::string path;          ///< `-`: pcapng to standard output
    std::uint32_t snaplen = 0; ///< most bytes kept of a packet; 0: all that the log has
    std::optional<std::uint64_t> file_size; ///< bytes: where the next file begins
    std::uint32_t files = 10;               ///< so many are kept then: FILE, FILE.1 and so on
};

/// pcapng if the name ends so or is `-`, else pcap. In pcapng the section has the rules in force, the interface
/// its hook, each packet the rule that logged it, what was decided, and which way it went; the last block
/// counts the packets, and those that are missing.
class LogCapture {
  public:
    /// `point` outlives it.
    static Result<LogCapture> create(LogCaptureOptions options, FrameForm form, FilterPoint& point);
    /// `time_ns` is the event's, since the epoch. The packet is in the file afterwards. False: whoever read
    /// standard output is gone.
    Result<bool> write(const nc_event& event, std::uint64_t time_ns);
    /// Ends the file. False as above.
    Result<bool> finish();

  private:
    LogCapture(LogCaptureOptions options, FrameForm form, FilterPoint& point)
        : options_(std::move(options)), form_(form), point_(&point) {}

    Result<> begin();
    Result<> rotate();
    Result<> write_packet(const nc_event& event, std::uint64_t time_ns);
    Result<> write_statistics();
    /// The texts of the rules in force by their ids; what cannot be read has none.
    void read_rules();
    std::string comment_of(const nc_event& event);
    std::uint64_t size() const;
    Result<bool> readable(Result<> written) const;

    LogCaptureOptions options_;
    FrameForm form_;
    FilterPoint* point_;
    std::optional<std::variant<sys::PcapWriter, sys::PcapngWriter>> writer_;
    std::map<std::uint32_t, std::string> rules_;
    std::uint64_t generation_ = 0; ///< of the event for which `rules_` was read last
    std::uint64_t written_ = 0, plain_size_ = 0;
    std::optional<UnloggedPackets> unlogged_; ///< when the file began
};

} // namespace netctl::datapath
