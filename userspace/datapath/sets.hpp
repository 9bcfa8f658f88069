// SPDX-License-Identifier: GPL-2.0-only
//
// Sets: named, pinned collections of addresses, prefixes or ports that rules of every hook share.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "bpf/map.hpp"
#include "core/address.hpp"
#include "core/result.hpp"
#include "datapath/root.hpp"
#include "netctl/abi/rule.h"

namespace netctl::datapath {

enum class SetType : std::uint32_t {
    host = NC_SET_HOST,
    cidr = NC_SET_CIDR,
    port = NC_SET_PORT,
};

std::string to_string(SetType type);
/// "host", "cidr" or "port".
Result<SetType> parse_set_type(const std::string& text);

/// One element: a prefix (host sets: full length), or a port.
using SetElement = std::variant<Prefix, std::uint16_t>;

std::string to_string(const SetElement& element);
/// Reads what fits a set of this type: `192.0.2.1`, `192.0.2.0/24`, `443`, `https`.
Result<SetElement> parse_element(SetType type, const std::string& text);
/// Reads a list: one element a line, `#` starts a comment, blank lines are skipped. Sorted, without
/// duplicates. Errors begin with `source` and the line's number.
Result<std::vector<SetElement>> parse_elements(SetType type, const std::string& text,
                                               const std::string& source);

struct SetEntry {
    SetElement element;
    nc_set_value value{};
};

/// An opened set.
class Set {
  public:
    static Result<Set> open(const Root& root, const std::string& name);
    /// Makes and publishes a new set. Fails if there is one of this name.
    static Result<Set> create(const LockedRoot& root, const std::string& name, SetType type,
                              std::uint32_t max_entries);
    static Result<> destroy(const LockedRoot& root, const std::string& name);
    static std::vector<std::string> list(const Root& root);

    const std::string& name() const { return name_; }
    SetType type() const { return type_; }
    std::uint32_t max_entries() const { return max_entries_; }
    /// host and cidr sets: the map of a family. Port sets: `ports()`.
    const bpf::RawMap& addresses(Family family) const { return family == Family::ipv4 ? v4_ : v6_; }
    const bpf::RawMap& ports() const { return ports_; }

    /// Takes effect at once. All are added, or none if the set has no room for them; elements that
    /// expired make room.
    Result<> add(std::vector<SetElement> elements, nc_set_value value = {}) const;
    /// Makes these its only elements, as plain members; the set is left alone if they do not fit.
    Result<> assign(std::vector<SetElement> elements) const;
    /// False if it was not in the set.
    Result<bool> remove(const SetElement& element) const;
    /// Whether a packet with this address or port would be found in it: the longest prefix decides
    /// in cidr sets, expired elements and tombstones do not count.
    Result<bool> contains(const SetElement& element) const;
    /// All that is in its maps, sorted, with expired elements and tombstones.
    Result<std::vector<SetEntry>> entries() const;

  private:
    Set() = default;
    Error full() const;
    Result<> write(const std::vector<SetElement>& elements, nc_set_value value) const;
    /// Whether there is room for sorted elements, and for the entries that are none of them.
    bool fit(const std::vector<SetElement>& elements, const std::vector<SetEntry>& besides) const;
    Result<> forget_expired() const;
    const bpf::RawMap& map_for(const SetElement& element) const;

    std::string name_;
    SetType type_ = SetType::host;
    std::uint32_t max_entries_ = 0;
    bpf::RawMap v4_, v6_, ports_;
};

/// Seconds of CLOCK_BOOTTIME, the clock of nc_set_value::expires.
std::uint32_t boottime_seconds();

} // namespace netctl::datapath
