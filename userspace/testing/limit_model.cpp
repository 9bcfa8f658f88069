// SPDX-License-Identifier: GPL-2.0-only
#include "testing/limit_model.hpp"

#include <algorithm>
#include <optional>

#include "testing/fuzz.hpp"

namespace netctl::testing {

namespace {

/// What of an address has an account.
Prefix accounted(const Accounts& per, const Address& address) {
    Prefix prefix{address, address.family == Family::ipv4 ? per.ipv4_bits : per.ipv6_bits};
    for (unsigned bit = prefix.length; bit < address.bits(); bit++)
        prefix.address.bytes[bit / 8] &= static_cast<std::uint8_t>(~(0x80 >> bit % 8));
    return prefix;
}

/// Adds to a set as a rule does, and counts what came of it.
void add(TestSet& set, const OverAdd& over, const Prefix& prefix, const Address& address,
         nc_over_adds& adds) {
    if (set.has(address)) {
        adds.there++;
        return;
    }
    if (set.excepts(address)) {
        adds.exception++;
        return;
    }
    adds.added++;
    const nc_set_value value{over.ttl == 0 ? 0 : 0xffffffff, 0};
    const auto same = std::find_if(set.addresses.begin(), set.addresses.end(),
                                   [&](const auto& element) { return element.first == prefix; });
    if (same == set.addresses.end())
        set.addresses.emplace_back(prefix, value);
    else
        same->second = value; // it ran out
}

} // namespace

bool LimitModel::over(ProgSetup& setup, std::uint32_t position, const nc_packet& packet) {
    const Limit& limit = *setup.rules[position].limit;
    const Accounts& per = limit.per;
    Account account{position, 0, {}, 0};
    std::optional<Address> address;
    if (per.of != Accounts::Of::rule) {
        address = address_of(packet, per.of == Accounts::Of::dst ? Key::dst : Key::src);
        if (address)
            account = {position, static_cast<std::uint8_t>(address->family),
                       accounted(per, *address).address.bytes, 0};
        if (per.dport && (packet.has & NC_HAS_PORTS) != 0)
            std::get<3>(account) = packet.dport;
    }
    std::uint64_t& used = used_[account];
    // A packet goes through if those before it have not used up the burst, and of bytes also if they just have.
    if (limit.bits ? used <= limit.burst : used < limit.burst) {
        used += limit.bits ? packet.len : 1;
        return false;
    }
    if (limit.over && address)
        add(setup.sets.at(limit.over->set), *limit.over, accounted(per, *address), *address, adds_);
    else if (limit.over)
        adds_.there++;
    return true;
}

} // namespace netctl::testing
