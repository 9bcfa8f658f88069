// SPDX-License-Identifier: GPL-2.0-only
//
// Requests and answers over one or several connections at once, as the benchmarks make them.
#pragma once

#include <chrono>
#include <cstddef>
#include <limits>
#include <string>
#include <vector>

#include "core/fd.hpp"
#include "core/result.hpp"

namespace netctl::redirect {

/// Connections of one thread: each asks again as soon as it has its answer.
class Clients {
  public:
    /// `connections` are non-blocking. Each `request` is answered with `answer` bytes.
    static Result<Clients> make(std::vector<Fd> connections, std::string request,
                                std::size_t answer);

    std::size_t count() const { return connections_.size(); }
    /// Keeps all on TCP; see redirect::stay_on_tcp.
    Result<> stay_on_tcp() const;
    /// No connection asks more often than that in all. Some servers end theirs then.
    void set_budget(std::size_t requests) { budget_ = requests; }
    /// How often the connection that asked most may still ask.
    std::size_t left() const;
    /// How often all of them were answered so far.
    std::size_t exchanges() const { return exchanges_; }
    /// The server has closed one of them.
    bool closed() const { return closed_; }
    /// How long an answer may take before it is an error.
    void set_patience(std::chrono::milliseconds patience) { patience_ = patience; }
    /// Asks until `time` is over or each has used up its budget, which has to be more than nothing, and
    /// awaits the answers to what was asked: µs an exchange, which is as
    /// many times less than an answer takes as there are connections.
    Result<double> run(std::chrono::nanoseconds time);

  private:
    struct Connection {
        Fd fd;
        std::size_t got = 0;
        std::size_t asked = 0;
    };

    Clients(Fd epoll, std::vector<Connection> connections, std::string request, std::size_t answer);
    Result<> ask(Connection& connection);
    /// What is there is read; true if the answer is complete with it.
    Result<bool> receive(Connection& connection);

    Fd epoll_;
    std::vector<Connection> connections_;
    std::string request_, buffer_;
    std::size_t answer_;
    std::size_t exchanges_ = 0; ///< so far
    std::size_t budget_ = std::numeric_limits<std::size_t>::max();
    bool closed_ = false;
    std::chrono::milliseconds patience_;
};

/// The other side: answers each `request` bytes with `answer`, on all connections, until they are closed.
/// False if one failed, or ended within a request.
bool serve(const std::vector<Fd>& connections, std::size_t request, const std::string& answer);

} // namespace netctl::redirect
