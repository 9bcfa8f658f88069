// SPDX-License-Identifier: GPL-2.0-only
#include "features/set/watch.hpp"

namespace netctl::set {

using datapath::SetEntry;

namespace {

bool is_over(const SetEntry& entry, std::uint32_t now) {
    return entry.value.expires != 0 && entry.value.expires <= now;
}

bool is_same(const SetEntry& a, const SetEntry& b) {
    return a.value.expires == b.value.expires &&
           ((a.value.flags ^ b.value.flags) & NC_SET_ABSENT) == 0;
}

} // namespace

std::string to_string(Event event) {
    switch (event) {
    case Event::there: return "there";
    case Event::added: return "added";
    case Event::changed: return "changed";
    case Event::expired: return "expired";
    case Event::removed: break;
    }
    return "removed";
}

std::vector<SetChange> changes_between(const std::vector<SetEntry>& before, std::uint32_t then,
                                       const std::vector<SetEntry>& after, std::uint32_t now) {
    std::vector<SetChange> changes;
    auto old = before.begin();
    auto next = after.begin();
    while (old != before.end() || next != after.end()) {
        if (old != before.end() && is_over(*old, then)) {
            ++old;
        } else if (next != after.end() && is_over(*next, now)) {
            // What stood there before is gone, too, and told of below.
            ++next;
        } else if (next == after.end() || (old != before.end() && old->element < next->element)) {
            changes.push_back({is_over(*old, now) ? Event::expired : Event::removed, *old});
            ++old;
        } else if (old == before.end() || next->element < old->element) {
            changes.push_back({Event::added, *next});
            ++next;
        } else {
            if (!is_same(*old, *next))
                changes.push_back({Event::changed, *next});
            ++old;
            ++next;
        }
    }
    return changes;
}

} // namespace netctl::set
