// SPDX-License-Identifier: GPL-2.0-only
//
// The kernel's set lookups with sets of one's own, for the prog suite and for scripts/bench.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "bpf/map.hpp"
#include "core/address.hpp"
#include "netctl/abi/bench.h"
#include "netctl/abi/packet.h"
#include "netctl/abi/rule.h"

namespace netctl::testing {

/// One set that source addresses are asked about.
struct SetInput {
    nc_set_type type = NC_SET_CIDR;
    std::vector<Prefix> base{}; ///< cidr: what is folded; sorted, both families
    std::vector<std::pair<Prefix, nc_set_value>> live{};
};

/// A packet with this source and nothing else.
nc_packet packet_from(const Address& source);

class SetRun {
  public:
    /// `floor` fills the maps that Stage::hash (full-length prefixes) and Stage::trie look up.
    static Result<SetRun> load(const std::vector<SetInput>& sets,
                               std::span<const Prefix> floor = {});
    SetRun(SetRun&& other) noexcept;
    SetRun& operator=(SetRun&&) = delete;
    ~SetRun();

    /// For each packet, bit i = member of set i.
    Result<std::vector<std::uint64_t>> ask(std::span<const nc_packet> packets) const;
    /// Puts another base in force, as a fold does it; empty: none.
    Result<> set_base(std::size_t set, std::span<const Prefix> base) const;
    const bpf::RawMap& live(std::size_t set, Family family) const;

    enum class Stage : std::uint8_t { parse, set, hash, trie };
    void set_headers(std::span<const nc_bench_header> headers) const;
    /// Nanoseconds a packet.
    Result<std::uint32_t> cost(Stage stage, std::span<const std::uint8_t> frame,
                               std::uint32_t repeat) const;

  private:
    struct State;
    explicit SetRun(std::unique_ptr<State> state);
    std::unique_ptr<State> state_;
};

} // namespace netctl::testing
