// SPDX-License-Identifier: GPL-2.0-only
//
// What this kernel can do, found out by doing (invariant I5): each trial loads a program that does nothing and
// attaches it where nobody else is, in a network namespace of its own, or to a tracepoint for an instant.
// Nothing is left behind. An error is what the kernel said.
#pragma once

#include "core/result.hpp"

namespace netctl::host {

/// A frame filter on a veth device: `generic` in the network stack, else in the driver.
Result<> try_xdp(bool generic);
/// A filter of frames of several buffers, which large MTUs have.
Result<> try_xdp_frags();
/// bpf_loop(): the walk over rules that no table holds.
Result<> try_loop();

/// A classifier in a tcx link.
Result<> try_tcx();
/// A classifier in the qdisc clsact.
Result<> try_clsact();
/// The qdisc fq, which sends packets at the times that a rule's rate gives them.
Result<> try_fq();

/// The socket tracepoints, typed.
Result<> try_sock_tracepoint();
/// The return of a kernel function.
Result<> try_function_exit();
/// A filter on a packet socket.
Result<> try_packets();

} // namespace netctl::host
