// SPDX-License-Identifier: GPL-2.0-only
//
// Attaching programs that are asked about connections, or told of them: to hooks of a cgroup, and of the
// kernel's security modules.
#pragma once

#include <cstdint>

#include "bpf/object.hpp"
#include "core/result.hpp"

namespace netctl::bpf {

enum class CgroupHook : std::uint8_t {
    connect4,
    connect6,
    sendmsg4,
    sendmsg6,
    recvmsg4,
    recvmsg6,
    getpeername4,
    getpeername6,
    getsockopt,
    setsockopt,
    sock_ops,
};

/// Attaches beside programs of others, which keep their say. `cgroup` is its directory's descriptor.
Result<Link> attach_to_cgroup(int cgroup, const Program& program, CgroupHook hook);

/// Attaches to the LSM hook that the program was loaded for.
Result<Link> attach_lsm(const Program& program);

} // namespace netctl::bpf
