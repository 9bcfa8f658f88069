// SPDX-License-Identifier: GPL-2.0-only
//
// Rules of other firewalls, as their readers bring them: chains of netfilter's form, whatever they were written in.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/rule.hpp"
#include "host/config.hpp"

namespace netctl::host {

/// What a rule does with a packet.
enum class Outcome : std::uint8_t {
    none, ///< the next rule is asked
    pass,
    drop,
    reject,
    jump, ///< into another chain, and back at its end
    leap, ///< into another chain, and back to who called this one (`goto`)
    back, ///< `return`
};

/// What it means that a rule is not in the result. Bits.
enum Effect : std::uint8_t {
    effect_none = 0,
    effect_stricter = 1, ///< something is dropped that was let through
    effect_weaker = 2,   ///< something is let through that was dropped
    effect_cuts = 4,     ///< established connections, or what is routed, may be cut
};

/// Something that was not taken, or not quite as it was.
struct NotTaken {
    std::string place;  ///< `rules.v4:12`, `inet filter input handle 7`
    std::string text;   ///< as it stands there; may be empty
    std::string reason; ///< one sentence without full stop
    std::uint8_t effect = effect_none;
    bool operator==(const NotTaken&) const = default;
};

/// States of connection tracking. Bits.
enum State : std::uint8_t {
    state_new = 1 << ct_new,
    state_established = 1 << ct_established,
    state_related = 1 << ct_related,
    state_invalid = 1 << ct_invalid,
    state_untracked = 1 << ct_untracked,
    all_states = 31,
};

/// `iifname != {lo, "docker*"}`; `*` at the end stands for anything.
struct InterfaceTest {
    bool out = false;
    bool negated = false;
    std::vector<std::string> names;
};

struct ForeignRule {
    std::string place, text, comment;
    std::vector<Match> matches; ///< all of them hold; of a key there may be several
    std::vector<InterfaceTest> interfaces;
    std::uint8_t states = all_states; ///< one of them
    std::optional<Limit> limit;
    bool above = false; ///< matches what is above the limit, and not what is within
    bool log = false;
    Outcome outcome = Outcome::none;
    std::string target;               ///< of jump and leap: the chain's name in its table
    std::vector<std::string> unknown; ///< why it cannot be taken; none: it can
    std::vector<std::string> remarks; ///< what is not quite the same in netctl
};

enum class ForeignHook : std::uint8_t { none, input, output, forward, other };

struct ForeignChain {
    std::string table; ///< with its family: `inet filter`
    std::string name;
    bool ipv4 = true, ipv6 = true;       ///< whose packets it sees
    std::vector<std::string> interfaces; ///< that it is on; none: on all
    ForeignHook hook = ForeignHook::none;
    int priority = 0;
    std::string type; ///< of those with a hook: filter, nat, mangle, ...
    Outcome policy = Outcome::pass;
    std::vector<ForeignRule> rules;
};

struct Foreign {
    std::vector<ForeignChain> chains;
    std::map<std::string, SetConfig> sets; ///< by their names in netctl
    std::vector<NotTaken> not_taken;
    std::vector<std::string> notes;
    std::optional<FilterConfig> filter; ///< of xdp-filter, which has no chains

    const ForeignChain* find(std::string_view table, std::string_view name) const;
};

enum class Format : std::uint8_t { nft, iptables, ipset, ufw, firewalld, xdp_filter };

/// What the text is in, if that is certain.
std::optional<Format> guess_format(std::string_view text);
std::string_view to_string(Format format);
const std::vector<std::string>& format_names();

/// Readers. `name` is the text's name for messages. They add to what is there. Errors: it is nothing of this form at
/// all; what of it cannot be taken is listed.
Result<> read_nft(const std::string& name, std::string_view text, Foreign& foreign);
Result<> read_iptables(const std::string& name, std::string_view text, bool ufw, Foreign& foreign);
Result<> read_firewalld(const std::string& name, std::string_view text, Foreign& foreign);
Result<> read_xdp_filter(const std::string& name, std::string_view text, Foreign& foreign);
/// Puts the chains of ufw's files into what calls them, when all are read.
Result<> finish_ufw(Foreign& foreign);
Result<> read_ipset(const std::string& name, std::string_view text, Foreign& foreign);

} // namespace netctl::host
