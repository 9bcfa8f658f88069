// SPDX-License-Identifier: GPL-2.0-only
//
// Handshakes of a capture file.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/result.hpp"
#include "features/trace/http/packet_tracer.hpp"
#include "features/trace/tls/event.hpp"
#include "sys/pcap.hpp"

namespace netctl::trace::tls {

class CaptureHandshakes {
  public:
    /// `ports` in host order, sorted; empty: all.
    static Result<std::unique_ptr<CaptureHandshakes>>
    open(const std::string& path, std::vector<std::uint16_t> ports, OnEvent on_event);

    /// Reads a part of the file. False at its end.
    Result<bool> poll();
    /// Tells what is under way.
    void finish() { tracer_.finish(last_); }
    const PacketCounters& counters() const { return counters_; }
    const Undecoded& undecoded() const { return undecoded_; }

  private:
    CaptureHandshakes(sys::PcapReader reader, FrameStart start, std::vector<std::uint16_t> ports,
                      OnEvent on_event);
    bool wanted(const Endpoint& one, const Endpoint& other) const;

    sys::PcapReader reader_;
    FrameStart start_;
    std::vector<std::uint16_t> ports_;
    OnEvent on_event_;
    PacketCounters counters_;
    Undecoded undecoded_;
    Time last_ = 0;
    PacketTracer tracer_;
};

} // namespace netctl::trace::tls
