// SPDX-License-Identifier: GPL-2.0-only
//
// Attaching XDP programs, and asking who is attached.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "bpf/object.hpp"
#include "core/result.hpp"

namespace netctl::bpf {

enum class XdpMode : std::uint32_t { none = 0, native = 1, generic = 2, offload = 3 };

struct XdpOccupant {
    XdpMode mode = XdpMode::none; ///< none: nobody is attached
    std::uint32_t program_id = 0;
    std::string program_name;
};

/// Who holds the interface of the current network namespace.
Result<XdpOccupant> query_xdp(std::uint32_t ifindex);

/// What an interface's driver says that it can do with XDP (kernel 6.3 and later); nothing where the kernel
/// does not tell.
struct XdpFeatures {
    bool native = false;
    bool redirect = false;  ///< XDP_REDIRECT out of it
    bool transmit = false;  ///< can be the target of a redirect
    bool fragments = false; ///< frames of several buffers
};
Result<std::optional<XdpFeatures>> query_xdp_features(std::uint32_t ifindex);

/// Attaches through a link. A refusal's `what` has the driver's own words where it gave any; its
/// code is the kernel's errno (EBUSY: taken; EOPNOTSUPP, ERANGE, EINVAL: the driver cannot).
Result<Link> attach_xdp(std::uint32_t ifindex, const Program& program, XdpMode mode);

/// Puts a program in the place of one that is attached without a link (by ip, xdp-loader and the like), in one
/// step; a link cannot do that. EBUSY: somebody's link holds the interface. If it is not program
/// `present` any more, the kernel refuses, as far as this process may open that one.
Result<> replace_xdp(std::uint32_t ifindex, const Program& program, XdpMode mode,
                     std::uint32_t present);
/// Takes away program `present`, which is attached without a link.
Result<> detach_xdp(std::uint32_t ifindex, XdpMode mode, std::uint32_t present);

/// Aims a program of kind fentry or fexit, of an object that is open and not loaded yet, at a function of `target`.
Result<> look_on(bpf_program* program, const Program& target, const std::string& function);

/// Result of one BPF_PROG_TEST_RUN.
struct TestRun {
    std::uint32_t action = 0;      ///< the program's return value
    std::uint32_t duration_ns = 0; ///< mean of one run
};
/// Runs a program over a frame, `repeat` times. Frames are at least 14 bytes; larger than a page
/// only for programs that take fragments.
Result<TestRun> test_run(const Program& program, std::span<const std::uint8_t> frame,
                         std::uint32_t repeat = 1);

} // namespace netctl::bpf
