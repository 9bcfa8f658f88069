// SPDX-License-Identifier: GPL-2.0-only
//
// A handshake, with whose it is; what makes them; and the lines that tell of them.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "core/json.hpp"
#include "core/text.hpp"
#include "features/trace/parties.hpp"
#include "features/trace/tls/handshake.hpp"

namespace netctl::trace::tls {

struct Event {
    Handshake handshake;
    Endpoint client, server;
    /// System calls: the process at this end of the connection, and which of the two it is.
    std::optional<bool> by_server;
    Process process;
    std::uint64_t cgroup_id = 0; ///< of the socket; 0: not known
    std::optional<std::string> cgroup;
    std::optional<std::uint64_t> cookie;
    std::optional<std::uint32_t> netns;

    bool failed() const {
        return handshake.result == Outcome::alert || handshake.result == Outcome::closed;
    }
};

using OnEvent = std::function<void(Event&)>;

/// Handshakes that were seen to begin and are not decoded: of DTLS and of QUIC, which encrypts its own.
class Undecoded {
  public:
    enum class Protocol : std::uint8_t { dtls, quic };

    /// Told of each end, and each time that the first datagram is sent again, it counts once.
    void add(Protocol protocol, const Endpoint& one, const Endpoint& other, const Process& process);
    std::uint64_t count(Protocol protocol) const;
    /// `2 of DTLS (openssl 2), 1 of QUIC`, the names as they may be shown; empty if there are none.
    std::string text() const;
    /// Arrays of `{comm, connections}` by `dtls` and `quic`; packets have no names.
    Json json() const;

  private:
    static constexpr std::size_t limit = 65536;
    std::map<Protocol, std::map<std::string, std::uint64_t>> counts_;
    std::set<std::pair<Endpoint, Endpoint>> known_;
};

/// The titles.
Text header();
void append_text(Text& out, const Event& event);
/// One document and a line feed.
void append_json(Text& out, const Event& event);

} // namespace netctl::trace::tls
