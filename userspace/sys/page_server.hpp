// SPDX-License-Identifier: GPL-2.0-only
//
// One page over HTTP, made anew for each request. No more of HTTP than a scraper needs: GET and HEAD, a response
// a connection, in one thread, with bounds on everything that a stranger sends or does not send.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/address.hpp"
#include "core/fd.hpp"
#include "core/result.hpp"

namespace netctl::sys {

struct Endpoint {
    Address address;
    std::uint16_t port = 0; ///< 0: one that is free

    /// `127.0.0.1:9435`, `[::1]:9435`.
    std::string to_string() const;
    /// Reads the same. An address has to be there: all addresses are `0.0.0.0` or `[::]`.
    static Result<Endpoint> parse(const std::string& text);
    bool is_loopback() const;
};

class PageServer {
  public:
    /// Listens, in the current network namespace.
    static Result<PageServer> listen(const Endpoint& endpoint);
    /// With the port that it got.
    const Endpoint& endpoint() const { return endpoint_; }

    /// Answers requests for `path` with what `make` returns, until `stop()`, which is asked once a second and when
    /// a signal comes. A client has ten seconds for its request and thirty to take the response.
    Result<> serve(const std::string& path, const std::string& content_type,
                   const std::function<std::string()>& make, const std::function<bool()>& stop);

  private:
    using Time = std::chrono::steady_clock::time_point;
    struct Client {
        Fd socket;
        std::string request, response;
        std::size_t sent = 0;
        Time until{};      ///< it is given up then
        bool done = false; ///< all was sent: the client is to close
    };

    PageServer(Fd socket, Endpoint endpoint) : socket_(std::move(socket)), endpoint_(endpoint) {}
    /// False: nothing more can be accepted for now.
    bool accept_clients(Time now);
    /// Goes on with a client whose socket is ready; false when it is finished.
    static bool advance(Client& client, Time now,
                        const std::function<std::string(std::string_view)>& respond);

    Fd socket_;
    Endpoint endpoint_;
    std::vector<Client> clients_;
};

} // namespace netctl::sys
