// SPDX-License-Identifier: GPL-2.0-only
//
// Handshakes of what processes of this host send and receive.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <unordered_map>
#include <utility>

#include "core/result.hpp"
#include "features/trace/instrument.hpp"
#include "features/trace/selection.hpp"
#include "features/trace/tls/event.hpp"
#include "netctl/abi/trace_tls.h"

namespace netctl::trace::tls {

/// Makes handshakes of the kernel side's records.
class CallHandshakes {
  public:
    /// Connections whose handshake is under way at once.
    static constexpr std::size_t limit = 65536;

    /// `clock_offset`: what to add to the records' times.
    CallHandshakes(OnEvent on_event, std::int64_t clock_offset)
        : on_event_(std::move(on_event)), clock_offset_(static_cast<std::uint64_t>(clock_offset)) {}

    void record(std::span<const std::byte> bytes);
    /// Time passes: tells of those that are gone. A reset may come before the process has read the alert ahead of it.
    void tick(Time now);
    /// Tells what is under way.
    void finish();
    const Undecoded& undecoded() const { return undecoded_; }
    /// Connections that were given up, as there were too many.
    std::uint64_t forgotten() const { return forgotten_; }

  private:
    struct Connection {
        explicit Connection(HandshakeReader::Emit emit) : reader(std::move(emit)) {}
        nc_tls_record latest{};
        Time gone = 0; ///< when its socket was closed or reset; 0: it was not
        std::uint64_t position[2] = {};
        HandshakeReader reader;
    };

    void data(const nc_tls_record& record, std::string_view bytes, Time now);
    void tell(const Connection& connection, const Handshake& handshake) const;
    void forget();

    OnEvent on_event_;
    std::uint64_t clock_offset_;
    std::unordered_map<std::uint64_t, std::unique_ptr<Connection>> connections_; ///< by cookie
    std::deque<std::pair<Time, std::uint64_t>> gone_; ///< since when, and the cookie
    Undecoded undecoded_;
    std::uint64_t forgotten_ = 0;
    Time last_ = 0;
};

/// Traces from now on. `on_record` is called while the instrument's poll() or stop() run.
Result<Instrument> trace_handshakes(const Selection& selection, std::uint32_t ring_bytes,
                                    RecordReader::Handler on_record);

} // namespace netctl::trace::tls
