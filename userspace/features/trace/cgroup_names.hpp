// SPDX-License-Identifier: GPL-2.0-only
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>

#include "sys/cgroup.hpp"

namespace netctl::trace {

/// Names of cgroups by their ids, each looked up when it comes by first: it may be gone later.
class CgroupNames {
  public:
    /// Below the mount; nothing if it is gone.
    const std::optional<std::string>& of(std::uint64_t id) {
        const auto [known, first] = known_.try_emplace(id);
        if (first)
            known->second = sys::cgroup_name(id);
        return known->second;
    }

  private:
    std::unordered_map<std::uint64_t, std::optional<std::string>> known_;
};

} // namespace netctl::trace
