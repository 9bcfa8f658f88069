// SPDX-License-Identifier: GPL-2.0-only
#include "datapath/rule_action.hpp"

#include <algorithm>

#include "netctl/abi/keys.h"

namespace netctl::datapath {

namespace {

nc_verdict encoded_verdict(ActionKind kind) {
    switch (kind) {
    case ActionKind::drop: return NC_VERDICT_DROP;
    case ActionKind::reject: return NC_VERDICT_REJECT;
    case ActionKind::tx: return NC_VERDICT_TX;
    case ActionKind::redirect: return NC_VERDICT_REDIRECT;
    case ActionKind::syncookie: return NC_VERDICT_SYNCOOKIE;
    case ActionKind::next: return NC_VERDICT_NEXT;
    default: return NC_VERDICT_PASS;
    }
}

void encode_limit(const Limit& limit, nc_action& action) {
    action.flags |= NC_ACTION_LIMIT;
    if (limit.per.of != Accounts::Of::rule)
        action.flags |= NC_ACTION_LIMIT_PER;
    if (limit.per.of == Accounts::Of::dst)
        action.flags |= NC_ACTION_LIMIT_DST;
    if (limit.per.dport)
        action.flags |= NC_ACTION_LIMIT_DPORT;
    const auto mask = [](__be32* words, unsigned bits) {
        auto* bytes = reinterpret_cast<std::uint8_t*>(words);
        for (unsigned bit = 0; bit < bits; bit++)
            bytes[bit / 8] |= static_cast<std::uint8_t>(0x80 >> bit % 8);
    };
    if (limit.over) {
        action.flags |= NC_ACTION_OVER_ADD;
        action.over_ttl = limit.over->ttl;
    }
    if (limit.over_syncookie)
        action.flags |= NC_ACTION_OVER_SYNCOOKIE | NC_ACTION_SYNCOOKIE;
    mask(&action.limit_mask4, limit.per.ipv4_bits);
    mask(action.limit_mask6, limit.per.ipv6_bits);
    if (limit.bits) {
        constexpr std::uint64_t second = 1'000'000'000, unit = 65536;
        action.flags |= NC_ACTION_LIMIT_BYTES;
        action.limit_interval_ns = std::max<std::uint64_t>(unit * 8 * second / limit.count, 1);
        action.limit_burst_ns = limit.burst * 8 * second / limit.count;
    } else {
        action.limit_interval_ns = std::max<std::uint64_t>(limit.period_ns / limit.count, 1);
        action.limit_burst_ns = action.limit_interval_ns * (limit.burst - 1);
    }
}

} // namespace

bool answers_syns(const Rule& rule) {
    return (!rule.actions.empty() && rule.actions.back().kind == ActionKind::syncookie) ||
           (rule.limit && rule.limit->over_syncookie);
}

bool asks_conntrack(const Rule& rule) {
    return rule.find(Key::ct) != nullptr || rule.find(Key::ct_mark) != nullptr;
}

bool ask_conntrack(const std::vector<InstalledRule>& rules) {
    return std::any_of(rules.begin(), rules.end(), [](const InstalledRule& installed) {
        return asks_conntrack(installed.rule);
    });
}

std::uint32_t wanted_fields(const Rule& rule) {
    std::uint32_t wanted = 0;
    for (const Match& match : rule.matches)
        wanted |= 1U << static_cast<unsigned>(match.key);
    if (rule.find(Key::socket) != nullptr) // which is looked up by them
        wanted |= 1U << NC_FIELD_SRC | 1U << NC_FIELD_DST | 1U << NC_FIELD_SPORT |
                  1U << NC_FIELD_DPORT | 1U << NC_FIELD_ICMP_TYPE;
    if (asks_conntrack(rule)) // likewise
        wanted |= 1U << NC_FIELD_SRC | 1U << NC_FIELD_DST | 1U << NC_FIELD_SPORT |
                  1U << NC_FIELD_DPORT | 1U << NC_FIELD_ICMP_TYPE | 1U << NC_FIELD_FRAG |
                  1U << NC_FIELD_FLAGS;
    if (answers_syns(rule)) // whose listener is looked up by them
        wanted |= 1U << NC_FIELD_SRC | 1U << NC_FIELD_DST | 1U << NC_FIELD_SPORT |
                  1U << NC_FIELD_DPORT | 1U << NC_FIELD_FLAGS | 1U << NC_FIELD_FRAG;
    if (rule.limit && rule.limit->per.of != Accounts::Of::rule) {
        wanted |= 1U << NC_FIELD_SRC | 1U << NC_FIELD_DST;
        if (rule.limit->per.dport)
            wanted |= 1U << NC_FIELD_DPORT;
    }
    return wanted;
}

Result<nc_action> encode_action(const InstalledRule& installed, const ResolveDevice& resolve) {
    const Rule& rule = installed.rule;
    nc_action encoded{};
    encoded.rule_id = rule.id;
    encoded.slot = installed.slot;
    // A rule whose actions are all non-final leaves the packet to whoever comes next.
    encoded.verdict = NC_VERDICT_NEXT;
    for (const Action& action : rule.actions) {
        switch (action.kind) {
        case ActionKind::mark:
            encoded.flags |= NC_ACTION_MARK;
            encoded.mark = static_cast<__u32>(action.number);
            encoded.mark_mask = action.mask;
            break;
        case ActionKind::priority:
            encoded.flags |= NC_ACTION_PRIORITY;
            encoded.priority = static_cast<__u32>(action.number);
            break;
        case ActionKind::dscp:
            encoded.flags |= NC_ACTION_DSCP;
            encoded.dscp = static_cast<__u8>(action.number);
            break;
        case ActionKind::mirror:
            encoded.flags |= NC_ACTION_MIRROR;
            encoded.mirror = NETCTL_TRY(resolve(action.device));
            break;
        case ActionKind::rate:
            encoded.flags |= NC_ACTION_RATE;
            encoded.rate_bytes = std::max<std::uint64_t>(action.number / 8, 1);
            encoded.rate_burst = action.burst;
            break;
        case ActionKind::redirect:
            encoded.target = NETCTL_TRY(resolve(action.device));
            if (action.to_ingress)
                encoded.flags |= NC_ACTION_TO_INGRESS;
            [[fallthrough]];
        default: encoded.verdict = encoded_verdict(action.kind);
        }
    }
    if (encoded.verdict == NC_VERDICT_REJECT)
        encoded.flags |= NC_ACTION_REJECT;
    if (encoded.verdict == NC_VERDICT_SYNCOOKIE)
        encoded.flags |= NC_ACTION_SYNCOOKIE;
    if (rule.log)
        encoded.flags |= NC_ACTION_LOG;
    if (rule.limit) {
        encode_limit(*rule.limit, encoded);
    }
    return encoded;
}

} // namespace netctl::datapath
