// SPDX-License-Identifier: GPL-2.0-only
#include "testing/fuzz.hpp"

#include <algorithm>
#include <cstring>

#include <fmt/format.h>

#include "classifier/reference.hpp"
#include "core/rule_keys.hpp"

namespace netctl::testing {

namespace {

Prefix whole(const Address& address) {
    return {address, static_cast<std::uint8_t>(address.bits())};
}

} // namespace

std::optional<Address> address_of(const nc_packet& packet, Key key) {
    if (!(packet.has & (NC_HAS_IPV4 | NC_HAS_IPV6)))
        return {};
    Address address;
    address.family = packet.has & NC_HAS_IPV4 ? Family::ipv4 : Family::ipv6;
    std::memcpy(address.bytes.data(), key == Key::src ? packet.src : packet.dst,
                address.bits() / 8);
    return address;
}

std::uint64_t Fuzz::below(std::uint64_t bound) {
    // splitmix64 (Steele, Lea, Flood 2014); the small bias of the modulus does not matter here.
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return (z ^ z >> 31) % bound;
}

Address Fuzz::address(Family family) {
    // Few networks and few hosts, so that packets and rules meet; the last bytes reach the edges.
    // One network of each family starts with the other's bytes.
    Address address =
        family == Family::ipv4
            ? ip(pick({"192.0.2.0", "198.51.100.0", "10.0.0.0", "32.1.13.184"}))
            : ip(pick({"2001:db8::", "2001:db8:1::", "fe80::", "c000:200::", "c000:201::"}));
    const unsigned last = address.bits() / 8 - 1;
    address.bytes[last] = static_cast<std::uint8_t>(pick({0, 1, 2, 127, 128, 254, 255}));
    if (percent(20))
        address.bytes[below(last + 1)] = static_cast<std::uint8_t>(below(256));
    return address;
}

void Fuzz::add_transport(Packet& packet, bool in_ipv6) {
    const auto port = [&] {
        return static_cast<std::uint16_t>(
            percent(80) ? pick({0, 22, 53, 80, 443, 1023, 1024, 40000, 65535}) : below(65536));
    };
    const auto icmp_type = [&] {
        return static_cast<std::uint8_t>(percent(80) ? pick({0, 3, 8, 11, 128, 129, 135})
                                                     : below(256));
    };
    const auto proto = [&] {
        return static_cast<std::uint8_t>(
            percent(85) ? pick({1, 4, 6, 6, 17, 17, 33, 41, 47, 50, 51, 58, 59, 132, 136})
                        : below(256));
    };
    switch (below(10)) {
    case 0:
    case 1:
    case 2:
        packet /= Tcp{port(), port(),
                      static_cast<std::uint8_t>(percent(80) ? pick<unsigned>({syn, ack, fin, rst})
                                                            : below(256))};
        break;
    case 3:
    case 4:
        packet /= Udp{port(), port(), static_cast<std::uint8_t>(pick({17, 17, 17, 33, 132, 136}))};
        break;
    case 5:
    case 6: {
        // Now and then ICMP in the wrong family, which must have no ICMP fields.
        const bool six = in_ipv6 != percent(15);
        packet /= Icmp{icmp_type(), static_cast<std::uint8_t>(below(5)),
                       static_cast<std::uint8_t>(six ? 58 : 1)};
        break;
    }
    case 7:
    case 8: // a transport header that ends early
        packet /= Payload{below(22), static_cast<std::uint8_t>(below(256)), proto()};
        return;
    default: packet /= Payload{below(60), static_cast<std::uint8_t>(below(256)), proto()}; return;
    }
    if (percent(50))
        packet /= Payload{below(percent(5) ? 6000 : 40)};
}

void Fuzz::add_ipv4(Packet& packet) {
    Ipv4 header{.src = address(Family::ipv4), .dst = address(Family::ipv4)};
    header.dscp = static_cast<std::uint8_t>(pick({0, 0, 10, 46, 63}));
    header.ttl = static_cast<std::uint8_t>(pick({0, 1, 63, 64, 255}));
    if (percent(35))
        header.option_words = static_cast<std::uint8_t>(1 + below(10));
    if (percent(25)) {
        header.more_fragments = percent(60);
        if (percent(50))
            header.fragment_offset = static_cast<std::uint16_t>(pick({1, 2, 185, 0x1fff}));
    }
    if (percent(3))
        header.version = static_cast<std::uint8_t>(below(16));
    if (percent(3))
        header.header_words = static_cast<std::uint8_t>(below(16));
    if (percent(8))
        header.total_length = static_cast<std::uint16_t>(percent(80) ? below(120) : below(65536));
    packet /= header;
    add_transport(packet, false);
}

void Fuzz::add_ipv6(Packet& packet) {
    Ipv6 header{.src = address(Family::ipv6), .dst = address(Family::ipv6)};
    header.dscp = static_cast<std::uint8_t>(pick({0, 0, 10, 46, 63}));
    header.hop_limit = static_cast<std::uint8_t>(pick({0, 1, 63, 64, 255}));
    if (percent(3))
        header.version = static_cast<std::uint8_t>(below(16));
    if (percent(8))
        header.payload_length = static_cast<std::uint16_t>(percent(80) ? below(100) : below(65536));
    packet /= header;

    const std::uint64_t extensions = percent(50) ? 0 : below(percent(80) ? 4 : 11);
    for (std::uint64_t i = 0; i < extensions; i++) {
        if (percent(25)) {
            Fragment6 fragment;
            fragment.more = percent(40);
            if (percent(30))
                fragment.offset = static_cast<std::uint16_t>(pick({1, 7, 0x1fff}));
            packet /= fragment;
            continue;
        }
        Extension extension;
        extension.kind = static_cast<std::uint8_t>(
            i == 0 && percent(40) ? 0 : pick({43, 51, 60, 60, 135, 139, 140}));
        if (percent(3))
            extension.kind = 0; // hop-by-hop options where they may not be
        extension.units = static_cast<std::uint8_t>(percent(90) ? below(4) : below(256));
        if (percent(4))
            extension.length = static_cast<std::uint8_t>(below(percent(50) ? 8 : 256));
        packet /= extension;
    }
    if (extensions > 0 && percent(3))
        return; // nothing behind
    add_transport(packet, true);
}

void Fuzz::damage(std::string& text, std::initializer_list<const char*> words) {
    for (std::uint64_t times = 1 + below(4); times > 0 && !text.empty(); times--) {
        const std::size_t at = below(text.size());
        const std::size_t length = 1 + below(std::min<std::size_t>(text.size() - at, 30));
        const std::size_t other = below(text.size());
        switch (below(5)) {
        case 0: text[at] = static_cast<char>(below(256)); break;
        case 1: text.erase(at, length); break;
        case 2: text.insert(other, text.substr(at, length)); break;
        case 3: text.insert(at, pick(words)); break;
        default: text.resize(at); break;
        }
    }
}

Packet Fuzz::packet() {
    const auto mac = [&] { return (percent(80) ? 0x020000000000U : 0xfeff00000000U) + below(4); };
    Packet packet = Ether{.src = mac(), .dst = mac()};
    const std::uint64_t tags = percent(55) ? 0 : percent(90) ? 1 + below(2) : 3;
    for (std::uint64_t i = 0; i < tags; i++) {
        Vlan tag;
        tag.id = static_cast<std::uint16_t>(percent(90) ? pick({0, 1, 7, 100, 4095}) : below(4096));
        tag.priority = static_cast<std::uint8_t>(below(8));
        tag.drop_eligible = percent(50);
        tag.tag_type = pick<std::uint16_t>({0x8100, 0x88a8});
        packet /= tag;
    }
    const std::uint64_t kind = below(20);
    if (kind < 9)
        add_ipv4(packet);
    else if (kind < 18)
        add_ipv6(packet);
    else
        packet /= Payload{below(80)};
    // Types that tell something else of what follows than it is.
    if (percent(4)) {
        const auto type = pick<std::uint16_t>({0x0800, 0x86dd, 0x0806, 0x8100, 0x05dc, 0x8847});
        Layer& layer = packet.layers()[below(std::min<std::size_t>(tags + 1, 2))];
        if (auto* ether = std::get_if<Ether>(&layer))
            ether->type = type;
        else if (auto* tag = std::get_if<Vlan>(&layer))
            tag->type = type;
    }
    return packet;
}

Frame Fuzz::frame() {
    const Packet packet = this->packet();
    Frame frame{packet.bytes(), packet.to_string()};
    Bytes& bytes = frame.bytes;
    if (percent(8)) {
        const std::size_t length = 14 + below(bytes.size() - 13);
        bytes.resize(length);
        frame.story += fmt::format(", cut to {} bytes", length);
    } else if (percent(15)) {
        const std::size_t length = bytes.size() + 1 + below(46);
        bytes.resize(length, 0x55);
        frame.story += fmt::format(", padded to {} bytes", length);
    }
    if (percent(12)) {
        const std::size_t changes = 1 + below(3);
        for (std::size_t i = 0; i < changes; i++) {
            const std::size_t at = below(std::min<std::size_t>(bytes.size(), 110));
            bytes[at] =
                static_cast<std::uint8_t>(percent(50) ? bytes[at] ^ 1U << below(8) : below(256));
            frame.story += fmt::format(", byte {} := {:#04x}", at, bytes[at]);
        }
    }
    bytes.resize(std::max<std::size_t>(bytes.size(), 14));
    return frame;
}

TestSets Fuzz::sets(std::span<const nc_packet> seen) {
    const auto value = [&] {
        nc_set_value value{};
        if (percent(10))
            value.flags = NC_SET_ABSENT;
        if (percent(10))
            value.expires = 1; // the machine has been up for longer
        else if (percent(10))
            value.expires = 0xffffffff;
        return value;
    };
    TestSets sets;
    for (int i = 0; i < 6; i++) {
        TestSet set;
        set.type = pick({NC_SET_HOST, NC_SET_CIDR, NC_SET_PORT});
        const std::uint64_t elements = below(percent(80) ? 12 : 200);
        for (std::uint64_t element = 0; element < elements; element++) {
            const nc_packet& packet = seen[below(seen.size())];
            if (set.type == NC_SET_PORT) {
                const auto port = static_cast<std::uint16_t>(
                    percent(70) ? (percent(50) ? packet.sport : packet.dport) : below(65536));
                const bool there =
                    std::any_of(set.ports.begin(), set.ports.end(),
                                [&](const auto& other) { return other.first == port; });
                if (!there)
                    set.ports.emplace_back(port, value());
                continue;
            }
            const Address near = address_of(packet, pick({Key::src, Key::dst}))
                                     .value_or(address(pick({Family::ipv4, Family::ipv6})));
            const Prefix prefix = set.type == NC_SET_HOST ? whole(near) : prefix_near(near);
            const bool there =
                std::any_of(set.addresses.begin(), set.addresses.end(),
                            [&](const auto& other) { return other.first == prefix; });
            if (!there)
                set.addresses.emplace_back(prefix, value());
        }
        set.room = 2048; // for what rules add
        sets[fmt::format("s{}", i)] = std::move(set);
    }
    return sets;
}

Prefix Fuzz::prefix_near(const Address& address) {
    Prefix prefix = whole(address);
    if (percent(60))
        prefix.length = static_cast<std::uint8_t>(below(prefix.length + 1U));
    for (unsigned bit = prefix.length; bit < address.bits(); bit++)
        prefix.address.bytes[bit / 8] &= static_cast<std::uint8_t>(~(0x80 >> bit % 8));
    return prefix;
}

Match Fuzz::address_match(Key key, std::span<const nc_packet> seen, const TestSets& sets) {
    Match match;
    match.key = key;
    match.negated = percent(15);
    if (percent(20)) {
        for (const auto& [name, set] : sets)
            if (set.type != NC_SET_PORT && (match.set.empty() || percent(50)))
                match.set = name;
        if (!match.set.empty())
            return match;
    }
    const std::uint64_t items = percent(60) ? 1 : 1 + below(6);
    for (std::uint64_t i = 0; i < items; i++) {
        const Key from = percent(90) ? key : pick({Key::src, Key::dst});
        const auto near = address_of(seen[below(seen.size())], from);
        match.prefixes.push_back(
            prefix_near(near && percent(85) ? *near : address(pick({Family::ipv4, Family::ipv6}))));
    }
    std::sort(match.prefixes.begin(), match.prefixes.end());
    match.prefixes.erase(std::unique(match.prefixes.begin(), match.prefixes.end()),
                         match.prefixes.end());
    return match;
}

Match Fuzz::number_match(Key key, std::uint64_t value, std::uint64_t limit) {
    Match match;
    match.key = key;
    match.negated = percent(15);
    const std::uint64_t items = percent(60) ? 1 : 1 + below(4);
    for (std::uint64_t i = 0; i < items; i++) {
        const std::uint64_t middle = i == 0 && percent(85) ? value : below(limit + 1);
        Range range{middle, middle};
        if (percent(35)) { // edges on, beside and around the value
            const std::uint64_t spread = percent(50) ? 2 : limit / 8 + 1;
            range.low = middle - std::min(middle, below(spread + 1));
            range.high = std::min(limit, middle + below(spread + 1));
        }
        if (percent(8)) { // just missing it
            range.low = std::min(limit, middle + 1);
            range.high = std::min(limit, range.low + below(8));
        }
        match.ranges.push_back(range);
    }
    match.ranges = normalized(std::move(match.ranges));
    return match;
}

Match Fuzz::match(Key key, std::span<const nc_packet> seen, const TestSets& sets) {
    const nc_packet& packet = seen[below(seen.size())];
    switch (key) {
    case Key::src:
    case Key::dst: return address_match(key, seen, sets);
    case Key::sport:
    case Key::dport: {
        if (percent(15))
            for (const auto& [name, set] : sets)
                if (set.type == NC_SET_PORT && percent(60)) {
                    Match match;
                    match.key = key;
                    match.negated = percent(15);
                    match.set = name;
                    return match;
                }
        return number_match(key, key == Key::sport ? packet.sport : packet.dport, 65535);
    }
    case Key::flags: {
        Match match;
        match.key = key;
        match.negated = percent(15);
        const auto mask = static_cast<std::uint32_t>(1 + below(255));
        const auto value = static_cast<std::uint32_t>(percent(80) ? packet.flags : below(256));
        match.masked = Masked{value & mask, mask};
        return match;
    }
    case Key::vlan: {
        if (percent(70))
            return number_match(key, packet.vlan, 4095);
        Match match;
        match.key = key;
        match.negated = percent(15);
        if (percent(50))
            match.absent = true;
        else
            match.ranges = {{0, 4095}};
        return match;
    }
    case Key::frag: {
        Match match = number_match(key, packet.frag, frag_later);
        if (percent(30))
            match.ranges = {{frag_first, frag_later}};
        return match;
    }
    case Key::socket: return number_match(key, below(socket_related + 1), socket_related);
    case Key::ct: return number_match(key, below(ct_untracked + 1), ct_untracked);
    case Key::ct_mark: {
        Match match;
        match.key = key;
        match.negated = percent(15);
        const auto mask = static_cast<std::uint32_t>(1 + below(15));
        match.masked = Masked{static_cast<std::uint32_t>(below(16)) & mask, mask};
        return match;
    }
    case Key::len: return number_match(key, packet.len, 9000);
    default:
        return number_match(key, classifier::number_of(packet, key).value_or(0), info(key).max);
    }
}

nc_told Fuzz::told() {
    nc_told told{};
    told.socket = static_cast<__u32>(below(socket_related + 1));
    if (percent(70)) {
        told.has |= NC_HAS_CT;
        told.ct = static_cast<__u32>(below(ct_untracked + 1));
    }
    if (percent(50)) {
        told.has |= NC_HAS_CT_MARK;
        told.ct_mark = static_cast<__u32>(below(16));
    }
    return told;
}

Rule Fuzz::rule(std::span<const nc_packet> seen, const TestSets& sets) {
    static const std::vector<Key> all = [] {
        std::vector<Key> keys;
        for (const KeyInfo& key : rule_keys())
            if (is_of_packets(key.key) && key.in(Hook::xdp))
                keys.push_back(key.key);
        return keys;
    }();
    static const std::vector<Key> often = {Key::src, Key::dst, Key::sport, Key::dport, Key::proto};
    Rule rule;
    const std::uint64_t count = percent(3) ? 0 : 1 + below(4);
    std::vector<Key> keys;
    for (std::uint64_t i = 0; i < count; i++) {
        const Key key = pick(percent(60) ? often : all);
        if (std::find(keys.begin(), keys.end(), key) == keys.end())
            keys.push_back(key);
    }
    std::sort(keys.begin(), keys.end());
    for (const Key key : keys)
        rule.matches.push_back(match(key, seen, sets));

    Action action;
    action.kind = pick({ActionKind::pass, ActionKind::drop, ActionKind::reject, ActionKind::tx,
                        ActionKind::redirect, ActionKind::syncookie});
    if (action.kind == ActionKind::redirect)
        action.device = percent(80) ? "lo" : "gone";
    rule.actions.push_back(action);
    rule.log = percent(5);
    return rule;
}

std::vector<Rule> Fuzz::rules(std::size_t count, std::span<const nc_packet> seen,
                              const TestSets& sets) {
    std::vector<Rule> rules;
    for (std::size_t i = 0; i < count; i++)
        rules.push_back(rule(seen, sets));
    return rules;
}

void Fuzz::limit_some(std::vector<Rule>& rules, const TestSets& sets) {
    for (Rule& rule : rules) {
        if (rule.actions.back().kind == ActionKind::drop || !percent(40))
            continue;
        Limit limit;
        limit.bits = percent(30);
        limit.count = 1;
        limit.period_ns = (limit.bits ? 1 : 86400) * 1'000'000'000ULL;
        limit.burst = limit.bits ? 1 + below(300) : 1 + below(3);
        Accounts& per = limit.per;
        per.of =
            pick({Accounts::Of::rule, Accounts::Of::src, Accounts::Of::src, Accounts::Of::dst});
        if (per.of != Accounts::Of::rule) {
            if (percent(25)) {
                per.ipv4_bits = static_cast<std::uint8_t>(1 + below(32));
                per.ipv6_bits = static_cast<std::uint8_t>(1 + below(128));
            }
            per.dport = percent(20);
            for (const auto& [name, set] : sets)
                if (set.type == NC_SET_CIDR ||
                    (set.type == NC_SET_HOST && per.ipv4_bits == 32 && per.ipv6_bits == 128))
                    if (percent(70))
                        limit.over = OverAdd{name, percent(50) ? 0U : 86400U};
        }
        rule.limit = limit;
    }
}

std::vector<Range> normalized(std::vector<Range> ranges) {
    std::sort(ranges.begin(), ranges.end());
    std::vector<Range> result;
    for (const Range& range : ranges) {
        if (!result.empty() && range.low <= result.back().high + 1)
            result.back().high = std::max(result.back().high, range.high);
        else
            result.push_back(range);
    }
    return result;
}

} // namespace netctl::testing
