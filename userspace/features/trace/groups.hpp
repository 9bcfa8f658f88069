// SPDX-License-Identifier: GPL-2.0-only
//
// Groups that an instrument counts in the kernel, by what --by names.
#pragma once

namespace netctl::trace {

/// The parts of the groups that differ in nothing but their cgroup as one. Keys have `cgroup_id`, values add().
template <class Groups> Groups without_cgroups(const Groups& groups) {
    Groups merged;
    for (const auto& [key, values] : groups) {
        auto plain = key;
        plain.cgroup_id = 0;
        merged[plain].add(values);
    }
    return merged;
}

} // namespace netctl::trace
