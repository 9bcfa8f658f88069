// SPDX-License-Identifier: GPL-2.0-only
#include "host/trials.hpp"

#include <cerrno>
#include <linux/if_ether.h>
#include <string>
#include <sys/socket.h>
#include <unistd.h>

#include "bpf/object.hpp"
#include "bpf/tc.hpp"
#include "bpf/xdp.hpp"
#include "doctor.skel.h"
#include "sys/netlink.hpp"
#include "sys/netns.hpp"
#include "sys/qdisc.hpp"

namespace netctl::host {

namespace {

constexpr std::uint32_t loopback = 1; ///< index of it in every network namespace

/// The object with this program alone in it, loaded. The error's words are the kernel's, without what the
/// verifier said of a program that it does not even look at.
class Loaded {
  public:
    static Result<Loaded> program(const std::string& name) {
        Loaded loaded(NETCTL_TRY(bpf::Skeleton<doctor>::open()));
        const bpf::Object object = loaded.skeleton_.object();
        NETCTL_TRY(object.load_only({&name, 1}));
        auto done = object.load();
        if (!done)
            return Error::system(done.error().code, "the kernel refuses the program");
        loaded.program_ = NETCTL_TRY(object.program(name));
        return loaded;
    }

    const bpf::Program& operator*() const { return program_; }
    /// Attaches it where its section says.
    Result<> attach(const std::string& name) const {
        auto link = skeleton_.object().attach(name);
        if (!link)
            return link.error();
        return {};
    }

  private:
    explicit Loaded(bpf::Skeleton<doctor> skeleton) : skeleton_(std::move(skeleton)) {}
    bpf::Skeleton<doctor> skeleton_;
    bpf::Program program_;
};

Result<> try_attached(const std::string& name) {
    return NETCTL_TRY(Loaded::program(name)).attach(name);
}

} // namespace

Result<> try_xdp(bool generic) {
    const Loaded program = NETCTL_TRY(Loaded::program("try_xdp"));
    const sys::NetnsGuard netns = NETCTL_TRY(sys::NetnsGuard::make());
    NETCTL_TRY(sys::make_veth("try0", "try1", getpid()));
    const sys::Interface veth = NETCTL_TRY(sys::find_interface("try0"));
    NETCTL_TRY(bpf::attach_xdp(veth.index, *program,
                               generic ? bpf::XdpMode::generic : bpf::XdpMode::native));
    return {};
}

Result<> try_xdp_frags() {
    NETCTL_TRY(Loaded::program("try_xdp_frags"));
    return {};
}

Result<> try_loop() {
    NETCTL_TRY(Loaded::program("try_loop"));
    return {};
}

Result<> try_tcx() {
    const Loaded program = NETCTL_TRY(Loaded::program("try_tc"));
    const sys::NetnsGuard netns = NETCTL_TRY(sys::NetnsGuard::make());
    if (!NETCTL_TRY(bpf::query_tcx(loopback, bpf::TcDirection::ingress)))
        return Error::unsupported("the kernel has no tcx");
    NETCTL_TRY(bpf::attach_tcx(loopback, bpf::TcDirection::ingress, *program, {}));
    return {};
}

Result<> try_clsact() {
    const Loaded program = NETCTL_TRY(Loaded::program("try_tc"));
    const sys::NetnsGuard netns = NETCTL_TRY(sys::NetnsGuard::make());
    NETCTL_TRY(bpf::create_clsact(loopback));
    return bpf::attach_filter({loopback, bpf::TcDirection::egress, 1, 1}, *program);
}

Result<> try_fq() {
    const sys::NetnsGuard netns = NETCTL_TRY(sys::NetnsGuard::make());
    return sys::create_fq(loopback);
}

Result<> try_sock_tracepoint() {
    return try_attached("try_sock_tracepoint");
}

Result<> try_function_exit() {
    return try_attached("try_function_exit");
}

Result<> try_packets() {
    const Loaded program = NETCTL_TRY(Loaded::program("try_packets"));
    const sys::NetnsGuard netns = NETCTL_TRY(sys::NetnsGuard::make());
    const Fd packets(socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0)); // 0: it gets none
    if (!packets)
        return Error::system(errno, "cannot make a packet socket");
    const int fd = (*program).fd();
    if (setsockopt(packets.get(), SOL_SOCKET, SO_ATTACH_BPF, &fd, sizeof fd) != 0)
        return Error::system(errno, "cannot attach a filter to a packet socket");
    return {};
}

} // namespace netctl::host
