// SPDX-License-Identifier: GPL-2.0-only
//
// Probes that programs have for tracers (USDT), as the section .note.stapsdt tells them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/result.hpp"

namespace netctl::sys {

/// One place; a probe of one name may be in several.
struct UsdtProbe {
    std::string provider;
    std::string name;
    std::string arguments;    ///< `8@%rbx -4@112(%rsp)`: size, negative if signed, and where it is
    std::uint64_t offset = 0; ///< in the file, of a no-operation
    std::uint64_t semaphore =
        0; ///< in the file, of the counter that is above 0 while anybody listens; 0: none
};

/// By provider and name. Errors: it cannot be read, or is no ELF file of this machine's kind and 64 bits.
Result<std::vector<UsdtProbe>> list_usdt_probes(int fd);

} // namespace netctl::sys
