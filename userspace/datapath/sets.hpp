// SPDX-License-Identifier: GPL-2.0-only
//
// Sets: named, pinned collections of addresses, prefixes or ports that rules of every hook share.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "bpf/map.hpp"
#include "bpf/object.hpp"
#include "bpf/pin_dir.hpp"
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
    name = NC_SET_NAME, ///< addresses, as in `host`, which answers of DNS bring
};

std::string to_string(SetType type);
/// "host", "cidr", "port" or "name".
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
    /// What else belongs into a set's directory before it is published; its maps of addresses are there.
    using Furnish = std::function<Result<>(const bpf::PinDir& dir)>;
    /// Makes and publishes a new set. Fails if there is one of this name.
    /// With a group as give_to_group() does it.
    static Result<> create(const LockedRoot& root, const std::string& name, SetType type,
                           std::uint32_t max_entries,
                           std::optional<std::uint32_t> group = std::nullopt,
                           const Furnish& furnish = nullptr);
    /// Whatever stands in its maps.
    static Result<> destroy(const LockedRoot& root, const std::string& name,
                            std::vector<std::string>& notes);
    /// Lets the members of a group write its elements, and nobody else but root: its element maps belong
    /// to the group then. The directories on the way, from the root down, can be passed through, not listed.
    static Result<> give_to_group(const LockedRoot& root, const std::string& name,
                                  std::uint32_t group);
    static std::vector<std::string> list(const Root& root);

    const std::string& name() const { return name_; }
    SetType type() const { return type_; }
    std::uint32_t max_entries() const { return max_entries_; }
    /// host and cidr sets: the map of a family. Port sets: `ports()`.
    const bpf::RawMap& addresses(Family family) const { return family == Family::ipv4 ? v4_ : v6_; }
    const bpf::RawMap& ports() const { return ports_; }

    /// Its number in the root's BaseStore.
    std::uint16_t number() const { return number_; }

    // What changes it takes effect at once and as a whole, in both families, or not at all: an error, a
    // writer that is killed, or a lack of room leave the set as it was. What could not be tidied up behind
    // the change is told in `notes`. The root must be locked.

    /// Elements that expired make room. Of a cidr set many are folded. One exception to the whole: a kill
    /// may leave some of the elements that are there already, and have another time to live now, with the
    /// new time, and others with the old one. What is there for good, member or exception, stays as it is
    /// where it is added for a time; returns these elements, sorted.
    Result<std::vector<SetElement>> add(const std::vector<SetElement>& elements, nc_set_value value,
                                        std::vector<std::string>& notes) const;
    /// Each with its own value; the first of equal elements counts.
    Result<std::vector<SetElement>> add(std::vector<SetEntry> entries,
                                        std::vector<std::string>& notes) const;
    /// Makes these its only elements.
    Result<> assign(std::vector<SetEntry> entries, std::vector<std::string>& notes) const;
    /// What to do about elements that are not in the set.
    enum class Missing : std::uint8_t { fail, ignore };
    /// Takes all of them out, or fails and names those that are not in it.
    Result<> remove(std::vector<SetElement> elements, Missing missing,
                    std::vector<std::string>& notes) const;
    /// Moves elements of a cidr set from the live maps into a base: those that netctl wrote, or with
    /// `all` also those of other tools; exceptions and elements that expire stay. No packet gets
    /// another verdict.
    Result<> fold(bool all, std::vector<std::string>& notes) const;
    /// Gives two sets of one type each other's elements, in one step that is both sets'. Sizes, groups and
    /// names stay; fails if either has no room for what the other holds. As with add(), elements that are live in
    /// both get each other's times to live and exceptions one by one before the step.
    static Result<> swap(const Set& one, const Set& other, std::vector<std::string>& notes);
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
    /// What a live element is to become; nothing: it goes.
    struct Change {
        SetElement element;
        std::optional<nc_set_value> value;
    };

    Error full() const;
    /// As add() does it, whatever is there.
    Result<> put(std::vector<SetEntry> added, std::vector<std::string>& notes) const;
    /// Whether there is room for sorted elements, and for the entries that are none of them.
    bool fit(const std::vector<SetElement>& elements, const std::vector<SetEntry>& besides) const;
    Result<> forget_expired() const;
    /// Entries of the fuller live map.
    Result<std::uint32_t> count() const;
    /// Whether there is room for so many more, by netctl's own count if that says so: cheaper than to look.
    Result<bool> surely_fit(std::size_t more) const;
    const bpf::RawMap& map_for(const SetElement& element) const;
    std::vector<std::pair<const bpf::RawMap*, Family>> live_maps() const;
    /// What the live maps have, sorted; and as it is in force.
    Result<std::vector<SetEntry>> stored_entries() const;
    Result<std::vector<SetEntry>> live_entries() const;
    Result<std::optional<nc_set_value>> stored_value(const SetElement& element) const;
    Result<std::optional<nc_set_value>> live_value(const SetElement& element) const;
    Result<Size> size_of(const std::vector<SetEntry>& live) const;
    Result<bool> in_base(const SetElement& element) const;
    /// Whether it is a member, or an exception, without a time to live.
    Result<bool> is_permanent(const SetElement& element) const;
    /// Takes out of `added` what would give something permanent a time to live.
    Result<std::vector<SetElement>> spare_permanent(std::vector<SetEntry>& added) const;
    Result<std::span<const nc_base_line>> base_lines(Family family) const;
    /// Makes all changes in one step.
    Result<> change(const std::vector<Change>& changes, const BaseStore::NewBases& bases,
                    std::vector<std::string>& notes) const;
    Result<> write_one(const Change& change) const;
    /// What makes the live maps those of another set.
    static std::vector<Change> differences(const std::vector<SetEntry>& from,
                                           const std::vector<SetEntry>& to);
    /// What comes before mark(): tells the next writer of a turn that is being made.
    Result<> announce(nc_set_info before) const;
    /// Behind a turn that was taken, or given up: elements that turn are what they are by now.
    Result<> resolve_all(std::vector<SetEntry>& marked) const;
    /// Gives a turn up.
    Result<> take_back(std::vector<SetEntry>& marked, const nc_set_info& before) const;
    /// Has the elements turn with the set's next turn; those written are put into `marked`.
    Result<> mark(const std::vector<Change>& changes, std::vector<SetEntry>& marked) const;
    /// Makes elements that turn what they are by now.
    Result<> resolve(const SetElement& element) const;
    /// Does the rest for a writer that was killed.
    Result<> recover() const;
    Result<nc_set_info> info() const;
    Result<> set_info(const nc_set_info& info) const;
    enum class Fold : std::uint8_t { ours, all, replace };
    /// `beside` comes with the same step, and stays in the live maps.
    Result<> fold_with(const std::vector<SetElement>& added, const std::vector<SetEntry>& beside,
                       Fold which, std::vector<std::string>& notes) const;
    /// Elements of a command, sorted: those that are members for good, and those with a value of their own.
    struct Split {
        std::vector<SetElement> all, plain;
        std::vector<SetEntry> others;
    };
    static Split split(std::vector<SetEntry> entries);
    nc_set_value plain_value() const;
    /// Counts elements that netctl wrote into the live maps, and folds when they are many.
    void written(std::size_t count, std::vector<std::string>& notes) const;

    std::string name_;
    SetType type_ = SetType::host;
    std::uint32_t max_entries_ = 0;
    std::uint16_t number_ = 0;
    bpf::RawMap v4_, v6_, ports_;
    bpf::RawMap info_;
    mutable std::optional<std::vector<SetEntry>> stored_; ///< cidr sets, once it was asked for
    std::optional<BaseStore> bases_;                      ///< there is one in each opened set
    /// Its lines, IPv4 and IPv6, once they were asked for.
    mutable std::array<std::optional<std::vector<nc_base_line>>, 2> base_{};
};

/// Seconds of CLOCK_BOOTTIME, the clock of nc_set_value::expires.
std::uint32_t boottime_seconds();

} // namespace netctl::datapath
