// SPDX-License-Identifier: GPL-2.0-only
//
// The words of the rule language, one table: which hooks have them, what they take, and what the
// user is told about them. Parser, printer, error messages, completion and docs/rules.md follow it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/rule.hpp"

namespace netctl {

/// How a key's value is written.
enum class ValueForm : std::uint8_t {
    addresses,   ///< prefixes, or a set
    ports,       ///< numbers and service names, or a set
    numbers,     ///< numbers, and the names of KeyInfo::names
    hex_numbers, ///< the same, printed as 0x…
    names,       ///< the names of KeyInfo::names and nothing else
    icmp,        ///< numbers, and names that depend on `proto`
    vlan,        ///< numbers, `any`, or `none` alone
    macs,        ///< MAC addresses
    users,       ///< numbers and user names
    groups,      ///< numbers and group names
    flags,       ///< TCP flags VALUE/MASK
    mark,        ///< VALUE/MASK
    path,        ///< one absolute path
};

/// A word that stands for a number, or for all from `low` to `high`.
struct NamedRange {
    std::string_view name;
    std::uint64_t low = 0;
    std::uint64_t high = 0;
    bool prints = true; ///< false: understood, but the canonical text has another word
};

struct KeyInfo {
    Key key{};
    std::string_view name;
    std::uint32_t part = 0; ///< enum nc_has: packets with none of them never match; 0: all have it
    std::uint8_t hooks = 0; ///< of Hook
    ValueForm form{};
    std::uint64_t max = 0; ///< of a number
    std::span<const NamedRange> names{};
    std::string_view value; ///< what is allowed, as shown to the user
    std::string_view help;  ///< one sentence without full stop
    bool in(Hook hook) const { return (hooks & static_cast<std::uint8_t>(hook)) != 0; }
    /// Whether the value may be a braced list.
    bool takes_list() const {
        return form != ValueForm::flags && form != ValueForm::mark && form != ValueForm::path;
    }
    bool takes_set() const { return form == ValueForm::addresses || form == ValueForm::ports; }
};

struct ActionInfo {
    ActionKind kind{};
    std::string_view name;
    std::uint8_t hooks = 0;
    bool final = false;
    std::string_view argument; ///< as shown to the user; empty: takes none
    std::string_view help;
    std::string_view more_in_tc{}; ///< what the argument may go on with in tc
    bool set = false;              ///< written `set NAME`
    /// As it is written in canonical texts.
    std::string spelling() const { return (set ? "set " : "") + std::string(name); }
    bool in(Hook hook) const { return (hooks & static_cast<std::uint8_t>(hook)) != 0; }
};

enum class Modifier : std::uint8_t { limit, log, comment };

struct ModifierInfo {
    Modifier modifier{};
    std::string_view name;
    std::uint8_t hooks = 0;
    std::string_view argument;
    std::string_view help;
    bool in(Hook hook) const { return (hooks & static_cast<std::uint8_t>(hook)) != 0; }
};

/// All keys in the order of Key, all actions in the order of ActionKind.
std::span<const KeyInfo> rule_keys();
std::span<const ActionInfo> rule_actions();
std::span<const ModifierInfo> rule_modifiers();

const KeyInfo& info(Key key);
const ActionInfo& info(ActionKind kind);
/// By name; null if there is none.
const KeyInfo* find_key(std::string_view name);
const ActionInfo* find_action(std::string_view name);
const ModifierInfo* find_modifier(std::string_view name);

/// Names of the keys, and spellings of the actions, that a hook has.
std::vector<std::string> key_names(Hook hook);
std::vector<std::string> action_names(Hook hook);
/// What a key takes in a hook, as shown to the user.
std::string value(const KeyInfo& key, Hook hook);
/// Whether a hook can look into sets, and has negation.
bool takes_sets(Hook hook);
/// What an action takes in a hook, as shown to the user; empty: nothing.
std::string argument(const ActionInfo& action, Hook hook);
/// Every word that a rule for `hook` may have in the place of a key: for completion.
std::vector<std::string> rule_words(Hook hook);
/// The keys, actions and modifiers of a hook, a line each, for --help.
std::string rule_help(Hook hook);
/// The words that stand for values of a key: for completion.
std::vector<std::string> value_words(Key key);

/// A type of ICMP by name; `protocol` is 1 (ICMP) or 58 (ICMPv6).
struct IcmpType {
    std::string_view name;
    std::uint8_t protocol = 0;
    std::uint8_t type = 0;
    bool prints = true;
};
/// A code by name, which has its meaning under one type only.
struct IcmpCode {
    std::string_view name;
    std::uint8_t protocol = 0;
    std::uint8_t type = 0;
    std::uint8_t code = 0;
    bool prints = true;
};
std::span<const IcmpType> icmp_types();
std::span<const IcmpCode> icmp_codes();

/// TCP flags by name, in the order of their bits in byte 13 of the header.
std::span<const NamedRange> tcp_flags();
/// Ports of common services, where the system has no list of its own.
std::span<const NamedRange> common_services();

/// Time units of `limit` in nanoseconds; units of `rate` in bits a second; of `burst` in bytes; of `ttl` in seconds.
std::span<const NamedRange> limit_units();
std::span<const NamedRange> rate_units();
std::span<const NamedRange> size_units();
std::span<const NamedRange> ttl_units();

inline constexpr std::uint8_t protocol_icmp = 1;
inline constexpr std::uint8_t protocol_tcp = 6;
inline constexpr std::uint8_t protocol_udp = 17;
inline constexpr std::uint8_t protocol_icmp6 = 58;
inline constexpr std::uint8_t protocol_dccp = 33;
inline constexpr std::uint8_t protocol_sctp = 132;
inline constexpr std::uint8_t protocol_udplite = 136;
/// Those that have ports.
inline constexpr std::uint8_t port_protocols[] = {protocol_tcp, protocol_udp, protocol_dccp,
                                                  protocol_sctp, protocol_udplite};

inline constexpr std::size_t max_comment_bytes = 256;
inline constexpr std::size_t max_set_name = 64;
/// `ttl` of what goes into a set, in seconds: a hundred years.
inline constexpr std::uint32_t max_ttl = 100U * 365 * 24 * 3600;
inline constexpr std::size_t max_device_name = 15;

} // namespace netctl
