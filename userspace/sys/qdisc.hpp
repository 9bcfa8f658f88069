// SPDX-License-Identifier: GPL-2.0-only
//
// Queueing disciplines and their filters, through libnl. All of it in the current network namespace.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/result.hpp"

namespace netctl::sys {

struct Qdisc {
    std::string kind;
    std::uint32_t handle = 0; ///< 0: one that the kernel made by default
    std::uint32_t parent = 0;
};

Result<std::vector<Qdisc>> list_qdiscs(std::uint32_t ifindex);
/// The one that all packets leave through; kind `noqueue` where there is none.
Result<Qdisc> root_qdisc(std::uint32_t ifindex);
/// Whether everything that leaves goes through the qdisc fq, at the root or in each queue.
Result<bool> leaves_through_fq(std::uint32_t ifindex);

/// Puts fq at the root, with room for as many packets of one flow as a rate may hold back.
Result<> create_fq(std::uint32_t ifindex);
/// Whether this is one that create_fq() made.
bool is_own_fq(const Qdisc& root);
/// Gives the interface back the root qdisc that the kernel chooses.
Result<> remove_root(std::uint32_t ifindex);

/// A filter of the qdisc clsact.
struct ClsactFilter {
    std::string kind;
    std::uint32_t priority = 0;
    std::uint32_t handle = 0;
};
/// In the order in which they run; none without the qdisc.
Result<std::vector<ClsactFilter>> list_clsact_filters(std::uint32_t ifindex, bool egress);

} // namespace netctl::sys
