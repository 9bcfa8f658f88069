// SPDX-License-Identifier: GPL-2.0-only
//
// Packets for people and for JSON.
#pragma once

#include <string>

#include "core/output.hpp"
#include "netctl/abi/packet.h"

namespace netctl::classifier {

/// `192.0.2.1:4711 > 192.0.2.2:80 tcp syn len 74`
std::string packet_text(const nc_packet& packet);
/// The fields that the packet has, by the names of the rule language's keys.
Json packet_json(const nc_packet& packet);

} // namespace netctl::classifier
