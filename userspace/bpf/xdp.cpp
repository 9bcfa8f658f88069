// SPDX-License-Identifier: GPL-2.0-only
#include "bpf/xdp.hpp"

#include <cerrno>
#include <linux/if_link.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fmt/format.h>

#include "bpf/probe.hpp"
#include "bpf/uapi.hpp"

namespace netctl::bpf {

namespace {

__u32 flags_of(XdpMode mode) {
    return mode == XdpMode::native ? XDP_FLAGS_DRV_MODE : XDP_FLAGS_SKB_MODE;
}

/// libbpf prints the kernel's extended acknowledgement behind this.
std::string driver_words(const std::string& complaint) {
    constexpr std::string_view marker = "Kernel error message: ";
    const auto at = complaint.find(marker);
    if (at == std::string::npos)
        return {};
    const auto begin = at + marker.size();
    return complaint.substr(begin, complaint.find('\n', begin) - begin);
}

} // namespace

Result<XdpOccupant> query_xdp(std::uint32_t ifindex) {
    LIBBPF_OPTS(bpf_xdp_query_opts, query);
    const int status = bpf_xdp_query(static_cast<int>(ifindex), 0, &query);
    if (status != 0)
        return Error::system(-status, "cannot ask the kernel for attached XDP programs");
    XdpOccupant occupant;
    // Several modes at once are reported one by one; ours uses one of them.
    if (query.drv_prog_id != 0)
        occupant = {XdpMode::native, query.drv_prog_id, {}};
    else if (query.skb_prog_id != 0)
        occupant = {XdpMode::generic, query.skb_prog_id, {}};
    else if (query.hw_prog_id != 0)
        occupant = {XdpMode::offload, query.hw_prog_id, {}};
    if (occupant.mode != XdpMode::none) {
        const auto program = Program::open_id(occupant.program_id);
        if (program) {
            const auto info = program->info();
            if (info)
                occupant.program_name = info->name;
        }
    }
    return occupant;
}

Result<std::optional<XdpFeatures>> query_xdp_features(std::uint32_t ifindex) {
    LIBBPF_OPTS(bpf_xdp_query_opts, query);
    const int status = bpf_xdp_query(static_cast<int>(ifindex), 0, &query);
    libbpf_complaint(); // a kernel that does not tell is none
    if (status != 0)
        return Error::system(-status, "cannot ask the kernel for what the driver can do");
    // Not told is all zero, and so is a driver without any; the kernel's own devices have them since 6.3.
    if (query.feature_flags == 0 && !kernel_has_function("netdev_nl_dev_get_doit"))
        return std::optional<XdpFeatures>();
    const auto has = [&](__u64 feature) { return (query.feature_flags & feature) != 0; };
    return std::optional<XdpFeatures>({has(uapi::xdp_basic), has(uapi::xdp_redirect),
                                       has(uapi::xdp_transmit), has(uapi::xdp_fragments)});
}

Result<Link> attach_xdp(std::uint32_t ifindex, const Program& program, XdpMode mode) {
    LIBBPF_OPTS(bpf_link_create_opts, options, .flags = flags_of(mode));
    Fd link(bpf_link_create(program.fd(), static_cast<int>(ifindex), BPF_XDP, &options));
    if (link)
        return Link(std::move(link));
    const int code = errno;
    if (code == EBUSY || code == EPERM)
        return Error::system(code, "cannot attach the XDP program");
    // A link gives an errno only; the same attempt over netlink brings the driver's own words.
    libbpf_complaint();
    if (bpf_xdp_attach(static_cast<int>(ifindex), program.fd(),
                       flags_of(mode) | XDP_FLAGS_UPDATE_IF_NOEXIST, nullptr) == 0)
        bpf_xdp_detach(static_cast<int>(ifindex), flags_of(mode), nullptr);
    const std::string words = driver_words(libbpf_complaint());
    if (words.empty())
        return Error::system(code, "cannot attach the XDP program");
    return Error::system(code, fmt::format("cannot attach the XDP program ({})", words));
}

Result<> replace_xdp(std::uint32_t ifindex, const Program& program, XdpMode mode,
                     std::uint32_t present) {
    const auto old = Program::open_id(present);
    LIBBPF_OPTS(bpf_xdp_attach_opts, options, .old_prog_fd = old ? old->fd() : 0);
    libbpf_complaint();
    const int status =
        bpf_xdp_attach(static_cast<int>(ifindex), program.fd(),
                       flags_of(mode) | (old ? XDP_FLAGS_REPLACE : 0), old ? &options : nullptr);
    if (status == 0)
        return {};
    const std::string words = driver_words(libbpf_complaint());
    return Error::system(-status, words.empty()
                                      ? "cannot replace the XDP program"
                                      : fmt::format("cannot replace the XDP program ({})", words));
}

Result<> detach_xdp(std::uint32_t ifindex, XdpMode mode, std::uint32_t present) {
    const auto old = Program::open_id(present);
    LIBBPF_OPTS(bpf_xdp_attach_opts, options, .old_prog_fd = old ? old->fd() : 0);
    const int status =
        bpf_xdp_detach(static_cast<int>(ifindex), flags_of(mode) | (old ? XDP_FLAGS_REPLACE : 0),
                       old ? &options : nullptr);
    if (status != 0)
        return Error::system(-status, "cannot detach the XDP program");
    return {};
}

Result<> look_on(bpf_program* program, const Program& target, const std::string& function) {
    const int status = bpf_program__set_attach_target(program, target.fd(), function.c_str());
    if (status != 0)
        return Error::system(-status, fmt::format("cannot aim a program at {}", function),
                             libbpf_complaint());
    return {};
}

Result<TestRun> test_run(const Program& program, std::span<const std::uint8_t> frame,
                         std::uint32_t repeat) {
    LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = frame.data(),
                .data_size_in = static_cast<__u32>(frame.size()),
                .repeat = static_cast<int>(repeat));
    if (bpf_prog_test_run_opts(program.fd(), &options) != 0)
        return Error::system(
            errno, fmt::format("cannot run the program over a frame of {} bytes", frame.size()));
    return TestRun{options.retval, options.duration};
}

} // namespace netctl::bpf
