// SPDX-License-Identifier: GPL-2.0-only
//
// Joins connections that the programs have announced.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bpf/ring_buffer.hpp"
#include "core/fd.hpp"
#include "core/result.hpp"
#include "features/redirect/datapath.hpp"
#include "netctl/abi/redirect.h"
#include "sys/netns.hpp"

namespace netctl::redirect {

/// The cookie of the current network namespace; 0 if it cannot be had.
std::uint64_t current_netns_cookie();

/// The same connection, seen from its other end.
nc_rd_end turned(nc_rd_end end);

/// Hears of connections that may join and joins them. One at a time for each Datapath.
class Joiner {
  public:
    /// The datapath must outlive the joiner.
    static Result<Joiner> open(Datapath& datapath);
    /// Handles what was announced, waiting up to `timeout_ms` for it.
    Result<> poll(int timeout_ms);
    /// With what the kernel last refused to put a socket into the map: an errno, negative, or 0.
    int refusal() const { return refusal_; }
    /// What keeps connections between namespaces from joining, since last asked; once in all.
    std::string take_trouble() { return std::exchange(trouble_, {}); }

  private:
    struct Announced {
        nc_rd_event event;
        std::uint64_t since_ms;
    };
    using Waiting = std::multimap<std::string, Announced>; ///< by the announced end

    explicit Joiner(Datapath& datapath, std::uint64_t netns, bool cross_netns)
        : datapath_(&datapath), netns_(netns), cross_netns_(cross_netns) {}
    /// A connection that was not at rest when it was to join.
    struct Busy {
        Announced announced;
        Datapath::Peer peer;
        std::uint64_t next_ms;
    };
    Result<> on_event(const Announced& announced);
    /// Joins an announced connection of the current network namespace with an end in `peer`; has it
    /// tried again later if it is not at rest.
    Result<Datapath::Answer> join(const Announced& announced, const Datapath::Peer& peer,
                                  bool tentative);
    Result<Datapath::Answer> try_once(const nc_rd_event& event, const Datapath::Peer& peer,
                                      bool tentative, bool final);
    /// Tries all ends in other namespaces that were announced with the same addresses, swapped;
    /// true if that settled it. The current namespace is the event's.
    Result<bool> join_across(const Announced& announced);
    /// Tries those again that were not at rest and whose time has come.
    Result<> try_again();
    /// Gives up waiting for what was announced too long ago.
    Result<> expire();
    /// Wakes the readers that were behind and have caught up.
    Result<> nudge();
    /// A path to the namespace with this cookie, found in /proc. No handle is kept: it would keep
    /// the namespace alive.
    std::string netns_path(std::uint64_t cookie);

    /// Enters the namespace with this cookie, if it is found.
    std::optional<sys::NetnsGuard> enter(std::uint64_t netns);

    Datapath* datapath_;
    std::uint64_t netns_;
    bool cross_netns_;
    Fd own_;                          ///< the namespace netns_, wherever we are
    Waiting waiting_;                 // for the other end, in another namespace
    std::vector<Announced> unplaced_; // in namespaces that are not found yet
    std::vector<Busy> busy_;
    /// Numbers of namespaces (second) within others (first), by cookie. They never change.
    std::map<std::pair<std::uint64_t, std::uint64_t>, int> numbers_;
    std::map<std::uint64_t, std::string> paths_;
    std::uint64_t scanned_ms_ = 0;
    std::uint64_t next_nudge_ms_ = 0;
    std::uint64_t next_try_ms_ = 0; ///< of all that are busy
    int refusal_ = 0;
    std::string trouble_;
    bool was_trouble_ = false;
    struct Inbox {
        std::vector<nc_rd_event> events;
        std::vector<nc_rd_behind> behind; ///< readers that are to be woken
    };
    std::unique_ptr<Inbox> inbox_; // its address is what the ring buffer's handler holds
    std::optional<bpf::RingBuffer> ring_;
};

} // namespace netctl::redirect
