// SPDX-License-Identifier: GPL-2.0-only
//
// What is made of both directions of a connection, whatever the protocol.
#pragma once

#include <cstdint>
#include <string_view>

#include "features/trace/http/http_parser.hpp"

namespace netctl::trace {

class Conversation {
  public:
    /// A side is a sender.
    enum Side : unsigned { a = 0, b = 1 };

    Conversation() = default;
    Conversation(const Conversation&) = delete;
    Conversation& operator=(const Conversation&) = delete;
    virtual ~Conversation() = default;

    /// Its beginning was not seen.
    virtual void join_midway() {}
    /// What `side` sent, in order; `moment` is its first byte's.
    virtual void data(Side side, std::string_view data, const Moment& moment) = 0;
    virtual void gap(Side side, std::uint64_t length, Time now) = 0;
    /// `side` sends no more.
    virtual void close(Side side, Time now) = 0;
    /// The connection is gone.
    virtual void close(Time now) = 0;
    /// Tracing ends, or looks no longer at this connection: tells what is under way.
    virtual void abandon(Time now) = 0;
    /// Time passes; `patience` as in Request::stalled.
    virtual void tick(Time, Time /*patience*/) {}
    /// How many of the bytes that `side` sends next are not wanted; 0 if that is not known.
    virtual std::uint64_t skippable(Side) const { return 0; }
    /// It is of the protocol that is looked for, and who is the client.
    virtual bool roles_known() const = 0;
    /// Nothing more will come of this connection.
    virtual bool opaque() const = 0;
};

} // namespace netctl::trace
