// SPDX-License-Identifier: GPL-2.0-only
//
// Attaching classifiers: tcx links (kernel 6.6), and filters of the qdisc clsact. All of it in the
// current network namespace.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "bpf/object.hpp"
#include "core/result.hpp"

namespace netctl::bpf {

enum class TcDirection : std::uint8_t { ingress, egress };

/// One program of a tcx chain.
struct TcxProgram {
    std::uint32_t id = 0;
    std::uint32_t link_id = 0; ///< 0: attached without a link
    std::string name;
};

/// The programs of an interface's tcx chain, in the order in which they run; nothing where the kernel
/// has no tcx.
Result<std::optional<std::vector<TcxProgram>>> query_tcx(std::uint32_t ifindex,
                                                         TcDirection direction);

/// Where in a chain.
struct TcxPlace {
    enum class Where : std::uint8_t { first, last, before, after };
    Where where = Where::last;
    std::uint32_t program_id = 0; ///< whom before and after are about
};
Result<Link> attach_tcx(std::uint32_t ifindex, TcDirection direction, const Program& program,
                        const TcxPlace& place);

/// Makes the qdisc clsact; false if the interface has one.
Result<bool> create_clsact(std::uint32_t ifindex);
/// Takes it away, with all filters in it.
Result<> destroy_clsact(std::uint32_t ifindex);

/// A place for a filter in clsact.
struct TcFilter {
    std::uint32_t ifindex = 0;
    TcDirection direction = TcDirection::ingress;
    std::uint32_t priority = 0; ///< lower ones run first
    std::uint32_t handle = 0;
};
/// Fails with EEXIST if there is one.
Result<> attach_filter(const TcFilter& filter, const Program& program);
/// Puts another program in the place of the present one, in one step.
Result<> replace_filter(const TcFilter& filter, const Program& program);
/// No error if it is not there.
Result<> detach_filter(const TcFilter& filter);
/// Id of the program there; nothing if there is no such filter.
Result<std::optional<std::uint32_t>> query_filter(const TcFilter& filter);

/// Runs a classifier once over a frame. Of a long one the kernel takes the start only, and short ones
/// get zeroes behind, since it refuses to run programs on what is cut; the program learns the true
/// length as cb[0].
Result<> test_run_skb(const Program& program, std::span<const std::uint8_t> frame);

} // namespace netctl::bpf
