// SPDX-License-Identifier: GPL-2.0-only
//
// Rules of other firewalls as a configuration of netctl.
#pragma once

#include <string>
#include <vector>

#include "host/import/foreign.hpp"

namespace netctl::host {

struct ImportOptions {
    std::vector<std::string> interfaces; ///< names or patterns that are filtered
    Hook input = Hook::xdp;              ///< where what arrives is judged: xdp, or tc at ingress
};

struct Imported {
    HostConfig config;
    std::vector<NotTaken> not_taken;
    std::vector<std::string> notes;
    std::size_t rules = 0;   ///< that were read, of the chains that are judged here
    std::uint8_t effect = 0; ///< of all that was not taken
};

/// Sets, and filters of what arrives and of what is sent. Errors: there are rules and no interface is named; the chains
/// become too many rules.
Result<Imported> import(Foreign foreign, const ImportOptions& options);

} // namespace netctl::host
