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

/// Whether a process that may make few system calls (seccomp) survives a probe at a function's return: on x86-64 since
/// 6.11 that is a system call of the kernel's own, which until 6.14 such processes were killed for. Tried out with
/// `program`, which may be any for probes, on a child of this process. Errors: they do not, or it could not be tried.
Result<> check_return_probes(const Program& program);

} // namespace netctl::bpf
