// SPDX-License-Identifier: GPL-2.0-only
//
// What of a root's sets is in force, a word for each, and where the bases of its cidr sets lie in the kernel:
// segments in the slots of one map (abi/set_base.h). Both maps are pinned and shared by all programs.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "bpf/map.hpp"
#include "bpf/object.hpp"
#include "core/address.hpp"
#include "core/result.hpp"
#include "datapath/root.hpp"
#include "netctl/abi/set_base.h"

namespace netctl::datapath {

class BaseStore {
  public:
    /// Sets that a store holds; their numbers are 1 to one below it.
    static constexpr std::uint32_t most = 4096;

    /// Makes the maps if they are not there; the root must be locked if they may be missing.
    static Result<BaseStore> open_or_make(const Root& root);
    static Result<BaseStore> open(const Root& root);
    /// A store that no other program knows of.
    static Result<BaseStore> make();

    /// Hands the maps to programs that ask sets, before they are loaded.
    Result<> share(const bpf::Object& object) const;

    /// The lines of a base of set `number`; none if there is no base.
    Result<std::vector<nc_base_line>> read(std::uint32_t number, Family family) const;
    /// How often the set has turned, modulo 2^16 (nc_set_flags).
    std::uint16_t turns(std::uint32_t number) const;

    /// Lines for the bases of IPv4 and IPv6. Nothing: as it is; no lines: there is no base any more.
    using NewBases = std::array<std::optional<std::span<const nc_base_line>>, 2>;
    /// A set's next turn.
    struct Turn {
        std::uint32_t number = 0;
        std::uint64_t word = 0;
    };
    /// Makes bases aside. Nothing is in force yet; an error leaves nothing behind but what the next
    /// writer frees. Writers must lock the root.
    Result<Turn> prepare(std::uint32_t number, const NewBases& bases) const;
    /// The commit: puts the bases in force in one step, for all programs, together with what the live
    /// elements of the set have been told to become at its next turn.
    void put_in_force(const Turn& turn) const;
    /// The turns with which two sets get each other's bases. Nothing is in force yet, and nothing made.
    Result<std::array<Turn, 2>> prepare_swap(std::uint32_t one, std::uint32_t other) const;
    /// The commit of such turns, in one step: both, or with an error neither.
    Result<> put_in_force(const std::array<Turn, 2>& turns) const;
    /// Returns when no program looks at what was in force before, and has freed it. Also takes back a
    /// turn that was prepared and not put in force, or whose writer was killed.
    Result<> settle() const;
    /// Whether a set has a base of either family.
    bool has_base(std::uint32_t number) const;
    /// Settles what a writer that was killed has left, if there is such.
    Result<> recover() const;

  private:
    /// Slots side by side.
    struct Range {
        std::uint16_t first = 0, segments = 0;
    };

    BaseStore(bpf::RawMap refs, bpf::RawMap segments, bpf::MappedArray mapped)
        : refs_(std::move(refs)), segments_(std::move(segments)), mapped_(std::move(mapped)) {}
    static Result<BaseStore> wrap(bpf::RawMap refs, bpf::RawMap segments);
    std::uint64_t word(std::size_t place) const;
    void set_word(std::size_t place, std::uint64_t word) const;
    Range journal_entry(std::size_t entry) const;
    void set_journal(std::size_t entry, Range range) const;
    std::uint16_t extent(std::uint16_t first) const;
    void set_extent(std::uint16_t first, std::uint16_t segments) const;
    Range range_of(std::uint32_t number, Family family) const;
    Result<bpf::RawMap> segment(std::uint32_t slot) const;
    Result<std::uint16_t> free_slots(std::size_t count) const;
    Result<> fill(std::uint32_t first, std::span<const nc_base_line> lines) const;
    Result<> wait_for_readers() const;
    Result<> clear(Range range) const;
    Result<> finish_journal() const;

    bpf::RawMap refs_, segments_;
    bpf::MappedArray mapped_;         ///< of refs_
    std::vector<std::uint64_t> copy_; ///< of refs_ where it cannot be mapped, nor written
};

} // namespace netctl::datapath
