// SPDX-License-Identifier: GPL-2.0-only
#include "sys/qdisc.hpp"

#include <algorithm>
#include <cerrno>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>

#include <fmt/format.h>
#include <netlink/attr.h>
#include <netlink/cache.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <netlink/route/classifier.h>
#include <netlink/route/qdisc.h>
#include <netlink/route/tc.h>

#include "sys/rtnetlink.hpp"

namespace netctl::sys {

namespace {

/// "nc", and no number that people choose.
constexpr std::uint32_t fq_handle = 0x6e630000;

/// A request about the root qdisc; `options` fills in more than the kind.
template <class Options>
Result<> ask(std::uint32_t ifindex, int type, int flags, std::uint32_t handle, const char* what,
             const Options& options) {
    const Rtnetlink socket = NETCTL_TRY(connect_rtnetlink());
    const NetlinkMessage message(nlmsg_alloc_simple(type, flags));
    tcmsg header{};
    header.tcm_family = AF_UNSPEC;
    header.tcm_ifindex = static_cast<int>(ifindex);
    header.tcm_parent = TC_H_ROOT;
    header.tcm_handle = handle;
    if (!message || nlmsg_append(message.get(), &header, sizeof header, NLMSG_ALIGNTO) < 0 ||
        !options(message.get()))
        return Error::system(ENOMEM, what);
    nl_send_auto(socket.get(), message.get());
    if (const int status = nl_wait_for_ack(socket.get()); status < 0)
        return netlink_error(what, status);
    return {};
}

} // namespace

Result<std::vector<Qdisc>> list_qdiscs(std::uint32_t ifindex) {
    const Rtnetlink socket = NETCTL_TRY(connect_rtnetlink());
    nl_cache* qdiscs = nullptr;
    if (const int status = rtnl_qdisc_alloc_cache(socket.get(), &qdiscs); status < 0)
        return netlink_error("cannot list qdiscs", status);
    const NetlinkCache cache(qdiscs);
    std::vector<Qdisc> found;
    for (nl_object* object = nl_cache_get_first(qdiscs); object;
         object = nl_cache_get_next(object)) {
        auto* qdisc = reinterpret_cast<rtnl_tc*>(object);
        if (static_cast<std::uint32_t>(rtnl_tc_get_ifindex(qdisc)) != ifindex)
            continue;
        const char* kind = rtnl_tc_get_kind(qdisc);
        found.push_back({kind ? kind : "", rtnl_tc_get_handle(qdisc), rtnl_tc_get_parent(qdisc)});
    }
    return found;
}

Result<Qdisc> root_qdisc(std::uint32_t ifindex) {
    for (const Qdisc& qdisc : NETCTL_TRY(list_qdiscs(ifindex)))
        if (qdisc.parent == TC_H_ROOT)
            return qdisc;
    return Qdisc{"noqueue", 0, TC_H_ROOT};
}

Result<bool> leaves_through_fq(std::uint32_t ifindex) {
    const std::vector<Qdisc> qdiscs = NETCTL_TRY(list_qdiscs(ifindex));
    const auto root = std::find_if(qdiscs.begin(), qdiscs.end(),
                                   [](const Qdisc& qdisc) { return qdisc.parent == TC_H_ROOT; });
    if (root == qdiscs.end())
        return false;
    if (root->kind != "mq")
        return root->kind == "fq";
    std::size_t queues = 0;
    for (const Qdisc& qdisc : qdiscs) {
        if (&qdisc == &*root || TC_H_MAJ(qdisc.parent) != TC_H_MAJ(root->handle))
            continue;
        if (qdisc.kind != "fq")
            return false;
        queues++;
    }
    return queues > 0;
}

Result<> create_fq(std::uint32_t ifindex) {
    // Half a second (NC_RATE_HORIZON_NS) of 1,500-byte packets at 200 Mbit/s in one flow, and ten such
    // flows; fq's own bounds, 100 and 10,000, are below what a rate may hold back.
    constexpr std::uint32_t flow_packets = 8192, packets = 81920;
    return ask(ifindex, RTM_NEWQDISC, NLM_F_CREATE | NLM_F_REPLACE, fq_handle,
               "cannot put the qdisc fq on the interface", [&](nl_msg* message) {
                   if (nla_put_string(message, TCA_KIND, "fq") < 0)
                       return false;
                   nlattr* nest = nla_nest_start(message, TCA_OPTIONS);
                   if (!nest || nla_put_u32(message, TCA_FQ_PLIMIT, packets) < 0 ||
                       nla_put_u32(message, TCA_FQ_FLOW_PLIMIT, flow_packets) < 0)
                       return false;
                   nla_nest_end(message, nest);
                   return true;
               });
}

bool is_own_fq(const Qdisc& root) {
    return root.kind == "fq" && root.handle == fq_handle;
}

Result<> remove_root(std::uint32_t ifindex) {
    return ask(ifindex, RTM_DELQDISC, 0, 0, "cannot remove the qdisc fq",
               [](nl_msg*) { return true; });
}

Result<std::vector<ClsactFilter>> list_clsact_filters(std::uint32_t ifindex, bool egress) {
    std::vector<ClsactFilter> found;
    const std::vector<Qdisc> qdiscs = NETCTL_TRY(list_qdiscs(ifindex));
    if (std::none_of(qdiscs.begin(), qdiscs.end(), [](const Qdisc& qdisc) {
            return qdisc.kind == "clsact" || qdisc.kind == "ingress";
        }))
        return found;
    const Rtnetlink socket = NETCTL_TRY(connect_rtnetlink());
    nl_cache* filters = nullptr;
    const std::uint32_t parent =
        TC_H_MAKE(TC_H_CLSACT, egress ? TC_H_MIN_EGRESS : TC_H_MIN_INGRESS);
    if (const int status =
            rtnl_cls_alloc_cache(socket.get(), static_cast<int>(ifindex), parent, &filters);
        status < 0)
        return netlink_error("cannot list filters", status);
    const NetlinkCache cache(filters);
    for (nl_object* object = nl_cache_get_first(filters); object;
         object = nl_cache_get_next(object)) {
        auto* filter = reinterpret_cast<rtnl_tc*>(object);
        const char* kind = rtnl_tc_get_kind(filter);
        // A classifier's own entry has no handle, only its filters have.
        if (rtnl_tc_get_handle(filter) == 0)
            continue;
        found.push_back({kind ? kind : "", rtnl_cls_get_prio(reinterpret_cast<rtnl_cls*>(object)),
                         rtnl_tc_get_handle(filter)});
    }
    std::sort(found.begin(), found.end(),
              [](const ClsactFilter& a, const ClsactFilter& b) { return a.priority < b.priority; });
    return found;
}

} // namespace netctl::sys
