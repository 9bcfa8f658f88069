// SPDX-License-Identifier: GPL-2.0-only
//
// From the records of the system-call source to HTTP transactions.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>

#include "features/trace/container.hpp"
#include "features/trace/http/call_capture.hpp"
#include "features/trace/http/http_connection.hpp"
#include "features/trace/http/sealed.hpp"
#include "netctl/abi/http.h"

namespace netctl::trace {

struct CallCounters {
    std::uint64_t records = 0;
    std::uint64_t damaged = 0;  ///< records that contradict themselves
    std::uint64_t unknown = 0;  ///< records of connections whose beginning was lost or forgotten
    std::uint64_t mirrored = 0; ///< transactions not told as the server's side is
    std::uint64_t missing_bytes = 0;
    std::uint64_t evicted = 0;  ///< connections forgotten because there were too many
    std::uint64_t unplaced = 0; ///< transactions in TLS whose socket is not known
};

class CallTracer {
  public:
    static constexpr std::size_t connection_limit = 16384;

    /// With `both_sides`, a transaction of two processes of this host is told by each of them;
    /// without, by the server's alone.
    /// Requests that wait for `stalled` or longer are told while they do, if it is not 0.
    /// `containers` tells those of processes, unless it is null; it has to outlive this.
    CallTracer(const ParserOptions& options, ParserCounters& parser_counters,
               CallCounters& counters, bool both_sides, HttpConnection::Emit emit, Time stalled = 0,
               Containers* containers = nullptr)
        : stalled_(stalled),
          containers_(containers),
          options_(&options),
          parser_counters_(&parser_counters),
          counters_(&counters),
          both_sides_(both_sides),
          emit_(std::move(emit)) {}

    /// Tells the kernel up to which positions, by direction, no bytes of a stream in TLS are wanted.
    using Skip = std::function<void(std::uint64_t stream, const std::uint64_t (&until)[2])>;
    /// With these, which have to outlive this, plaintext of TLS is taken as well.
    void take_tls(SealedConnections& sealed, Skip skip) {
        sealed_ = &sealed;
        skip_ = std::move(skip);
    }
    /// Writes what is told from now on; it has to outlive this.
    void write_to(CallCapture& capture) { capture_ = &capture; }
    /// One record of the ring. `clock_offset` is added to its time.
    void record(std::span<const std::byte> bytes, Time clock_offset);
    /// Time passes without records.
    void tick(Time now);
    void finish(Time now);
    std::size_t connections() const { return connections_.size(); }

  private:
    struct Connection {
        explicit Connection(MemoryBudget& budget) : share(&budget) {}
        MemoryShare share;
        std::uint64_t cookie = 0;
        Endpoint local, remote;
        std::optional<std::string> unix_path; ///< instead of these
        std::uint32_t netns = 0;
        Process process;
        bool skipped = false; ///< only its OPEN is told
        bool known = false;   ///< there was an OPEN
        bool server = false;  ///< as the kernel says
        bool closed = false;
        bool tls = false;
        bool placed = true; ///< its addresses are known; only in TLS they may not be
        bool held = false;  ///< it is not told of before they are
        std::array<std::uint32_t, 2> origin{}; ///< in TLS: of the socket's own bytes
        std::array<std::uint64_t, 2> skipped_until{};
        Time last = 0;
        std::array<bool, 2> begun{};
        std::array<bool, 2> ended{};
        std::array<std::uint64_t, 2> position{};
        std::unique_ptr<HttpConnection> http;
        /// Cookie of the other end: of a Unix socket, or in another namespace, once that is proven.
        std::uint64_t partner = 0;
        /// Of other_end(), as long as there are still the same ends.
        const Connection* other = nullptr;
        std::uint64_t other_as_of = 0;
    };
    /// What a connection takes that has said nothing yet, roughly.
    static constexpr std::size_t connection_cost = 2048;

    /// How an end of a connection finds the other end's, on the same host.
    struct PairKey {
        Endpoint local, remote;
        std::uint32_t netns = 0; ///< of loopback connections: each namespace has its own
        bool operator==(const PairKey&) const = default;
    };
    struct PairHash {
        std::size_t operator()(const PairKey& key) const;
    };

    static PairKey key_of(const Connection& connection, bool mirrored);
    Connection& connection_of(std::uint64_t cookie, Time now);
    /// The socket at the other end, if it is on this host and told of. In one namespace the kernel has no second
    /// one of the same addresses; anybody can make such a one in another, so there a request has to begin with
    /// the same number of TCP's at both ends.
    const Connection* other_end(Connection& connection, const Transaction& transaction) const;
    void open(const nc_http_open& open, Time now);
    void open_unix(Connection& connection, const nc_http_open& open);
    void sealed(const nc_http_open& open);
    /// Whether both are ends of the same TCP connection, by where their bytes begin in it.
    static bool same_origins(const Connection& one, const Connection& other);
    void skip_body(Connection& connection);
    void emit(Connection& connection, Transaction& transaction);
    void write(const Connection& connection, const nc_http_record& record, std::string_view bytes,
               Time now);
    void remove_end(const Connection& connection);
    void erase(std::uint64_t cookie);
    void sweep(Time now);
    void evict(std::size_t count, Time now);

    Time stalled_;
    Containers* containers_;
    CallCapture* capture_ = nullptr;
    SealedConnections* sealed_ = nullptr;
    Skip skip_;
    MemoryBudget budget_;
    const ParserOptions* options_;
    ParserCounters* parser_counters_;
    CallCounters* counters_;
    bool both_sides_;
    HttpConnection::Emit emit_;
    std::unordered_map<std::uint64_t, std::unique_ptr<Connection>> connections_;
    std::unordered_multimap<PairKey, std::uint64_t, PairHash> ends_;
    std::uint64_t changes_ = 1; ///< of `ends_` and `connections_`
    Time swept_ = 0;
};

} // namespace netctl::trace
