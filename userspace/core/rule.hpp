// SPDX-License-Identifier: GPL-2.0-only
//
// The rule language's abstract syntax: what a rule means, with no trace of how it was spelled.
// docs/rules.md is the user's view of it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/address.hpp"
#include "core/result.hpp"
#include "netctl/abi/keys.h"

namespace netctl {

/// Where a rule runs; keys and actions say which of them they have.
enum class Hook : std::uint8_t {
    xdp = 1,
    tc = 2,
    policy = 4,
    redirect = 8, ///< which connections may be redirected
    to = 16,      ///< which go to another address
};
inline constexpr Hook all_hooks[] = {Hook::xdp, Hook::tc, Hook::policy, Hook::redirect, Hook::to};

/// Rules about packets; the others are about connections.
constexpr bool is_of_packets(Hook hook) {
    return hook == Hook::xdp || hook == Hook::tc;
}

/// Every key of the language, from abi/keys.h: first those of packets, then those that only
/// connections have. The order is that of canonical texts.
#define NETCTL_KEY(NAME, name, ...) name,
enum class Key : std::uint8_t { NC_PACKET_KEYS(NETCTL_KEY) NC_CONNECTION_KEYS(NETCTL_KEY) };
#undef NETCTL_KEY

/// Packets have them; the others belong to connections.
constexpr bool is_of_packets(Key key) {
    return static_cast<unsigned>(key) < NC_FIELDS;
}

/// An inclusive range of numbers, host byte order. MAC addresses are 48-bit numbers,
/// most significant byte first.
struct Range {
    std::uint64_t low = 0;
    std::uint64_t high = 0;
    auto operator<=>(const Range&) const = default;
};

/// `value/mask`: matches when (x & mask) == value. For `flags`, `mark` and `ct-mark`.
struct Masked {
    std::uint32_t value = 0;
    std::uint32_t mask = 0;
    auto operator<=>(const Masked&) const = default;
};

/// One `KEY VALUE` of a rule. Exactly one of the value forms below is used, by key:
///   prefixes or set   src dst
///   ranges or set     sport dport (set); every numeric key (ranges)
///   masked            flags mark ct-mark
///   path              cgroup exe
/// `vlan none` is the empty `ranges` with `absent`; `vlan any` is 0-4095; `frag first` is
/// first and tiny, `frag any` is all but none.
/// A negated match holds only where the packet has the field at all (for src and dst: an address of
/// a family that the value names; of either family for a set).
struct Match {
    Key key{};
    bool negated = false;
    bool absent = false;          ///< `vlan none`: the packet has no tag
    std::vector<Prefix> prefixes; ///< any of them; sorted, none within another
    std::vector<Range> ranges;    ///< any of them; sorted, disjoint, not adjacent
    std::optional<Masked> masked;
    std::string set; ///< name without the `@`
    std::string path;
    bool operator==(const Match&) const = default;
};

/// Values of `frag` in Match::ranges and in nc_packet::frag.
enum Frag : std::uint8_t { frag_none = 0, frag_first = 1, frag_tiny = 2, frag_later = 3 };

/// Values of `socket` in Match::ranges and in nc_packet::socket.
enum Socket : std::uint8_t {
    socket_none = 0,
    socket_listening = 1,
    socket_established = 2,
    socket_related = 3,
};

/// Values of `ct` in Match::ranges and in nc_packet::ct.
enum Ct : std::uint8_t {
    ct_new = 0,
    ct_established = 1,
    ct_related = 2,
    ct_invalid = 3,
    ct_untracked = 4,
};

enum class ActionKind : std::uint8_t {
    // final
    pass,
    drop,
    reject,
    tx,
    redirect,
    syncookie,
    next,
    allow,
    deny,
    audit,
    target,
    // not final: further actions may follow in the same rule (tc)
    mark,
    priority,
    dscp,
    mirror,
    rate,
};

/// Where connections go instead, one of several.
struct Target {
    Address address;
    std::uint16_t port = 0;   ///< 1 and more
    std::uint16_t weight = 1; ///< 1 and more: how often it is chosen
    bool operator==(const Target&) const = default;
};

/// How targets are asked whether they are up, and what comes of a connection when none is.
struct Health {
    std::string path;          ///< of a GET by HTTP; empty: that TCP connects is the answer
    std::uint32_t every_s = 2; ///< seconds from one question to the next; 1 and more
    bool open = false;         ///< all down: goes where it asked for; else it is refused
    bool operator==(const Health&) const = default;
};

struct Action {
    ActionKind kind{};
    std::string device;           ///< redirect, mirror: interface name
    std::vector<Target> targets;  ///< target: at least one, all different and of one family
    bool by_source = false;       ///< target: the same for the same source; else in turn
    std::optional<Health> health; ///< target: not asked, and taken to be up, without
    bool to_ingress = false;      ///< redirect: into the device's ingress instead of egress
    /// mark value, priority (MAJOR << 16 | MINOR), DSCP, rate in bits per second
    std::uint64_t number = 0;
    std::uint32_t mask = 0;  ///< mark: which bits are written
    std::uint64_t burst = 0; ///< rate: bytes; 0 if not given
    bool operator==(const Action&) const = default;
};

/// What a limit keeps accounts of: `per src/64`, `per dst`, `per src,dport`.
struct Accounts {
    enum class Of : std::uint8_t { rule, src, dst };
    Of of = Of::rule;            ///< rule: one account, and nothing else counts here
    std::uint8_t ipv4_bits = 32; ///< leading bits of an address that have one account
    std::uint8_t ipv6_bits = 128;
    bool dport = false; ///< and one for each destination port
    bool operator==(const Accounts&) const = default;
};

/// `over add @SET ttl T`: whose account is over the limit goes into a set.
struct OverAdd {
    std::string set;       ///< name without the `@`
    std::uint32_t ttl = 0; ///< seconds; 0: for ever
    bool operator==(const OverAdd&) const = default;
};

/// `limit N/UNIT|RATE [burst B] [per …] [over …]`: what a rule matches is policed. Packets within the rate get
/// the rule's action, those above it are dropped (in policy: denied) or answered, and counted as over the limit.
struct Limit {
    std::uint64_t count = 0;     ///< packets (connections in policy), or bits, ...
    std::uint64_t period_ns = 0; ///< ... in this time
    std::uint64_t burst = 0;     ///< how many packets, or bytes, may come at once; at least 1
    bool bits = false;
    Accounts per{};
    std::optional<OverAdd> over{}; ///< only with `per`
    bool over_syncookie = false;   ///< `over syncookie` (xdp): SYNs are answered with a cookie
    bool operator==(const Limit&) const = default;
};

struct Rule {
    std::uint32_t id = 0;       ///< stable name of the rule at its point; 0: not assigned yet
    std::vector<Match> matches; ///< at most one a key, in the order of Key
    /// At least one, at most one of a kind. The last is final, and it alone (the parser adds the
    /// `pass` that a rule of `mark 7` implies); the others are in the order of ActionKind.
    std::vector<Action> actions;
    std::optional<Limit> limit;
    bool log = false;
    std::string comment;
    /// Same meaning, whatever the id.
    bool same_text(const Rule& other) const {
        return matches == other.matches && actions == other.actions && limit == other.limit &&
               log == other.log && comment == other.comment;
    }
    const Match* find(Key key) const;
};

/// Parses one rule for `hook`. The error shows the text with a caret under the place, says what was
/// found there and what is allowed. `notes` gets what is right, but may not be what was meant.
Result<Rule> parse_rule(std::string_view text, Hook hook,
                        std::vector<std::string>* notes = nullptr);

/// Parses a file of rules: one a line, `#` starts a comment, blank lines are skipped. Errors name
/// the line. `source` is the file's name for messages.
Result<std::vector<Rule>> parse_rules(std::string_view text, Hook hook, std::string_view source);

/// The rule that the words of a command line spell. A shell has taken the quotes away from the
/// argument of `comment`, `cgroup` and `exe`; here it gets them back where it needs them. A word
/// may as well be a whole rule.
std::string rule_text(const std::vector<std::string>& words);

/// The canonical text; it parses to an equal rule. The id is not part of it.
std::string to_string(const Rule& rule);

/// Names of the sets that it asks, and of the one that it writes.
std::vector<std::string> sets_of(const Rule& rule);

/// `127.0.0.1:8080` or `[::1]:8080`.
std::string to_string(const Target& target);
std::string_view to_string(Key key);
std::string_view to_string(Hook hook);

} // namespace netctl
