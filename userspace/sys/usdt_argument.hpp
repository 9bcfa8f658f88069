// SPDX-License-Identifier: GPL-2.0-only
//
// Where the arguments of a probe are (the operands of the notes of sys/sdt.h, as the assembler of this machine writes them).
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace netctl::sys {

struct UsdtArgument {
    unsigned size = 0; ///< bytes: 1, 2, 4 or 8
    bool is_signed = false;
    std::uint16_t register_offset =
        0; ///< of the register, in what the kernel has of them (struct pt_regs)
    bool in_memory =
        false; ///< it is not in the register but where that and `displacement` point to
    std::int32_t displacement = 0;
};

/// `8@%r14 -4@112(%rsp)`, on arm64 `8@x0 -4@[sp, 16]`. Nothing if one is of another form: a constant, two registers, or of
/// floating point.
std::optional<std::vector<UsdtArgument>> parse_usdt_arguments(std::string_view text);

} // namespace netctl::sys
