// SPDX-License-Identifier: GPL-2.0-only
#include "core/rule.hpp"

#include <algorithm>

#include "core/rule_keys.hpp"

namespace netctl {

const Match* Rule::find(Key key) const {
    const auto found = std::find_if(matches.begin(), matches.end(),
                                    [key](const Match& match) { return match.key == key; });
    return found == matches.end() ? nullptr : &*found;
}

std::vector<std::string> sets_of(const Rule& rule) {
    std::vector<std::string> sets;
    for (const Match& match : rule.matches)
        if (!match.set.empty())
            sets.push_back(match.set);
    if (rule.limit && rule.limit->over)
        sets.push_back(rule.limit->over->set);
    return sets;
}

std::string_view to_string(Key key) {
    return info(key).name;
}

std::string_view to_string(Hook hook) {
    switch (hook) {
    case Hook::xdp: return "xdp";
    case Hook::tc: return "tc";
    case Hook::policy: return "policy";
    case Hook::redirect: return "redirect";
    case Hook::to: return "redirect to";
    }
    return "?";
}

} // namespace netctl
