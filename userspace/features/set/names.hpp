// SPDX-License-Identifier: GPL-2.0-only
//
// Sets of type name: names of DNS, and the addresses that answers to this host bring for them
// (bpf/names/name_reader.bpf.c).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "bpf/map.hpp"
#include "bpf/pin_dir.hpp"
#include "core/address.hpp"
#include "core/result.hpp"
#include "datapath/root.hpp"
#include "datapath/sets.hpp"
#include "netctl/abi/names.h"

namespace netctl::set {

/// A name that a set wants, or all names below one.
struct WantedName {
    nc_name name{};
    bool below = false;

    /// `example.com`, or `*.example.com`.
    std::string to_string() const;
    bool operator==(const WantedName& other) const;
    /// Whether it is what was asked for.
    bool covers(const nc_name& asked) const;
};

/// Reads a name, in any case, with or without a dot at its end. Names of other scripts are refused: they are given as
/// DNS has them (xn--…), since there is more than one way to get there.
Result<WantedName> parse_wanted_name(std::string_view text);

/// How a set of names learns, when it is made.
struct NameRequest {
    std::string netns;                ///< empty: the one that we run in
    std::uint32_t grace = 60;         ///< seconds
    std::vector<Address> resolvers{}; ///< empty: those of this host
};

struct Resolver {
    Address address;
    bool local = false; ///< an address of this host's own
};

/// Where an address of a set comes from.
struct LearntAddress {
    Address address;
    nc_name asked{};
    std::uint32_t since = 0; ///< second of CLOCK_BOOTTIME in which it was first told
    std::uint32_t told = 0;  ///< and last
};

struct NameStatus {
    nc_name_settings settings{};
    std::vector<WantedName> names{};
    std::vector<Resolver> resolvers{};
    nc_name_stats stats{};
    std::string trouble{}; ///< why nothing is learnt; empty if it is
};

/// What became of asking for a name.
struct Resolved {
    WantedName name;
    std::vector<std::string> trouble{}; ///< by question, `A: no answer from 192.0.2.53`
};

/// As the dots have it; bytes that no host's name has are \DDD.
std::string to_string(const nc_name& name);

/// The resolvers that this host asks: of resolv.conf, and those that systemd-resolved asks.
Result<std::vector<Address>> resolvers_of_host();

/// What a set of names has besides the maps of a set of hosts. What changes it needs the root's lock.
class Names {
  public:
    /// Loads and attaches the programs, and pins them and their maps into the set's directory.
    static Result<> start(const bpf::PinDir& dir, const bpf::RawMap& v4, const bpf::RawMap& v6,
                          std::uint32_t max_entries, const NameRequest& request);
    static Result<Names> open(const datapath::Root& root, const std::string& set);

    Result<std::vector<WantedName>> names() const;
    /// All or none; what is there already is no error.
    Result<> add(const std::vector<WantedName>& names, std::vector<std::string>& notes) const;
    /// With the addresses that no other name of the set was asked for. All or none.
    Result<> remove(const std::vector<WantedName>& names, datapath::Set::Missing missing,
                    const datapath::Set& set, std::vector<std::string>& notes) const;
    Result<std::vector<LearntAddress>> learnt() const;
    Result<NameStatus> status() const;
    /// Believes these from now on, and no others.
    Result<> set_resolvers(const std::vector<Address>& resolvers,
                           std::vector<std::string>& notes) const;
    /// Asks the first resolver that answers for each name; what it says is learnt as any other answer.
    Result<std::vector<Resolved>> resolve(const std::vector<WantedName>& names) const;

  private:
    explicit Names(const bpf::PinDir& dir) : dir_(dir) {}
    Result<std::vector<Resolver>> resolvers() const;
    Result<nc_name_settings> settings() const;
    /// Why nothing is learnt; empty if it is.
    Result<std::string> trouble(const nc_name_settings& settings) const;

    bpf::PinDir dir_;
    bpf::Map<nc_name_key, nc_name> names_;
    bpf::Map<nc_resolver, std::uint32_t> resolvers_;
    bpf::Map<std::uint32_t, nc_name_settings> settings_;
    bpf::Map<nc_name_address, nc_learnt> learnt_;
    bpf::RawMap stats_;
};

} // namespace netctl::set
