// SPDX-License-Identifier: GPL-2.0-only
#include "testing/judgement.hpp"

#include <cstring>

#include <fmt/format.h>

#include "classifier/reference.hpp"

namespace netctl::testing {

namespace {

nc_verdict verdict_of(const Rule& rule) {
    switch (rule.actions.back().kind) {
    case ActionKind::pass: return NC_VERDICT_PASS;
    case ActionKind::reject: return NC_VERDICT_REJECT;
    case ActionKind::tx: return NC_VERDICT_TX;
    case ActionKind::syncookie: return NC_VERDICT_SYNCOOKIE;
    case ActionKind::next: return NC_VERDICT_NEXT;
    case ActionKind::redirect: return NC_VERDICT_REDIRECT;
    default: return NC_VERDICT_DROP;
    }
}

} // namespace

classifier::Parsed with_told(classifier::Parsed parsed, const nc_told& told) {
    classifier::tell(parsed.packet, told);
    return parsed;
}

nc_result expected_result(const ProgSetup& setup, const classifier::Parsed& parsed) {
    nc_result expected{};
    expected.position = NC_NO_RULE;
    expected.packet = parsed.packet;
    if (!parsed.parsed) {
        expected.verdict = setup.unparsed_verdict;
        expected.reason = NC_REASON_UNPARSED;
        expected.unparsed = parsed.reason;
        return expected;
    }
    const auto position = classifier::first_match(setup.rules, parsed.packet, oracle(setup.sets));
    if (!position) {
        expected.verdict = setup.default_verdict;
        expected.reason = NC_REASON_DEFAULT;
        return expected;
    }
    expected.position = static_cast<__u32>(*position);
    expected.verdict = verdict_of(setup.rules[*position]);
    expected.reason = NC_REASON_RULE;
    return expected;
}

std::string to_text(const nc_packet& p) {
    const auto words = [](const __be32(&a)[4]) {
        return fmt::format("{:08x} {:08x} {:08x} {:08x}", __builtin_bswap32(a[0]),
                           __builtin_bswap32(a[1]), __builtin_bswap32(a[2]),
                           __builtin_bswap32(a[3]));
    };
    const auto mac = [](const __u8(&m)[6]) {
        return fmt::format("{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", m[0], m[1], m[2], m[3],
                           m[4], m[5]);
    };
    std::string text = fmt::format("has={:#x}", p.has);
#define NETCTL_TEXT_ADDRESS(name) words(p.name)
#define NETCTL_TEXT_U8(name) p.name
#define NETCTL_TEXT_U16(name) p.name
#define NETCTL_TEXT_U32(name) p.name
#define NETCTL_TEXT_MASK32(name) p.name
#define NETCTL_TEXT_MAC(name) mac(p.name)
#define NETCTL_TEXT(NAME, name, text_, kind, ...)                                                  \
    text += fmt::format(" {}={}", text_, NETCTL_TEXT_##kind(name));
    NC_PACKET_KEYS(NETCTL_TEXT)
    return text;
}

std::string to_text(const nc_result& r) {
    return fmt::format("position={} verdict={} reason={} unparsed={}\n    {}",
                       static_cast<std::int32_t>(r.position), r.verdict, r.reason, r.unparsed,
                       to_text(r.packet));
}

std::string to_text(const ProgSetup& setup) {
    std::string text = fmt::format("default verdict {}, unparsed verdict {}\n",
                                   int{setup.default_verdict}, int{setup.unparsed_verdict});
    for (std::size_t i = 0; i < setup.rules.size(); i++)
        text += fmt::format("  {}: {}\n", i, to_string(setup.rules[i]));
    for (const auto& [name, set] : setup.sets) {
        text += fmt::format("  set {} type {}:", name, int{set.type});
        for (const auto& [prefix, value] : set.addresses)
            text += fmt::format(" {}({}/{})", prefix.to_string(), value.flags, value.expires);
        for (const auto& [port, value] : set.ports)
            text += fmt::format(" {}({}/{})", port, value.flags, value.expires);
        text += "\n";
    }
    return text;
}

bool same(const nc_result& kernel, const nc_result& reference) {
    return kernel.position == reference.position && kernel.verdict == reference.verdict &&
           kernel.reason == reference.reason &&
           (reference.reason != NC_REASON_UNPARSED || kernel.unparsed == reference.unparsed) &&
           (reference.reason == NC_REASON_UNPARSED ||
            std::memcmp(&kernel.packet, &reference.packet, sizeof kernel.packet) == 0);
}

} // namespace netctl::testing
