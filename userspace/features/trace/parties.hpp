// SPDX-License-Identifier: GPL-2.0-only
//
// Who talks to whom.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "core/address.hpp"

namespace netctl::trace {

struct Endpoint {
    Address address;
    std::uint16_t port = 0; ///< host order

    auto operator<=>(const Endpoint&) const = default;
    /// `192.0.2.1:80`, `[2001:db8::1]:80`.
    std::string to_string() const {
        const std::string text = address.to_string();
        const std::string number = std::to_string(port);
        return address.family == Family::ipv6 ? "[" + text + "]:" + number : text + ":" + number;
    }
};

struct Container;

struct Process {
    std::uint32_t pid = 0; ///< 0: not known
    std::string name;
    std::shared_ptr<const Container> container; ///< null: in none, or not asked for
};

} // namespace netctl::trace
