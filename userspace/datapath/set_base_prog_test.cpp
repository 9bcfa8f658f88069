// SPDX-License-Identifier: GPL-2.0-only
//
// The kernel's lookup in base and live map against a naive list.
#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <random>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "testing/set_run.hpp"

namespace netctl::testing {

namespace {

constexpr nc_set_value member{}, absent{0, NC_SET_ABSENT}, past{1, 0}, future{0xffffffff, 0},
    past_absent{1, NC_SET_ABSENT};

/// Elements that turn: each set has turned once when it is asked.
constexpr std::uint32_t now_turn = 1 << NC_SET_TURN_SHIFT, next_turn = 2 << NC_SET_TURN_SHIFT;
constexpr std::array turning{
    nc_set_value{0, NC_SET_COMES | now_turn},
    nc_set_value{0, NC_SET_COMES | next_turn},
    nc_set_value{0, NC_SET_GOES | now_turn},
    nc_set_value{0, NC_SET_GOES | next_turn},
    nc_set_value{0, NC_SET_EXPIRES | now_turn},
    nc_set_value{0, NC_SET_EXPIRES | next_turn},
    nc_set_value{1, NC_SET_STAYS | now_turn},
    nc_set_value{1, NC_SET_STAYS | next_turn},
    nc_set_value{0, NC_SET_STAYS | NC_SET_ABSENT | now_turn},
    nc_set_value{0, NC_SET_STAYS | NC_SET_ABSENT | next_turn},
};
/// What each of them is by then; nothing: there is no such element.
constexpr std::array<std::optional<nc_set_value>, turning.size()> turned{
    member, std::nullopt, std::nullopt, member, past, member, member, past, member, absent};

/// A live element as it counts.
std::optional<nc_set_value> in_force(const nc_set_value& value) {
    for (std::size_t i = 0; i < turning.size(); i++)
        if (turning[i].flags == value.flags && turning[i].expires == value.expires)
            return turned[i];
    return value;
}

/// What docs/pinned-maps.md says: the live map's element goes before the base's of the same prefix;
/// what expired is no element; the longest one that covers the address decides.
bool reference(const SetInput& set, const Address& address) {
    std::map<std::uint8_t, nc_set_value> covering; // by length
    Prefix wider{address, static_cast<std::uint8_t>(address.bits())};
    for (;; wider.length--) {
        if (std::binary_search(set.base.begin(), set.base.end(), wider))
            covering[wider.length] = member;
        if (wider.length == 0)
            break;
        wider.address.bytes[(wider.length - 1) / 8] &=
            static_cast<std::uint8_t>(~(0x80 >> (wider.length - 1) % 8));
    }
    for (const auto& [prefix, value] : set.live)
        if (const auto now = in_force(value); now && prefix.contains(address))
            covering[prefix.length] = *now;
    for (auto at = covering.rbegin(); at != covering.rend(); ++at)
        if (at->second.expires != past.expires)
            return at->second.flags == 0;
    return false;
}

/// Sets whose prefixes nest and touch, and addresses at their edges.
class SetFuzz {
  public:
    explicit SetFuzz(std::uint64_t seed) : random_(seed) {}

    std::uint64_t below(std::uint64_t bound) { return random_() % bound; }

    /// Of any length, but for the shortest ones.
    Prefix net(Family family, std::uint8_t shortest) {
        Prefix prefix;
        prefix.address.family = family;
        prefix.length = static_cast<std::uint8_t>(
            shortest + below(prefix.address.bits() - shortest + 1U) *
                           below(prefix.address.bits() + 1U) / prefix.address.bits());
        for (unsigned i = 0; i < prefix.length; i++)
            if (below(2))
                prefix.address.bytes[i / 8] |= static_cast<std::uint8_t>(0x80 >> i % 8);
        return prefix;
    }

    Prefix net(Family family) {
        Prefix prefix;
        prefix.address = address(family);
        const unsigned bits = prefix.address.bits();
        switch (below(4)) {
        case 0: prefix.length = static_cast<std::uint8_t>(below(bits + 1)); break;
        case 1: prefix.length = static_cast<std::uint8_t>(bits); break;
        case 2: prefix.length = static_cast<std::uint8_t>(bits / 2 + below(bits / 2 + 1)); break;
        default: prefix.length = static_cast<std::uint8_t>(family == Family::ipv4 ? 24 : 64); break;
        }
        for (unsigned i = prefix.length; i < bits; i++)
            prefix.address.bytes[i / 8] &= static_cast<std::uint8_t>(~(0x80 >> i % 8));
        return prefix;
    }

    /// Mostly near one that there was before, so that prefixes share bits.
    Address address(Family family) {
        auto& seen = family == Family::ipv4 ? seen4_ : seen6_;
        Address made;
        made.family = family;
        const unsigned bits = made.bits();
        if (seen.empty() || below(5) == 0) {
            for (unsigned i = 0; i < bits / 8; i++)
                made.bytes[i] =
                    static_cast<std::uint8_t>(below(4) == 0 ? below(2) * 255 : random_());
        } else {
            made = seen[below(seen.size())];
            // From some bit on it is another one.
            const unsigned from = static_cast<unsigned>(below(bits));
            made.bytes[from / 8] ^= static_cast<std::uint8_t>(0x80 >> from % 8);
            if (below(2) == 0)
                for (unsigned i = from / 8 + 1; i < bits / 8; i++)
                    made.bytes[i] = static_cast<std::uint8_t>(random_());
        }
        if (seen.size() < 4096)
            seen.push_back(made);
        return made;
    }

    SetInput set(std::size_t base, std::size_t live) {
        SetInput made;
        for (std::size_t i = 0; i < base; i++)
            made.base.push_back(net(family()));
        std::sort(made.base.begin(), made.base.end());
        made.base.erase(std::unique(made.base.begin(), made.base.end()), made.base.end());
        std::map<Prefix, nc_set_value> values;
        for (std::size_t i = 0; i < live; i++) {
            const bool of_base = !made.base.empty() && below(2) == 0;
            const Prefix prefix = of_base ? made.base[below(made.base.size())] : net(family());
            const nc_set_value each[] = {member, absent, past, future, past_absent};
            values[prefix] =
                below(3) == 0 ? turning[below(turning.size())] : each[below(std::size(each))];
        }
        made.live.assign(values.begin(), values.end());
        return made;
    }

    std::vector<Address> addresses(const SetInput& set, std::size_t count) {
        std::vector<Address> made;
        std::vector<Prefix> all = set.base;
        for (const auto& [prefix, value] : set.live)
            all.push_back(prefix);
        while (made.size() < count) {
            if (all.empty() || below(4) == 0) {
                made.push_back(address(family()));
                continue;
            }
            // First, last or some address of a prefix, or the one before or behind it.
            const Prefix& prefix = all[below(all.size())];
            Address edge = prefix.address;
            const auto kind = below(5);
            for (unsigned i = prefix.length; i < edge.bits(); i++)
                if (kind == 1 || kind == 4 || (kind == 2 && below(2) == 0))
                    edge.bytes[i / 8] |= static_cast<std::uint8_t>(0x80 >> i % 8);
            if (kind >= 3) // 3: one below the first; 4: one above the last
                for (int i = static_cast<int>(edge.bits()) / 8 - 1; i >= 0; i--) {
                    const auto place = static_cast<std::size_t>(i);
                    if (kind == 3 ? edge.bytes[place]-- != 0 : ++edge.bytes[place] != 0)
                        break;
                }
            made.push_back(edge);
        }
        return made;
    }

  private:
    Family family() { return below(2) ? Family::ipv4 : Family::ipv6; }

    std::mt19937_64 random_;
    std::vector<Address> seen4_, seen6_;
};

void expect_right(const SetRun& run, const std::vector<SetInput>& sets,
                  const std::vector<Address>& addresses, const std::string& story) {
    std::vector<nc_packet> packets;
    for (const Address& address : addresses)
        packets.push_back(packet_from(address));
    const auto answers = run.ask(packets);
    ASSERT_TRUE(answers) << answers.error().what;
    for (std::size_t i = 0; i < addresses.size(); i++)
        for (std::size_t s = 0; s < sets.size(); s++) {
            const bool found = (*answers)[i] >> s & 1;
            if (found == reference(sets[s], addresses[i]))
                continue;
            std::string text;
            for (const Prefix& prefix : sets[s].base)
                if (prefix.contains(addresses[i]))
                    text += " base " + prefix.to_string();
            for (const auto& [prefix, value] : sets[s].live)
                if (prefix.contains(addresses[i]))
                    text += fmt::format(" live {}({}/{})", prefix.to_string(), value.expires,
                                        value.flags);
            ADD_FAILURE() << story << ", set " << s << ": " << addresses[i].to_string()
                          << " is found " << found << "; covered by" << text;
            return;
        }
}

TEST(SetBaseProg, BaseAndLiveMapAgreeWithTheReference) {
    std::size_t members = 0, others = 0;
    for (std::uint64_t seed = 1; seed <= 4; seed++) {
        SetFuzz fuzz(seed);
        std::vector<SetInput> sets;
        for (const std::size_t base : {0, 1, 2, 5, 20, 100, 400})
            for (const std::size_t live : {0, 1, 10, 60})
                sets.push_back(fuzz.set(base, live));
        const auto run = SetRun::load(sets);
        ASSERT_TRUE(run) << run.error().what;
        std::vector<Address> addresses;
        for (const SetInput& set : sets)
            for (const Address& address : fuzz.addresses(set, 100)) {
                addresses.push_back(address);
                (reference(set, address) ? members : others)++;
            }
        expect_right(*run, sets, addresses, fmt::format("seed {}", seed));
        if (HasFailure())
            return;
    }
    EXPECT_GT(members, 4000U); // a generator that hits nothing would find nothing
    EXPECT_GT(others, 4000U);
}

TEST(SetBaseProg, ManyElements) {
    // So many that a bucket's only start fits into its entry, with and without wide ones around them.
    for (const std::uint8_t shortest : {0, 8, 20, 32}) {
        SetFuzz fuzz(11U + shortest);
        SetInput set = fuzz.set(1, 300);
        // Wide ones would leave nothing to the base.
        set.live.erase(std::remove_if(set.live.begin(), set.live.end(),
                                      [](const auto& each) { return each.first.length < 16; }),
                       set.live.end());
        while (set.base.size() < 60000) {
            Prefix net = fuzz.net(Family::ipv4, shortest);
            // Some stand together.
            for (std::uint64_t i = fuzz.below(8) == 0 ? fuzz.below(200) : 0; i > 0; i--) {
                net.address.bytes[3] = static_cast<std::uint8_t>(fuzz.below(256));
                net.length = 32;
                set.base.push_back(net);
            }
            set.base.push_back(fuzz.net(Family::ipv4, shortest));
        }
        std::sort(set.base.begin(), set.base.end());
        set.base.erase(std::unique(set.base.begin(), set.base.end()), set.base.end());
        const std::vector<SetInput> sets{set};
        const auto run = SetRun::load(sets);
        ASSERT_TRUE(run) << run.error().what;
        expect_right(*run, sets, fuzz.addresses(set, 20000), fmt::format("from /{}", shortest));
    }
}

TEST(SetBaseProg, CrowdedSlices) {
    // All in one key: long binary searches, and counts that the index has no room for.
    SetFuzz fuzz(7);
    SetInput set;
    for (int i = 0; i < 3000; i++) {
        Prefix v4 = *Prefix::parse("10.1.0.0"), v6 = *Prefix::parse("2001:db8::1"),
               half = *Prefix::parse("2001:db8:1::/64");
        for (Prefix* prefix : {&v4, &v6, &half}) {
            const unsigned bytes = prefix->length / 8U;
            prefix->address.bytes[bytes - 2] = static_cast<std::uint8_t>(fuzz.below(256));
            prefix->address.bytes[bytes - 1] = static_cast<std::uint8_t>(fuzz.below(256));
            set.base.push_back(*prefix);
        }
    }
    set.base.push_back(*Prefix::parse("192.0.0.0/4"));
    set.base.push_back(*Prefix::parse("4000::/4"));
    std::sort(set.base.begin(), set.base.end());
    set.base.erase(std::unique(set.base.begin(), set.base.end()), set.base.end());
    const std::vector<SetInput> sets{set};
    const auto run = SetRun::load(sets);
    ASSERT_TRUE(run) << run.error().what;
    expect_right(*run, sets, fuzz.addresses(set, 1000), "crowded");
}

TEST(SetBaseProg, AnotherBaseTakesEffectAtOnce) {
    std::vector<SetInput> sets(1);
    const auto run = SetRun::load(sets);
    ASSERT_TRUE(run) << run.error().what;
    SetFuzz fuzz(3);
    for (const std::size_t size : {30, 0, 200}) {
        sets[0] = fuzz.set(size, 0);
        ASSERT_TRUE(run->set_base(0, sets[0].base));
        expect_right(*run, sets, fuzz.addresses(sets[0], 300), fmt::format("{} elements", size));
    }
}

} // namespace
} // namespace netctl::testing
