// SPDX-License-Identifier: GPL-2.0-only
//
// Where the bases of a root's cidr sets lie in the kernel: segments in the slots of one map, and for each
// base a reference to its slots (abi/set_base.h). Both maps are pinned and shared by all programs.
#pragma once

#include <cstdint>
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
    /// Bases that a store holds a family; numbers are 1 to one below it.
    static constexpr std::uint32_t most = 1024;

    /// Makes the maps if they are not there; the root must be locked if they may be missing.
    static Result<BaseStore> open_or_make(const Root& root);
    static Result<BaseStore> open(const Root& root);
    /// A store that no other program knows of.
    static Result<BaseStore> make();

    /// Hands the maps to programs that ask sets, before they are loaded.
    Result<> share(const bpf::Object& object) const;

    /// The lines of base `number`; none if there is no base.
    Result<std::vector<nc_base_line>> read(std::uint32_t number, Family family) const;
    /// Puts lines in force in one step, for all programs; none: there is no base any more. The base before it
    /// is freed when no program can see it. A writer that is killed leaves the one or the other, and
    /// what it leaves over goes with the next write. Writers must lock the root.
    Result<> write(std::uint32_t number, Family family, std::span<const nc_base_line> lines) const;

  private:
    BaseStore(bpf::RawMap refs, bpf::RawMap segments, bpf::MappedArray mapped)
        : refs_(std::move(refs)), segments_(std::move(segments)), mapped_(std::move(mapped)) {}
    static Result<BaseStore> wrap(bpf::RawMap refs, bpf::RawMap segments);
    std::span<const nc_base_ref> refs() const;
    void set_ref(std::size_t place, nc_base_ref ref) const;
    Result<bpf::RawMap> segment(std::uint32_t slot) const;
    Result<std::uint16_t> free_slots(std::size_t count) const;
    Result<> fill(std::uint32_t first, std::span<const nc_base_line> lines) const;
    Result<> wait_for_readers() const;
    Result<> clear(nc_base_ref range) const;
    Result<> finish_journal() const;

    bpf::RawMap refs_, segments_;
    bpf::MappedArray mapped_;       ///< of refs_
    std::vector<nc_base_ref> copy_; ///< of refs_ where it cannot be mapped, nor written
};

} // namespace netctl::datapath
