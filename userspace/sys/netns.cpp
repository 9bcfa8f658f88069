// SPDX-License-Identifier: GPL-2.0-only
#include "sys/netns.hpp"

#include <cerrno>
#include <fcntl.h>
#include <filesystem>
#include <linux/net_namespace.h>
#include <linux/nsfs.h>
#include <linux/rtnetlink.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include <fmt/format.h>
#include <netlink/attr.h>
#include <netlink/netlink.h>

#include "sys/rtnetlink.hpp"

namespace netctl::sys {

namespace {
constexpr const char* own_namespace = "/proc/thread-self/ns/net";

Result<Fd> open_netns(const std::string& name) {
    const std::string path = name.find('/') == std::string::npos ? "/run/netns/" + name : name;
    Fd target(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!target)
        return Error::system(errno, fmt::format("cannot open network namespace '{}'", name),
                             "`ip netns` lists the names; a path such as /proc/PID/ns/net works "
                             "too");
    return target;
}

} // namespace

Result<> check_netns(const std::string& name) {
    const Fd target = NETCTL_TRY(open_netns(name));
    if (ioctl(target.get(), NS_GET_NSTYPE) != CLONE_NEWNET)
        return Error::failed(fmt::format("'{}' is no network namespace", name),
                             "`ip netns` lists the names; a path such as /proc/PID/ns/net works "
                             "too");
    return {};
}

Result<NetnsGuard> NetnsGuard::enter(const std::string& name) {
    if (name.empty())
        return NetnsGuard(Fd());
    const Fd target = NETCTL_TRY(open_netns(name));
    Fd previous(::open(own_namespace, O_RDONLY | O_CLOEXEC));
    if (!previous)
        return Error::system(errno, fmt::format("cannot open {}", own_namespace));
    if (setns(target.get(), CLONE_NEWNET) != 0) {
        const int code = errno;
        return Error::system(code, fmt::format("cannot enter network namespace '{}'", name),
                             code == EINVAL ? "the path is no network namespace"
                                            : "that takes CAP_SYS_ADMIN: run as root");
    }
    return NetnsGuard(std::move(previous));
}

Result<std::optional<NetnsGuard>> NetnsGuard::enter_if_there(const std::string& name) {
    auto guard = enter(name);
    if (guard)
        return std::optional(std::move(*guard));
    // EINVAL: the file of its name is there, and the namespace is mounted on it no more.
    if (guard.error().code == ENOENT || guard.error().code == EINVAL)
        return std::optional<NetnsGuard>();
    return std::move(guard).error();
}

Result<NetnsGuard> NetnsGuard::make() {
    Fd previous(::open(own_namespace, O_RDONLY | O_CLOEXEC));
    if (!previous)
        return Error::system(errno, fmt::format("cannot open {}", own_namespace));
    if (unshare(CLONE_NEWNET) != 0)
        return Error::system(errno, "cannot make a network namespace", "that takes CAP_SYS_ADMIN");
    return NetnsGuard(std::move(previous));
}

NetnsGuard::~NetnsGuard() {
    // Cannot fail for a descriptor that we came from; nothing sensible could be done if it did.
    if (previous_)
        setns(previous_.get(), CLONE_NEWNET);
}

namespace {

/// Takes the number out of the answer to RTM_GETNSID.
int read_number(nl_msg* message, void* into) {
    nlattr* number = nlmsg_find_attr(nlmsg_hdr(message), sizeof(rtgenmsg), NETNSA_NSID);
    if (number)
        *static_cast<int*>(into) = nla_get_s32(number);
    return NL_OK;
}

/// Asks for the number of the namespace `fd` (RTM_GETNSID), or has one given (RTM_NEWNSID).
Result<> ask_number(int type, int fd, int& number) {
    const Rtnetlink socket = NETCTL_TRY(connect_rtnetlink());
    const NetlinkMessage message(nlmsg_alloc_simple(type, NLM_F_REQUEST));
    if (!message)
        return Error::system(ENOMEM, "cannot make a netlink message");
    rtgenmsg header{AF_UNSPEC};
    int status = nlmsg_append(message.get(), &header, sizeof(header), NLMSG_ALIGNTO);
    if (status >= 0)
        status = nla_put_s32(message.get(), NETNSA_FD, fd);
    if (status >= 0 && type == RTM_NEWNSID)
        status = nla_put_s32(message.get(), NETNSA_NSID, NETNSA_NSID_NOT_ASSIGNED);
    nl_socket_modify_cb(socket.get(), NL_CB_VALID, NL_CB_CUSTOM, read_number, &number);
    if (status >= 0)
        status = nl_send_auto(socket.get(), message.get());
    if (status >= 0) // the number, an acknowledgement, or an error comes first
        status = nl_recvmsgs_default(socket.get());
    if (status < 0)
        return Error::failed(fmt::format("rtnetlink: {}", nl_geterror(status)));
    return {};
}

} // namespace

Result<int> netns_number(const std::string& path) {
    const Fd target(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!target)
        return Error::system(errno, fmt::format("cannot open network namespace '{}'", path));
    int number = NETNSA_NSID_NOT_ASSIGNED;
    NETCTL_TRY(ask_number(RTM_GETNSID, target.get(), number));
    if (number == NETNSA_NSID_NOT_ASSIGNED) {
        int none = 0;
        // Somebody else may be quicker, which is refused: the second question decides.
        const auto given = ask_number(RTM_NEWNSID, target.get(), none);
        NETCTL_TRY(ask_number(RTM_GETNSID, target.get(), number));
        if (number == NETNSA_NSID_NOT_ASSIGNED && !given)
            return given.error();
    }
    if (number == NETNSA_NSID_NOT_ASSIGNED)
        return Error::failed(fmt::format("network namespace '{}' gets no number here", path));
    return number;
}

Result<std::optional<std::string>> netns_of_inode(std::uint64_t inode) {
    using Name = std::optional<std::string>;
    if (inode == NETCTL_TRY(current_netns_inode()))
        return Name("");
    std::error_code none; // no directory: no names
    for (const auto& entry : std::filesystem::directory_iterator("/run/netns", none)) {
        struct stat info {};
        if (stat(entry.path().c_str(), &info) == 0 && info.st_ino == inode)
            return Name(entry.path().filename().string());
    }
    return Name();
}

Result<std::uint64_t> current_netns_inode() {
    struct stat info {};
    if (stat(own_namespace, &info) != 0)
        return Error::system(errno, fmt::format("cannot read {}", own_namespace));
    return static_cast<std::uint64_t>(info.st_ino);
}

} // namespace netctl::sys
