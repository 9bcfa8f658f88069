// SPDX-License-Identifier: GPL-2.0-only
//
// Programs at functions of other processes.
#pragma once

#include <cstdint>

#include "bpf/object.hpp"
#include "core/result.hpp"

namespace netctl::bpf {

enum class ProbeAt { entry, function_return };

/// Runs the program at each call of the function that begins at `offset` of the file behind `file`, by whatever
/// process, now and later, for as long as the link is there; `file` may be closed. At nothing but the beginning of a
/// function: there the kernel may put an instruction that writes below the stack.
Result<Link> attach_uprobe(const Program& program, int file, std::uint64_t offset, ProbeAt at);

} // namespace netctl::bpf
