// SPDX-License-Identifier: GPL-2.0-only
//
// Random packets, and random rules that stand a good chance of matching them. The same seed gives the
// same sequence everywhere.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/rule.hpp"
#include "netctl/abi/packet.h"
#include "testing/packet.hpp"
#include "testing/prog_run.hpp"

namespace netctl::testing {

/// A frame, and how it came about.
struct Frame {
    Bytes bytes;
    std::string story;
};

class Fuzz {
  public:
    explicit Fuzz(std::uint64_t seed) : state_(seed) {}

    /// Uniform below `bound`, which is above 0.
    std::uint64_t below(std::uint64_t bound);
    bool percent(unsigned chance) { return below(100) < chance; }
    template <class T> T pick(std::initializer_list<T> from) {
        return from.begin()[below(from.size())];
    }
    template <class T> const T& pick(const std::vector<T>& from) {
        return from[below(from.size())];
    }

    /// Damages a text in one to four places: bytes change, go, come twice, are cut off, or one of the words comes in.
    void damage(std::string& text, std::initializer_list<const char*> words);

    /// Layers of all sorts: 0-3 tags, options, extension headers, fragments; now and then a header
    /// field that is not true.
    Packet packet();
    /// A packet, whole or cut, padded, or with bytes changed; at least 14 bytes.
    Frame frame();

    /// Some sets of each type, with elements from the packets and elements that do not count.
    TestSets sets(std::span<const nc_packet> seen);
    /// Rules over every key that XDP has, most of their values taken from the packets.
    std::vector<Rule> rules(std::size_t count, std::span<const nc_packet> seen,
                            const TestSets& sets);
    /// Gives limits to some rules, which do not recover while a test runs: a packet a day, a bit a second. Some
    /// of them add to the sets.
    void limit_some(std::vector<Rule>& rules, const TestSets& sets);
    /// What a packet alone does not tell.
    nc_told told();

  private:
    Address address(Family family);
    void add_transport(Packet& packet, bool in_ipv6);
    void add_ipv4(Packet& packet);
    void add_ipv6(Packet& packet);
    Prefix prefix_near(const Address& address);
    Match match(Key key, std::span<const nc_packet> seen, const TestSets& sets);
    Match address_match(Key key, std::span<const nc_packet> seen, const TestSets& sets);
    Match number_match(Key key, std::uint64_t value, std::uint64_t limit);
    Rule rule(std::span<const nc_packet> seen, const TestSets& sets);

    std::uint64_t state_;
};

/// The address that a parsed packet has as `key`, if any.
std::optional<Address> address_of(const nc_packet& packet, Key key);

/// Puts ranges into the form that Match::ranges has: sorted, disjoint, not adjacent.
std::vector<Range> normalized(std::vector<Range> ranges);

} // namespace netctl::testing
