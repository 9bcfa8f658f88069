// SPDX-License-Identifier: GPL-2.0-only
//
// The kernel's side of redirection: programs, maps, attachments.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <netinet/in.h>

#include "bpf/map.hpp"
#include "bpf/object.hpp"
#include "bpf/pin_dir.hpp"
#include "core/fd.hpp"
#include "core/result.hpp"
#include "datapath/root.hpp"
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
    bool mend_fionread = false; ///< see Datapath::mend_fionread()
};

/// The short name of an nc_rd_reason, as in the output and in the man page.
std::string reason_name(std::uint32_t reason);

/// Afterwards no program runs that began before.
void wait_for_programs();

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
    /// Puts the programs of the links in `dir` on `cgroup`, since the one that they were on is gone; the pins are
    /// replaced.
    static Result<> attach_anew(const bpf::PinDir& dir, const sys::Cgroup& cgroup);
    /// Takes what is attached to the cgroup off it, the pins of its links: that which announces connections,
    /// and tells that redirection is enabled, first.
    static Result<> unpin_hooks(const bpf::PinDir& dir);
    /// Whether what is pinned in `dir` has the programs for datagrams of sockets that are not connected: an older
    /// netctl had none.
    static Result<bool> can_serve_datagrams(const bpf::PinDir& dir);
    /// Has them attached to `cgroup`, or to none. What is so already stays, so this mends what was
    /// interrupted.
    static Result<> serve_datagrams(const bpf::PinDir& dir,
                                    const std::optional<sys::Cgroup>& cgroup);
    /// Has FIONREAD count redirected bytes, on kernels where it does not, by programs that correct
    /// the answer in the caller's memory. Of a datapath that was loaded. Alive while this is, unless
    /// pinned.
    Result<> mend_fionread();

    Result<nc_rd_conf> conf() const;
    Result<> set_conf(const nc_rd_conf& conf) const;

    struct Answer {
        std::uint32_t reason = 0; ///< NC_RD_REASON_NONE: joined
        std::uint32_t slot = 0;
        int error = 0; ///< errno, negative, with NC_RD_REASON_KERNEL
        /// Ends that are to be woken, by bit: bytes came to them while they were in the map, for a
        /// moment with NC_RD_REASON_BUSY. See nc_rd_request.
        std::uint32_t unheard = 0;
        std::uint64_t key = 0; ///< of the pair, where `unheard`
    };
    /// Where the other end of an announced connection is looked for.
    struct Peer {
        std::uint64_t netns = 0; ///< cookie
        int number = -1;         ///< as the current namespace knows it; -1: it is the current one
    };
    /// Joins an announced connection of the current network namespace. If `tentative`, a peer that
    /// is not found, or proves to be another's, may still be found elsewhere: it is not counted. If
    /// not `final`, NC_RD_REASON_BUSY means that it is to be tried again.
    Result<Answer> join(const nc_rd_event& event, const Peer& peer, bool tentative, bool final);
    /// Wakes an end of a pair, in the current network namespace, if it has read all that was
    /// redirected to it. Looks at every TCP socket of the namespace.
    Result<nc_rd_nudged> nudge(const nc_rd_behind& behind) const;
    /// Who asks: who holds the root's lock, or the joiner.
    enum class LeaveRequest : std::uint32_t { locked = 1, joiner = 2 };
    /// Makes the pair in a slot leave; returns its state afterwards.
    Result<std::uint32_t> leave(std::uint32_t slot, std::uint32_t reason, LeaveRequest which) const;
    /// Makes all pairs leave and waits until they have, or until the time is up. Returns how many
    /// are left: connections whose reader does not read what was redirected to it.
    Result<std::size_t> leave_all(std::uint32_t reason, unsigned timeout_ms) const;

    Result<std::vector<nc_rd_pair>> pairs() const;
    Result<nc_rd_pair> pair(std::uint32_t slot) const;
    Result<nc_rd_stats> stats() const;
    Result<nc_rd_to_stats> to_stats() const; ///< zero of one that an older netctl made
    Result<std::vector<std::pair<nc_rd_event, nc_rd_recent>>> recent() const;
    /// By nc_rd_to_target_key; none of one that an older netctl made.
    const bpf::RawMap& to_targets() const { return to_targets_; }
    /// By nc_rd_to_target_key; by the rule's id; storage of sockets. None of one that an older netctl made.
    const bpf::RawMap& to_health() const { return to_health_; }
    const bpf::RawMap& to_failed() const { return to_failed_; }
    const bpf::RawMap& to_mine() const { return to_mine_; }
    Result<bpf::RawMap> events() const { return events_.duplicate(); }

    /// One bank of rules with their texts. Entries from the first without action on are unused.
    template <class R> struct BankOf {
        std::array<R, NC_RD_RULES> rules{};
        std::array<std::array<char, 256>, NC_RD_RULES> texts{};
    };
    static_assert(NC_RD_RULES == NC_RD_TO_RULES);
    using Bank = BankOf<nc_rd_rule>;
    /// The live bank of the list of nc_rd_rule or of nc_rd_to.
    template <class R> Result<BankOf<R>> read_bank() const;
    /// Fills the bank that is not live, and makes it the live one.
    template <class R> Result<> commit_bank(const BankOf<R>& bank) const;
    /// The same with what else `conf` is to say: one write.
    template <class R> Result<> commit_bank(const BankOf<R>& bank, nc_rd_conf conf) const;

  private:
    Datapath() = default;
    bpf::RawMap socks_, pairs_, events_, request_, stats_, conf_, recent_;
    bpf::RawMap mine_; // of a loaded one only
    // None, if an older netctl made the rest.
    bpf::RawMap to_stats_, to_targets_, to_health_, to_failed_, to_mine_;
    struct List {
        bpf::RawMap rules, texts;
    };
    List rules_, to_;
    template <class R> const List& list() const {
        if constexpr (std::is_same_v<R, nc_rd_rule>)
            return rules_;
        else
            return to_;
    }
    bpf::Program join_, leave_, nudge_;
    std::vector<bpf::Program> hooks_;          // as in the table of hooks, and so are
    std::vector<bpf::Program> datagram_hooks_; // of a loaded one only
    std::vector<bpf::Link> hook_links_;
    std::vector<bpf::Link> ioctl_links_; // as in the table of them
    std::uint32_t cursor_ = 0;
};

/// The pins of redirection under a root.
bpf::PinDir redirect_dir(const datapath::Root& root);
/// Opens them; an error says that redirection is not enabled.
Result<Datapath> open_enabled(const datapath::Root& root);

/// Whether an entry is asked about datagrams of sockets that are not connected.
inline bool rewrites_datagrams(const nc_rd_to& entry) {
    return entry.used != 0 && (entry.protocol == 0 || entry.protocol == IPPROTO_UDP);
}

/// Where nc_rd_conf keeps what belongs to a list.
template <class R> struct ListConf;
template <> struct ListConf<nc_rd_rule> {
    static constexpr auto bank = &nc_rd_conf::bank;
    static constexpr auto next_id = &nc_rd_conf::next_rule_id;
};
template <> struct ListConf<nc_rd_to> {
    static constexpr auto bank = &nc_rd_conf::to_bank;
    static constexpr auto next_id = &nc_rd_conf::next_to_id;
};

/// Whether a slot holds a connection.
inline bool alive(const nc_rd_pair& pair) {
    return pair.state != NC_RD_FREE;
}

inline bool is_end(const nc_rd_rule& rule) {
    return rule.action == NC_RD_END;
}
inline bool is_end(const nc_rd_to& rule) {
    return rule.used == 0;
}

/// Whether what an end (0 or 1) sends is redirected.
inline bool is_redirected(const nc_rd_pair& pair, unsigned end) {
    return (pair.gate & (NC_RD_TURNED_0 << end)) != 0 && (pair.gate & NC_RD_CLOSED) == 0;
}

/// How many entries a bank has.
template <class R> std::size_t used(const Datapath::BankOf<R>& bank) {
    const auto end = std::find_if(bank.rules.begin(), bank.rules.end(),
                                  [](const R& rule) { return is_end(rule); });
    return static_cast<std::size_t>(end - bank.rules.begin());
}

/// How many rules they are of: a rule with lists has several, one after the other.
template <class R> std::size_t rules_in(const Datapath::BankOf<R>& bank) {
    std::size_t rules = 0;
    for (std::size_t i = 0; i < used(bank); i++)
        rules += i == 0 || bank.rules[i].id != bank.rules[i - 1].id;
    return rules;
}

} // namespace netctl::redirect
