// SPDX-License-Identifier: GPL-2.0-only
//
// One question to a resolver, as a program's own resolver library would ask it: over UDP, from a port of its own.
#pragma once

#include <cstdint>
#include <span>

#include "core/address.hpp"
#include "core/result.hpp"

namespace netctl::sys {

enum class DnsType : std::uint16_t { a = 1, aaaa = 28 };

/// Asks for the records of a name, given as it is on the wire without the root's label at its end, and waits for the
/// answer; what it says is for whoever reads the traffic. Errors: none comes within two seconds, twice; it is a
/// refusal or that there is no such name; or the rest is to be asked for over TCP.
Result<> ask_dns(const Address& resolver, std::span<const std::uint8_t> name, DnsType type);

} // namespace netctl::sys
