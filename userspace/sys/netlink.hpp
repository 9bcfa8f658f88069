// SPDX-License-Identifier: GPL-2.0-only
//
// Interfaces, through libnl.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/result.hpp"

namespace netctl::sys {

struct Interface {
    std::uint32_t index = 0;
    std::string name;
    std::string kind; ///< "veth", "vlan", …; empty for hardware
    std::uint32_t mtu = 0;
    bool up = false;
    bool ethernet = false; ///< frames begin with an Ethernet header
    bool layer3 = false;   ///< packets begin with the IP header (tun, WireGuard, IP tunnels)
};

/// The interface of this name in the current network namespace. The error names near ones.
Result<Interface> find_interface(const std::string& name);
/// The same; nothing if there is none of this name. That is no excuse for any other failure.
Result<std::optional<Interface>> look_for_interface(const std::string& name);
/// Those of the current network namespace.
Result<std::vector<Interface>> list_interfaces();
/// Makes two veth devices that are each other's other end: one here, one in the network namespace
/// of the process `pid`. They go with either namespace.
Result<> make_veth(const std::string& here, const std::string& there, int pid);

} // namespace netctl::sys
