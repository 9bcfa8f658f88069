// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/http/file_session.hpp"

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "features/trace/http/packet_tracer.hpp"
#include "sys/pcap.hpp"

namespace netctl::trace {

namespace {

class FileSession : public Session {
  public:
    static Result<std::unique_ptr<Session>> open(const Request& request, const Emit& emit) {
        auto reader = NETCTL_TRY(sys::PcapReader::open(request.read));
        const FrameStart start = NETCTL_TRY(frame_start_of(reader, request.read));
        return std::unique_ptr<Session>(new FileSession(request, std::move(reader), start, emit));
    }

    Result<bool> poll() override {
        // A bite at a time, so that a signal is heeded.
        for (int i = 0; i < 1024; ++i) {
            const auto frame = NETCTL_TRY(reader_.next());
            if (!frame)
                return false;
            last_ = frame->time_ns;
            ++received_;
            tracer_.frame(last_, start_, frame->bytes, frame->length);
        }
        return true;
    }

    Result<> stop() override {
        tracer_.finish(last_);
        return {};
    }

    Result<Counters> counters() const override {
        Counters counters;
        counters.received = received_;
        counters.parser = parser_;
        counters.packets = packets_;
        return counters;
    }
    std::string description() const override { return path_; }

  private:
    FileSession(const Request& request, sys::PcapReader reader, FrameStart start, Emit emit)
        : options_(request.parser),
          emit_(std::move(emit)),
          reader_(std::move(reader)),
          start_(start),
          path_(request.read),
          ports_(request.ports),
          tracer_(
              options_, parser_, packets_,
              [this](Transaction& transaction) {
                  const auto wanted = [&](std::uint16_t port) {
                      return std::binary_search(ports_.begin(), ports_.end(), port);
                  };
                  if (ports_.empty() || wanted(transaction.client.port) ||
                      wanted(transaction.server.port))
                      emit_(transaction);
              },
              {}, packet_options(request, start)) {}

    static PacketOptions packet_options(const Request& request, FrameStart start) {
        PacketOptions options;
        options.layers = file_layers(start, request.tunnels);
        options.stalled = request.stalled;
        return options;
    }

    ParserOptions options_;
    Emit emit_;
    sys::PcapReader reader_;
    FrameStart start_;
    std::string path_;
    std::vector<std::uint16_t> ports_;
    Time last_ = 0;
    std::uint64_t received_ = 0;
    ParserCounters parser_;
    PacketCounters packets_;
    PacketTracer tracer_;
};

} // namespace

Result<FrameStart> frame_start_of(const sys::PcapReader& reader, const std::string& path) {
    switch (reader.link_type()) {
    case sys::LinkType::ethernet: return FrameStart::ethernet;
    case sys::LinkType::raw_ip: return FrameStart::ip;
    case sys::LinkType::linux_sll: return FrameStart::linux_cooked;
    case sys::LinkType::linux_sll2: return FrameStart::linux_cooked2;
    case sys::LinkType::loopback: return FrameStart::loopback;
    case sys::LinkType::ppp: return FrameStart::ppp;
    case sys::LinkType::other: break;
    }
    return Error::failed(
        fmt::format("{} holds {} frames", path, reader.link_type_name()),
        "Ethernet, raw IP, Linux cooked (SLL, SLL2), BSD loopback and PPP captures "
        "can be read");
}

LayerOptions file_layers(FrameStart start, bool tunnels) {
    LayerOptions layers;
    layers.tunnels = tunnels;
    // A capture of all interfaces has what passed a VLAN's twice, once without its tag.
    layers.vlans = start != FrameStart::linux_cooked && start != FrameStart::linux_cooked2;
    return layers;
}

Result<std::unique_ptr<Session>> open_file_session(const Request& request,
                                                   const Session::Emit& emit) {
    return FileSession::open(request, emit);
}

} // namespace netctl::trace
