// SPDX-License-Identifier: GPL-2.0-only
//
// Programs at functions: of processes, and of the kernel where no others can be had.
#pragma once

#include <cstdint>
#include <string>

#include "bpf/object.hpp"
#include "core/result.hpp"

namespace netctl::bpf {

enum class ProbeAt { entry, function_return };

/// Runs the program at each call of the function that begins at `offset` of the file behind `file`, by whatever
/// process, now and later, for as long as the link is there; `file` may be closed. At nothing but the beginning of a
/// function: there the kernel may put an instruction that writes below the stack.
/// With a `pid`, only in that process, and others do not pay for it. The program is told the `cookie`. `semaphore` is where
/// in the file a counter of 16 bits is that is raised in the processes meanwhile; 0: none.
Result<Link> attach_uprobe(const Program& program, int file, std::uint64_t offset, ProbeAt at,
                           std::uint64_t cookie = 0, std::uint32_t pid = 0,
                           std::uint64_t semaphore = 0);
/// The same at a function of the kernel (kprobe). Errors of kind unsupported: the kernel has none.
Result<Link> attach_kprobe(const Program& program, const std::string& function, ProbeAt at,
                           std::uint64_t cookie);

/// Whether a process that may make few system calls (seccomp) survives a probe at a function's return: on x86-64 since
/// 6.11 that is a system call of the kernel's own, which until 6.14 such processes were killed for. Tried out with
/// `program`, which may be any for probes, on a child of this process. Errors: they do not, or it could not be tried.
Result<> check_return_probes(const Program& program);

} // namespace netctl::bpf
