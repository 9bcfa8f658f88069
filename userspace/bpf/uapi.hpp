// SPDX-License-Identifier: GPL-2.0-only
//
// Of the kernel's BPF interface, what the oldest headers that we build with do not declare: Debian 12's
// linux-libc-dev is of Linux 6.1. The values are the kernel's ABI (include/uapi/linux/bpf.h) and never
// change. They have names of their own, since an enumerator cannot be asked for by the preprocessor.
#pragma once

#include <linux/bpf.h>

namespace netctl::bpf::uapi {

inline constexpr auto tcx_ingress = static_cast<bpf_attach_type>(46); // BPF_TCX_INGRESS, 6.6
inline constexpr auto tcx_egress = static_cast<bpf_attach_type>(47);  // BPF_TCX_EGRESS
inline constexpr __u32 link_type_tcx = 11;                            // BPF_LINK_TYPE_TCX
inline constexpr __u32 mprog_before = 1U << 3;                        // BPF_F_BEFORE
inline constexpr __u32 mprog_after = 1U << 4;                         // BPF_F_AFTER
inline constexpr __u32 mprog_id = 1U << 5;                            // BPF_F_ID
inline constexpr __u32 cgroup_preorder = 1U << 6;                     // BPF_F_PREORDER, 6.15

// include/uapi/linux/netdev.h, 6.3
inline constexpr __u64 xdp_basic = 1U << 0;     // NETDEV_XDP_ACT_BASIC
inline constexpr __u64 xdp_redirect = 1U << 1;  // NETDEV_XDP_ACT_REDIRECT
inline constexpr __u64 xdp_transmit = 1U << 2;  // NETDEV_XDP_ACT_NDO_XMIT
inline constexpr __u64 xdp_fragments = 1U << 5; // NETDEV_XDP_ACT_RX_SG

} // namespace netctl::bpf::uapi
