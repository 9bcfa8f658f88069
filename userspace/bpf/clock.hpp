// SPDX-License-Identifier: GPL-2.0-only
//
// Programs that run by the clock.
#pragma once

#include <cstdint>
#include <vector>

#include "bpf/object.hpp"
#include "core/result.hpp"

namespace netctl::bpf {

/// Runs the program on each CPU `hertz` times a second while anything runs there, with the registers of what does. The
/// kernel's own clock, which virtual machines have as well, and no counter of the CPU's. Errors: the kernel refuses.
Result<std::vector<Link>> attach_clock(const Program& program, std::uint32_t hertz);

} // namespace netctl::bpf
