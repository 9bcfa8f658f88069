// SPDX-License-Identifier: GPL-2.0-only
//
// What tells one network device from another besides its name.
#pragma once

#include <string>

namespace netctl::sys {

/// Of the interface of this name in the current network namespace: its driver, as `ethtool -i` shows it; empty if it
/// tells none, or is not there.
std::string driver_of(const std::string& interface);
/// Its Ethernet address, `02:00:00:00:00:01`; empty if it has none, or is not there.
std::string mac_of(const std::string& interface);
/// Whether it is called so, too: `ip link property add dev IFACE altname NAME`.
bool has_altname(const std::string& interface, const std::string& name);

} // namespace netctl::sys
