// SPDX-License-Identifier: GPL-2.0-only
//
// Redirection of local TCP connections: loading, pinning, rules, the joiner, and what is going on.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "bpf/map.hpp"
#include "bpf/object.hpp"
#include "bpf/pin_dir.hpp"
#include "bpf/ring_buffer.hpp"
#include "core/address.hpp"
#include "core/fd.hpp"
#include "core/result.hpp"
#include "features/redirect/rule_text.hpp"
#include "netctl/abi/redirect.h"
#include "sys/cgroup.hpp"

namespace netctl::redirect {

/// When a connection joins and leaves; see bpf/sockops/redirect.bpf.c. The defaults are measured.
struct Tuning {
    std::uint32_t turns = 16;
    std::uint32_t max_message = 16384;
    std::uint32_t max_run = 8;
    std::uint32_t max_ahead = 1 << 20;
    std::uint64_t grace_ns = 0;
    bool allow_blocking = false;
    bool never_pass = false; ///< NC_RD_NEVER_PASS
};

/// The short name of an nc_rd_reason, as in the output and in the man page.
std::string reason_name(std::uint32_t reason);

/// The programs and maps, loaded or opened from their pins.
class Datapath {
  public:
    /// Loads programs and makes maps, attached to nothing.
    static Result<Datapath> load(const Tuning& tuning);
    /// Opens what is pinned in `dir`.
    static Result<Datapath> open(const bpf::PinDir& dir);

    /// Attaches to a cgroup. Alive while this is, unless pinned.
    Result<> attach(const sys::Cgroup& cgroup);
    Result<> pin(const bpf::PinDir& dir) const;

    Result<nc_rd_conf> conf() const;
    Result<> set_conf(const nc_rd_conf& conf) const;

    struct Answer {
        std::uint32_t reason = 0; ///< NC_RD_REASON_NONE: joined
        std::uint32_t slot = 0;
        int error = 0; ///< errno, negative, with NC_RD_REASON_KERNEL
    };
    /// Where the other end of an announced connection is looked for.
    struct Peer {
        std::uint64_t netns = 0; ///< cookie
        int number = -1;         ///< as the current namespace knows it; -1: it is the current one
    };
    /// Joins an announced connection of the current network namespace. If `tentative`, a peer that
    /// is not found, or proves to be another's, may still be found elsewhere: it is not counted.
    Result<Answer> join(const nc_rd_event& event, const Peer& peer, bool tentative);
    /// Makes the pair in a slot leave; returns its state afterwards.
    Result<std::uint32_t> leave(std::uint32_t slot, std::uint32_t reason) const;
    /// Makes all pairs leave and waits until they have, or until the time is up. Returns how many
    /// are left: connections whose reader does not read what was redirected to it.
    Result<std::size_t> leave_all(std::uint32_t reason, unsigned timeout_ms) const;

    Result<std::vector<nc_rd_pair>> pairs() const;
    Result<nc_rd_pair> pair(std::uint32_t slot) const;
    Result<nc_rd_stats> stats() const;
    Result<std::vector<std::pair<nc_rd_event, nc_rd_recent>>> recent() const;
    Result<bpf::RawMap> events() const { return events_.duplicate(); }

    /// One bank of rules with their texts. Entries from the first without action on are unused.
    template <class R> struct BankOf {
        std::array<R, NC_RD_RULES> rules{};
        std::array<std::array<char, 256>, NC_RD_RULES> texts{};
    };
    static_assert(NC_RD_RULES == NC_RD_TO_RULES);
    using Bank = BankOf<nc_rd_rule>;
    using ToBank = BankOf<nc_rd_to>;
    Result<Bank> read_bank(std::uint32_t bank) const;
    /// Fills the bank that is not live, and makes it the live one.
    Result<> commit_bank(const Bank& bank) const;
    /// The same for those of `to`.
    Result<ToBank> read_to_bank(std::uint32_t bank) const;
    Result<> commit_to_bank(const ToBank& bank) const;

  private:
    Datapath() = default;
    bpf::RawMap socks_, pairs_, events_, request_, stats_, rules_, texts_, conf_, recent_;
    bpf::RawMap to_, to_texts_;
    Fd sockops_, join_, leave_;
    std::vector<Fd> hooks_; // as in the table of hooks
    bpf::Link sockops_link_;
    std::vector<bpf::Link> hook_links_;
    std::uint32_t cursor_ = 0;
};

/// Hears of connections that may join and joins them. One at a time for each Datapath.
class Joiner {
  public:
    /// The datapath must outlive the joiner.
    static Result<Joiner> open(Datapath& datapath);
    /// Handles what was announced, waiting up to `timeout_ms` for it.
    Result<> poll(int timeout_ms);

  private:
    struct Announced {
        nc_rd_event event;
        std::uint64_t since_ms;
    };
    using Waiting = std::multimap<std::string, Announced>; ///< by the announced end

    explicit Joiner(Datapath& datapath, std::uint64_t netns, bool cross_netns)
        : datapath_(&datapath), netns_(netns), cross_netns_(cross_netns) {}
    Result<> on_event(const Announced& announced);
    /// Looks for the other end of an announced connection in the current network namespace.
    Result<Datapath::Answer> join(const nc_rd_event& event, const Datapath::Peer& peer,
                                  bool tentative);
    /// Tries all ends in other namespaces that were announced with the same addresses, swapped;
    /// true if that settled it. The current namespace is the event's.
    Result<bool> join_across(const nc_rd_event& event);
    /// Gives up waiting for what was announced too long ago.
    Result<> expire();
    /// A path to the namespace with this cookie, found in /proc. No handle is kept: it would keep
    /// the namespace alive.
    std::string netns_path(std::uint64_t cookie);

    Datapath* datapath_;
    std::uint64_t netns_;
    bool cross_netns_;
    std::string own_path_;            ///< to the namespace netns_
    Waiting waiting_;                 // for the other end, in another namespace
    std::vector<Announced> unplaced_; // in namespaces that are not found yet
    /// Numbers of namespaces (second) within others (first), by cookie. They never change.
    std::map<std::pair<std::uint64_t, std::uint64_t>, int> numbers_;
    std::map<std::uint64_t, std::string> paths_;
    std::uint64_t scanned_ms_ = 0;
    struct Inbox {
        std::vector<nc_rd_event> events;
    };
    std::unique_ptr<Inbox> inbox_; // its address is what the ring buffer's handler holds
    std::optional<bpf::RingBuffer> ring_;
};

struct EnableOptions {
    std::string cgroup; ///< empty: the root of cgroup v2
    bool allow_blocking = false;
    bool cross_netns = false;       ///< ends may be in different network namespaces
    std::vector<std::string> force; ///< cases of the self-test that may fail
};

struct Status {
    bool enabled = false;
    bool draining = false;
    bool allow_blocking = false;
    bool cross_netns = false;
    bool forced = false;
    bool joiner = false; ///< a joiner is running
    std::string cgroup;  ///< its name, or `#ID` if it is gone
    std::size_t rules = 0;
    std::size_t to_rules = 0;
    std::size_t joined = 0; ///< connections in the map now
    std::size_t leaving = 0;
    nc_rd_stats stats{}; ///< those of joined connections included
};

/// A connection, seen from the end that connected or accepted first in `local`.
struct Connection {
    std::string state; ///< joined, redirecting, leaving, tcp
    std::string reason;
    bool cross_netns = false; ///< the remote end is in another network namespace
    Family family = Family::ipv4;
    Address local, remote;
    std::uint16_t local_port = 0, remote_port = 0;
    struct End {
        std::uint32_t pid = 0; ///< 0: not known
        std::string name;
        std::uint64_t redirected_messages = 0, redirected_bytes = 0;
        std::uint64_t passed_messages = 0, passed_bytes = 0;
    };
    std::array<End, 2> ends; ///< [0] has the local address
};

/// What the self-test of this kernel says about how the programs have to be loaded.
struct Fitness {
    Tuning tuning;
    std::uint32_t flags = 0; ///< nc_rd_flags, for nc_rd_conf
    std::vector<std::string> notes;
};
/// Runs the self-test, unless all of it is forced. An error if this kernel would break applications.
Result<Fitness> prove_fit(const EnableOptions& options);

class Controller {
  public:
    explicit Controller(std::string root) : root_(std::move(root)) {}

    struct Enabled {
        std::string cgroup;
        std::vector<std::string> notes;
    };
    /// Proves the kernel fit, loads, attaches and pins. What fails leaves nothing behind.
    Result<Enabled> enable(const EnableOptions& options);
    /// Takes every connection out, losing no byte, and removes all that was pinned. False if it was
    /// not enabled. If readers do not read, all stays pinned and the error tells how many.
    Result<bool> disable(unsigned timeout_ms);
    Result<Status> status() const;
    Result<std::vector<Connection>> list() const;

    /// Runs the joiner until `stop()` says so or redirection is disabled. With `wait` it waits for
    /// redirection to be enabled, also again. `ready` is called once it listens.
    Result<> run(bool wait, const std::function<bool()>& stop, const std::function<void()>& ready);
    /// Whether a joiner holds its lock.
    bool joiner_runs() const;

    /// Rules in order. Those that another tool wrote have a text made of the kernel's numbers.
    struct ListedRule {
        std::uint32_t id = 0;
        std::string text;
    };
    Result<std::vector<ListedRule>> rules() const;
    /// Appends or, with `first`, puts a rule in front; returns its id. A rule in front, as any
    /// change but an appended rule, makes all joined connections leave: they were judged by others.
    Result<std::uint32_t> add_rule(const Rule& rule, bool first);
    Result<> delete_rule(std::uint32_t id);
    Result<> flush_rules();

    /// Where connect() goes instead; the first that matches decides.
    Result<std::vector<ListedRule>> to_rules() const;
    Result<std::uint32_t> add_to(const ToRule& rule);
    Result<> delete_to(std::uint32_t id);

  private:
    bpf::PinDir dir() const;
    Result<Datapath> open() const;
    std::string root_;
};

} // namespace netctl::redirect
