// SPDX-License-Identifier: GPL-2.0-only
//
// The verbs of `rule` and of `to`: lists of the same kind, kept in two banks each.
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <type_traits>

#include <fmt/format.h>

#include "datapath/root.hpp"
#include "features/redirect/controller.hpp"
#include "sys/cgroup.hpp"

namespace netctl::redirect {

namespace {

Result<nc_rd_rule> to_kernel(const Rule& rule) {
    nc_rd_rule kernel{};
    kernel.id = rule.id;
    kernel.action = rule.allow ? NC_RD_ALLOW : NC_RD_DENY;
    kernel.dport_low = rule.dport.low;
    kernel.dport_high = rule.dport.high;
    if (rule.dst) {
        const bool ipv4 = rule.dst->address.family == Family::ipv4;
        kernel.family = ipv4 ? 4 : 6;
        kernel.prefix_length = rule.dst->length;
        std::memcpy(kernel.dst, rule.dst->address.bytes.data(), ipv4 ? 4 : 16);
    }
    if (!rule.cgroup.empty())
        kernel.cgroup = NETCTL_TRY(sys::find_cgroup(rule.cgroup)).id;
    if (!rule.exe.empty()) {
        struct stat status {};
        if (stat(rule.exe.c_str(), &status) != 0)
            return Error::system(errno, fmt::format("exe {}", rule.exe));
        if (!S_ISREG(status.st_mode))
            return Error::usage(fmt::format("exe {} is no file", rule.exe));
        kernel.exe_inode = status.st_ino;
        kernel.exe_device = major(status.st_dev) << 20 | minor(status.st_dev);
    }
    return kernel;
}

/// For rules that netctl did not write.
std::string describe(const nc_rd_rule& kernel) {
    Rule rule;
    rule.allow = kernel.action == NC_RD_ALLOW;
    rule.dport = {kernel.dport_low, kernel.dport_high};
    if (kernel.family != 0) {
        Prefix prefix;
        prefix.address = to_address(kernel.family, kernel.dst);
        prefix.length = kernel.prefix_length;
        rule.dst = prefix;
    }
    if (kernel.cgroup != 0)
        rule.cgroup = sys::cgroup_name(kernel.cgroup).value_or(fmt::format("#{}", kernel.cgroup));
    if (kernel.exe_inode != 0)
        rule.exe = fmt::format("#{}:{}", kernel.exe_device, kernel.exe_inode);
    return to_string(rule);
}

Result<nc_rd_to> to_kernel(const ToRule& rule) {
    nc_rd_to kernel{};
    const bool ipv4 = rule.target.family == Family::ipv4;
    kernel.used = 1;
    kernel.family = ipv4 ? 4 : 6;
    kernel.prefix_length = rule.dst.length;
    kernel.protocol = rule.protocol;
    kernel.dport_low = rule.dport.low;
    kernel.dport_high = rule.dport.high;
    kernel.target_port = rule.target_port;
    std::memcpy(kernel.dst, rule.dst.address.bytes.data(), ipv4 ? 4 : 16);
    std::memcpy(kernel.target, rule.target.bytes.data(), ipv4 ? 4 : 16);
    if (!rule.cgroup.empty())
        kernel.cgroup = NETCTL_TRY(sys::find_cgroup(rule.cgroup)).id;
    return kernel;
}

std::string describe(const nc_rd_to& kernel) {
    ToRule rule;
    rule.dst.address = to_address(kernel.family, kernel.dst);
    rule.dst.length = kernel.prefix_length;
    rule.dport = {kernel.dport_low, kernel.dport_high};
    rule.protocol = kernel.protocol;
    rule.target = to_address(kernel.family, kernel.target);
    rule.target_port = kernel.target_port;
    if (kernel.cgroup != 0)
        rule.cgroup = sys::cgroup_name(kernel.cgroup).value_or(fmt::format("#{}", kernel.cgroup));
    return to_string(rule);
}

/// Puts a rule at a place, and moves those behind it on.
template <class R>
void insert(Datapath::BankOf<R>& bank, std::size_t place, const R& rule, const std::string& text) {
    const auto at = static_cast<std::ptrdiff_t>(place);
    std::move_backward(bank.rules.begin() + at, bank.rules.end() - 1, bank.rules.end());
    std::move_backward(bank.texts.begin() + at, bank.texts.end() - 1, bank.texts.end());
    bank.rules[place] = rule;
    bank.texts[place].fill(0);
    std::copy(text.begin(), text.end(), bank.texts[place].begin());
}

/// False if there is no rule of this number.
template <class R> bool erase(Datapath::BankOf<R>& bank, std::uint32_t id) {
    const auto end = bank.rules.begin() + static_cast<std::ptrdiff_t>(used(bank));
    const auto found =
        std::find_if(bank.rules.begin(), end, [id](const R& rule) { return rule.id == id; });
    if (found == end)
        return false;
    const auto at = found - bank.rules.begin();
    const auto close = [at](auto& array) {
        std::move(array.begin() + at + 1, array.end(), array.begin() + at);
        array.back() = {};
    };
    close(bank.rules);
    close(bank.texts);
    return true;
}

/// Whether joined connections were let in by this kind of rule.
template <class R> constexpr bool lets_join = std::is_same_v<R, nc_rd_rule>;

} // namespace

template <class R> Result<std::vector<Controller::ListedRule>> Controller::list_of() const {
    const auto root = NETCTL_TRY(datapath::Root::open(root_));
    const auto bank = NETCTL_TRY(NETCTL_TRY(open_enabled(root)).read_bank<R>());
    std::vector<ListedRule> all;
    for (std::size_t i = 0; i < used(bank); i++) {
        const auto& text = bank.texts[i];
        const std::string ours(text.data(), strnlen(text.data(), text.size()));
        all.push_back({bank.rules[i].id, ours.empty() ? describe(bank.rules[i]) : ours});
    }
    return all;
}

template <class R>
Result<std::uint32_t> Controller::add_to_list(R kernel, const std::string& text, bool first) {
    const auto root = NETCTL_TRY(datapath::LockedRoot::open(root_));
    const Datapath datapath = NETCTL_TRY(open_enabled(root));
    nc_rd_conf conf = NETCTL_TRY(datapath.conf());
    auto bank = NETCTL_TRY(datapath.read_bank<R>());
    const std::size_t count = used(bank), longest = bank.texts[0].size() - 1;
    if (text.size() > longest)
        return Error::usage(fmt::format("the rule is longer than {} characters", longest));
    if (count == bank.rules.size())
        return Error::failed(fmt::format("there are {} rules, and no room for more", count));
    kernel.id = (conf.*ListConf<R>::next_id)++;
    NETCTL_TRY(datapath.set_conf(conf));
    insert(bank, first ? 0 : count, kernel, text);
    NETCTL_TRY(datapath.commit_bank(bank));
    if (lets_join<R> && first && count != 0)
        NETCTL_TRY(datapath.leave_all(NC_RD_REASON_DRAINED, 0));
    NETCTL_TRY(root.next_generation());
    return kernel.id;
}

template <class R> Result<> Controller::delete_from_list(std::uint32_t id, const char* where) {
    const auto root = NETCTL_TRY(datapath::LockedRoot::open(root_));
    const Datapath datapath = NETCTL_TRY(open_enabled(root));
    auto bank = NETCTL_TRY(datapath.read_bank<R>());
    if (!erase(bank, id))
        return Error::failed(fmt::format("there is no rule {}", id), where);
    NETCTL_TRY(datapath.commit_bank(bank));
    if (lets_join<R>)
        NETCTL_TRY(datapath.leave_all(NC_RD_REASON_DRAINED, 0));
    NETCTL_TRY(root.next_generation());
    return {};
}

Result<std::vector<Controller::ListedRule>> Controller::rules() const {
    return list_of<nc_rd_rule>();
}

Result<std::vector<Controller::ListedRule>> Controller::to_rules() const {
    return list_of<nc_rd_to>();
}

Result<std::uint32_t> Controller::add_rule(const Rule& rule, bool first) {
    const nc_rd_rule kernel = NETCTL_TRY(to_kernel(rule));
    const auto conf_now = [&]() -> Result<nc_rd_conf> {
        const auto root = NETCTL_TRY(datapath::Root::open(root_));
        return NETCTL_TRY(open_enabled(root)).conf();
    };
    const nc_rd_conf conf = NETCTL_TRY(conf_now());
    if (!rule.exe.empty() && (conf.flags & NC_RD_NEVER_PASS) != 0)
        return Error::unsupported(
            "this kernel's FIONREAD miscounts what passes while a joined connection's executables "
            "are being learnt (self-test: fionread-passed), so rules cannot ask for 'exe'",
            "use dport, dst or cgroup; or enable with --force fionread-passed");
    return add_to_list(kernel, to_string(rule), first);
}

Result<std::uint32_t> Controller::add_to(const ToRule& rule) {
    return add_to_list(NETCTL_TRY(to_kernel(rule)), to_string(rule), false);
}

Result<> Controller::delete_rule(std::uint32_t id) {
    return delete_from_list<nc_rd_rule>(id, "netctl redirect rule list");
}

Result<> Controller::delete_to(std::uint32_t id) {
    return delete_from_list<nc_rd_to>(id, "netctl redirect to list");
}

Result<> Controller::flush_rules() {
    const auto root = NETCTL_TRY(datapath::LockedRoot::open(root_));
    const Datapath datapath = NETCTL_TRY(open_enabled(root));
    NETCTL_TRY(datapath.commit_bank(Datapath::Bank{}));
    NETCTL_TRY(datapath.leave_all(NC_RD_REASON_DRAINED, 0));
    NETCTL_TRY(root.next_generation());
    return {};
}

} // namespace netctl::redirect
