// SPDX-License-Identifier: GPL-2.0-only
//
// Logged packets in capture files, with what became of them.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "datapath/filter_command.hpp"
#include "datapath/packet_file.hpp"

namespace netctl::datapath {

/// In pcapng the section has the rules in force, the interface its hook, each packet the rule that logged it, what was
/// decided, and which way it went; the last block counts the packets, and those that are missing.
class LogCapture : public PacketFile {
  public:
    /// `point` outlives it.
    static Result<LogCapture> create(PacketFileOptions options, FrameForm form, FilterPoint& point);
    /// `time_ns` is the event's, since the epoch. The packet is in the file afterwards. False: whoever read
    /// standard output is gone.
    Result<bool> write(const nc_event& event, std::uint64_t time_ns);

  private:
    LogCapture(PacketFileOptions options, FrameForm form, FilterPoint& point);

    Head head() override;
    std::optional<Missing> missing() override;
    /// The texts of the rules in force by their ids; what cannot be read has none.
    void read_rules();
    std::string comment_of(const nc_event& event);

    FilterPoint* point_;
    std::map<std::uint32_t, std::string> rules_;
    std::uint64_t generation_ = 0;            ///< of the event for which `rules_` was read last
    std::optional<UnloggedPackets> unlogged_; ///< when the file began
};

/// What pcapng has for a verdict: what the hook's program answers (enum xdp_action; linux/pkt_cls.h).
std::optional<sys::BpfVerdict> answer_of(Hook hook, nc_verdict verdict);

/// How pcap calls frames of this form.
sys::LinkType link_type_of(FrameForm form);

} // namespace netctl::datapath
