// SPDX-License-Identifier: GPL-2.0-only
#include "core/abi_version.hpp"

#include "core/log.hpp"
#include "netctl/abi/types.h"

#ifndef NETCTL_ABI_AHEAD // by how many versions netctl-next is ahead
#define NETCTL_ABI_AHEAD 0
#endif

namespace netctl {

namespace {

/// The oldest that is read: 5 is the first whose layout is still this one.
constexpr std::uint32_t oldest = 5;

bool told = false;

} // namespace

std::uint32_t abi_version() {
    return NC_ABI_VERSION + NETCTL_ABI_AHEAD;
}

bool reads_abi(std::uint32_t version) {
    return version >= oldest && version <= abi_version();
}

void tell_of_newer_abi(const Text& what, std::uint32_t version) {
    if (!told)
        warn(Text::format("{} has ABI version {}, this netctl speaks version {}: what it does not "
                          "know is not shown, and nothing is changed",
                          what, version, abi_version()));
    told = true;
}

bool was_told_of_newer_abi() {
    return told;
}

} // namespace netctl
