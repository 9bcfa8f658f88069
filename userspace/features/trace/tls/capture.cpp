// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/tls/capture.hpp"

#include <algorithm>
#include <string_view>
#include <utility>

#include "features/trace/http/file_session.hpp"
#include "netctl/abi/trace_tls.h"

namespace netctl::trace::tls {

namespace {

class Handshaking : public Conversation {
  public:
    Handshaking(MemoryBudget& budget, HandshakeReader::Emit emit)
        : share_(&budget), reader_(std::move(emit)) {
        share_.set(reader_.memory());
    }

    void data(Side side, std::string_view data, const Moment& moment) override {
        reader_.data(of(side), data, moment.time);
        share_.set(reader_.memory());
    }
    void gap(Side side, std::uint64_t length, trace::Time now) override {
        reader_.gap(of(side), length, now);
    }
    void close(Side side, trace::Time now) override { reader_.close(of(side), now); }
    void close(trace::Time now) override { reader_.close(now); }
    void abandon(trace::Time now) override { reader_.abandon(now); }
    bool roles_known() const override { return reader_.begun(); }
    bool opaque() const override { return reader_.over(); }

    Side client() const { return reader_.client() == HandshakeReader::a ? a : b; }

  private:
    static HandshakeReader::Side of(Side side) {
        return side == a ? HandshakeReader::a : HandshakeReader::b;
    }

    MemoryShare share_;
    HandshakeReader reader_;
};

PacketOptions options_of(FrameStart start) {
    PacketOptions options;
    options.layers = file_layers(start, true);
    return options;
}

} // namespace

Result<std::unique_ptr<CaptureHandshakes>> CaptureHandshakes::open(const std::string& path,
                                                                   std::vector<std::uint16_t> ports,
                                                                   OnEvent on_event) {
    auto reader = NETCTL_TRY(sys::PcapReader::open(path));
    const FrameStart start = NETCTL_TRY(frame_start_of(reader, path));
    return std::unique_ptr<CaptureHandshakes>(
        new CaptureHandshakes(std::move(reader), start, std::move(ports), std::move(on_event)));
}

CaptureHandshakes::CaptureHandshakes(sys::PcapReader reader, FrameStart start,
                                     std::vector<std::uint16_t> ports, OnEvent on_event)
    : reader_(std::move(reader)),
      start_(start),
      ports_(std::move(ports)),
      on_event_(std::move(on_event)),
      tracer_(
          counters_,
          [this](const Endpoint& low, const Endpoint& high,
                 MemoryBudget& budget) -> std::unique_ptr<Conversation> {
              auto self = std::make_shared<const Handshaking*>();
              auto made = std::make_unique<Handshaking>(
                  budget, [this, self, low, high](const Handshake& handshake) {
                      if (!wanted(low, high))
                          return;
                      const bool first = (*self)->client() == Conversation::a;
                      Event event;
                      event.handshake = handshake;
                      event.client = first ? low : high;
                      event.server = first ? high : low;
                      on_event_(event);
                  });
              *self = made.get();
              return made;
          },
          options_of(start),
          [this](trace::Time, const TcpPlace& place) {
              if (place.bytes.size() < NC_TLS_DATAGRAM_LOOK || !wanted(place.source, place.target))
                  return;
              const std::uint32_t kind = nc_tls_datagram(place.bytes.data(), place.length);
              if (kind != 0)
                  undecoded_.add(kind == NC_TLS_DTLS ? Undecoded::Protocol::dtls
                                                     : Undecoded::Protocol::quic,
                                 place.source, place.target, {});
          }) {}

bool CaptureHandshakes::wanted(const Endpoint& one, const Endpoint& other) const {
    const auto selected = [this](std::uint16_t port) {
        return std::binary_search(ports_.begin(), ports_.end(), port);
    };
    return ports_.empty() || selected(one.port) || selected(other.port);
}

Result<bool> CaptureHandshakes::poll() {
    // A bite at a time, so that a signal is heeded.
    for (int i = 0; i < 1024; ++i) {
        const auto frame = NETCTL_TRY(reader_.next());
        if (!frame)
            return false;
        last_ = frame->time_ns;
        tracer_.frame(last_, start_, frame->bytes, frame->length);
    }
    return true;
}

} // namespace netctl::trace::tls
