// SPDX-License-Identifier: GPL-2.0-only
//
// Sets: named, pinned collections of addresses, prefixes or ports that rules of every hook share.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "bpf/map.hpp"
#include "bpf/object.hpp"
#include "core/address.hpp"
#include "core/result.hpp"
#include "datapath/base_store.hpp"
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

    /// cidr sets: number of its bases in the root's BaseStore.
    std::uint16_t base_index() const { return base_index_; }

    /// Takes effect at once. All are added, or none if the set has no room for them; elements that
    /// expired make room. Of a cidr set many are folded; the root must be locked then.
    Result<> add(std::vector<SetElement> elements, nc_set_value value = {}) const;
    /// Makes these its only elements, as plain members; the set is left alone if they do not fit.
    Result<> assign(std::vector<SetElement> elements) const;
    /// False if it was not in the set.
    Result<bool> remove(const SetElement& element) const;
    /// Moves elements of a cidr set from the live maps into a base: those that netctl wrote, or with
    /// `all` also those of other tools; exceptions and elements that expire stay. No packet gets
    /// another verdict. The root must be locked.
    Result<> fold(bool all) const;
    /// Whether a packet with this address or port would be found in it: the longest prefix decides
    /// in cidr sets, expired elements and tombstones do not count.
    Result<bool> contains(const SetElement& element) const;
    /// Base and live maps as one, sorted, with exceptions, and expired elements that are not folded.
    Result<std::vector<SetEntry>> entries() const;

    struct Size {
        std::size_t elements = 0; ///< as many as `entries()` gives
        std::size_t base = 0;     ///< of them in the base, or taken out of it
        std::size_t live = 0;     ///< in the live maps
        std::size_t bytes = 0;    ///< of memory that its elements take, about
    };
    Result<Size> size() const;

  private:
    Set() = default;
    Error full() const;
    Result<> write(const std::vector<SetElement>& elements, nc_set_value value) const;
    /// Whether there is room for sorted elements, and for the entries that are none of them.
    bool fit(const std::vector<SetElement>& elements, const std::vector<SetEntry>& besides) const;
    Result<> forget_expired() const;
    const bpf::RawMap& map_for(const SetElement& element) const;
    Result<std::vector<SetEntry>> live_entries() const;
    Result<Size> size_of(const std::vector<SetEntry>& live) const;
    Result<bool> in_base(const SetElement& element) const;
    Result<std::span<const nc_base_line>> base_lines(Family family) const;
    Result<> put_base(Family family, const std::vector<Prefix>& prefixes) const;
    enum class Fold : std::uint8_t { ours, all, replace };
    Result<> fold_with(const std::vector<SetElement>& added, Fold which) const;
    /// Counts elements that netctl wrote into the live maps, and folds when they are many.
    Result<> written(std::size_t count) const;

    std::string name_;
    SetType type_ = SetType::host;
    std::uint32_t max_entries_ = 0;
    std::uint16_t base_index_ = 0;
    bpf::RawMap v4_, v6_, ports_;
    bpf::RawMap info_;
    std::optional<BaseStore> bases_; ///< cidr sets
    /// Its lines, IPv4 and IPv6, once they were asked for.
    mutable std::array<std::optional<std::vector<nc_base_line>>, 2> base_{};
};

/// Seconds of CLOCK_BOOTTIME, the clock of nc_set_value::expires.
std::uint32_t boottime_seconds();

} // namespace netctl::datapath
