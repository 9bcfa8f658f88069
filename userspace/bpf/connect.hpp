// SPDX-License-Identifier: GPL-2.0-only
//
// Attaching programs that are asked about connections, or told of them: to hooks of a cgroup, and of the
// kernel's security modules.
#pragma once

#include <cstdint>
#include <vector>

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
    skb_ingress,
    skb_egress,
};

/// Where a program stands among those that a hook runs. The kernel runs those of a cgroup before those of the
/// cgroups above it, and in one cgroup in the order in which they came.
enum class CgroupPlace : std::uint8_t {
    first, ///< before all those of this cgroup and below, where the kernel can (6.15); else as `last`
    last,
};

/// Attaches beside programs of others, which keep their say. `cgroup` is its directory's descriptor.
Result<Link> attach_to_cgroup(int cgroup, const Program& program, CgroupHook hook,
                              CgroupPlace place = CgroupPlace::last);

/// The programs that the hook runs for a socket of this cgroup, by id, in their order.
Result<std::vector<std::uint32_t>> programs_of_cgroup(int cgroup, CgroupHook hook);

/// Attaches to the LSM hook that the program was loaded for.
Result<Link> attach_lsm(const Program& program);

} // namespace netctl::bpf
