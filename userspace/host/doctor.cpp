// SPDX-License-Identifier: GPL-2.0-only
#include "host/doctor.hpp"

#include <algorithm>
#include <cerrno>
#include <functional>
#include <sys/utsname.h>
#include <unistd.h>

#include <fmt/format.h>

#include "bpf/bpffs.hpp"
#include "bpf/pin_dir.hpp"
#include "bpf/probe.hpp"
#include "datapath/conntrack.hpp"
#include "features/policy/controller.hpp"
#include "features/redirect/controller.hpp"
#include "host/trials.hpp"
#include "sys/cgroup.hpp"
#include "sys/netlink.hpp"
#include "sys/text_file.hpp"

namespace netctl::host {

namespace {

Result<> has_btf() {
    if (access("/sys/kernel/btf/vmlinux", R_OK) == 0)
        return {};
    return Error::system(errno, "cannot read /sys/kernel/btf/vmlinux");
}

Result<> has_jit() {
    const std::string text = NETCTL_TRY(sys::read_text("/proc/sys/net/core/bpf_jit_enable"));
    if (text.starts_with('0'))
        return Error::unsupported("net.core.bpf_jit_enable is 0");
    return {};
}

Result<> has_bpffs() {
    const std::string known = NETCTL_TRY(sys::read_text("/proc/filesystems"));
    if (known.find("\tbpf\n") != std::string::npos)
        return {};
    return Error::unsupported("the kernel knows no file system of the type bpf");
}

Result<> has_cgroups() {
    NETCTL_TRY(sys::cgroup_mount());
    return {};
}

Result<> try_policy_layer(nc_policy_layer layer) {
    return policy::try_layer(layer, NETCTL_TRY(sys::cgroup_mount()));
}

/// As `redirect enable` does, with nothing forced.
Result<> try_redirect() {
    NETCTL_TRY(redirect::prove_fit({}));
    return {};
}

struct Trial {
    const char* area;
    const char* name;
    const char* what;
    Need need;
    const char* remedy;
    std::function<Result<>()> run;
};

/// All that is asked. A new one is a line here.
const std::vector<Trial>& trials() {
    static const std::vector<Trial> all{
        {"host", "capabilities", "CAP_BPF and CAP_NET_ADMIN", Need::required, "run as root",
         bpf::check_capabilities},
        {"host", "bpffs", "file system for pins", Need::required,
         "a kernel with CONFIG_BPF_SYSCALL", has_bpffs},
        {"host", "btf", "types of the kernel", Need::required,
         "a kernel with CONFIG_DEBUG_INFO_BTF", has_btf},
        {"host", "jit", "programs as machine code", Need::wanted,
         "sysctl net.core.bpf_jit_enable=1: programs are interpreted, several times slower",
         has_jit},
        {"host", "loop", "loops in programs", Need::required, "Linux 5.17 or later", try_loop},
        {"host", "cgroup2", "cgroup v2 hierarchy", Need::wanted,
         "mount -t cgroup2 none /sys/fs/cgroup: policy and redirect need it", has_cgroups},
        {"xdp", "generic", "frames in the network stack", Need::required,
         "without it there is no XDP at all", [] { return try_xdp(true); }},
        {"xdp", "native", "frames in the driver", Need::wanted,
         "generic mode works, and costs more", [] { return try_xdp(false); }},
        {"xdp", "fragments", "frames of several buffers", Need::wanted,
         "Linux 5.18 or later; without it native mode takes no MTU above some 3,500 bytes",
         try_xdp_frags},
        {"xdp", "conntrack", "entries of connection tracking", Need::wanted,
         "modprobe nf_conntrack, in Linux 6.0 or later; only rules with `ct` need it, in tc as "
         "well",
         datapath::try_conntrack},
        {"tc", "clsact", "classifiers in the qdisc clsact", Need::wanted,
         "modprobe sch_ingress cls_bpf; not needed where there is tcx", try_clsact},
        {"tc", "tcx", "classifiers in links of their own", Need::wanted,
         "Linux 6.6 or later; tc attach takes clsact instead", try_tcx},
        {"tc", "fq", "qdisc fq, for rates that delay", Need::wanted,
         "modprobe sch_fq; without it `rate` drops what is above", try_fq},
        {"policy", "cgroup", "connections of a cgroup", Need::required,
         "cgroup v2, and a kernel with CONFIG_CGROUP_BPF",
         [] { return try_policy_layer(NC_LAYER_CGROUP); }},
        {"policy", "lsm", "connections in a security module", Need::wanted,
         "boot with bpf in lsm=; the cgroup layer works without it, netctl-policy(8) tells what it "
         "misses",
         [] { return try_policy_layer(NC_LAYER_LSM); }},
        {"redirect", "sockmap", "local connections past TCP", Need::required,
         "netctl redirect selftest shows each case", try_redirect},
        {"trace", "tracepoints", "typed socket tracepoints", Need::wanted,
         "Linux 6.3 or later; function exits serve as well", try_sock_tracepoint},
        {"trace", "functions", "exits of kernel functions", Need::wanted,
         "only needed where there are no tracepoints", try_function_exit},
        {"trace", "packets", "packet sockets with a filter", Need::wanted,
         "CAP_NET_RAW; system calls can be traced without", try_packets},
    };
    return all;
}

/// Whether the kernel said no, or did not let us ask. EPERM is a no of those who may do everything: some kernels
/// and containers refuse kinds of programs so.
Answer answer_to(const Error& error, bool may_all) {
    if (!may_all && (error.code == EPERM || error.code == EACCES))
        return Answer::unknown;
    return Answer::no;
}

/// The names of the features that have pins in the root.
Result<std::vector<std::string>> features_in_use(const RootOptions& root) {
    const bpf::PinDir dir = NETCTL_TRY(bpf::PinDir::open(NETCTL_TRY(bpf::root_path(root.path))));
    if (!dir.exists())
        return std::vector<std::string>();
    NETCTL_TRY(dir.open_directory());
    return dir.list();
}

Ability try_out(const Trial& trial, const std::vector<std::string>& in_use, bool may_all) {
    Ability ability{trial.area, trial.name, trial.what, trial.need, false, Answer::yes, {}, {}};
    ability.in_use = ability.area == "host"
                         ? !in_use.empty()
                         : std::find(in_use.begin(), in_use.end(), ability.area) != in_use.end();
    const auto outcome = trial.run();
    if (outcome)
        return ability;
    ability.answer = answer_to(outcome.error(), may_all);
    ability.detail = outcome.error().what.string();
    ability.remedy = ability.answer == Answer::unknown ? "run as root" : trial.remedy;
    return ability;
}

std::vector<InterfaceHooks> look_at_interfaces() {
    std::vector<InterfaceHooks> all;
    const auto interfaces = sys::list_interfaces();
    if (!interfaces)
        return all;
    for (const sys::Interface& interface : *interfaces) {
        InterfaceHooks hooks{interface.name, interface.kind, {}, {}, {}, {}};
        if (const auto features = bpf::query_xdp_features(interface.index); features.has_value())
            hooks.features = *features;
        if (const auto occupant = bpf::query_xdp(interface.index))
            hooks.xdp = *occupant;
        const auto chain = [&](bpf::TcDirection direction) {
            auto programs = bpf::query_tcx(interface.index, direction);
            return programs.has_value() && *programs ? **programs : std::vector<bpf::TcxProgram>();
        };
        hooks.ingress = chain(bpf::TcDirection::ingress);
        hooks.egress = chain(bpf::TcDirection::egress);
        all.push_back(std::move(hooks));
    }
    return all;
}

} // namespace

Answer Findings::healthy() const {
    Answer healthy = root_was_read ? Answer::yes : Answer::unknown;
    for (const Ability& ability : abilities) {
        if (!ability.in_use || ability.need != Need::required || ability.answer == Answer::yes)
            continue;
        if (ability.answer == Answer::no)
            return Answer::no;
        healthy = Answer::unknown;
    }
    return healthy;
}

Findings examine(const RootOptions& root) {
    Findings findings;
    findings.version = NETCTL_VERSION;
    utsname host{};
    if (uname(&host) == 0)
        findings.kernel = fmt::format("{} {}", host.release, host.machine);
    auto in_use = features_in_use(root);
    findings.root_was_read = in_use.has_value();
    const std::vector<std::string> features = std::move(in_use).value_or({});
    const bool may_all = geteuid() == 0 && bpf::check_capabilities().has_value();
    for (const Trial& trial : trials())
        findings.abilities.push_back(try_out(trial, features, may_all));
    findings.interfaces = look_at_interfaces();
    return findings;
}

} // namespace netctl::host
