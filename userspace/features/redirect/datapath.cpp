// SPDX-License-Identifier: GPL-2.0-only
#include "features/redirect/datapath.hpp"

#include <cerrno>
#include <chrono>
#include <cstring>
#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <thread>
#include <unistd.h>

#include <fmt/format.h>

#include "bpf/connect.hpp"
#include "bpf/per_cpu_sum.hpp"
#include "bpf/sockets.hpp"
#include "redirect.skel.h"
#include "redirect_ioctl.skel.h"
#include "sys/clock.hpp"

namespace netctl::redirect {

namespace {

using Skeleton = bpf::Skeleton<::redirect>;

constexpr std::array<const char*, NC_RD_REASONS> reason_names{
    "none",   "stream", "lost",    "no-peer", "identity", "outside", "rule",     "blocking",
    "option", "ulp",    "closing", "full",    "kernel",   "again",   "disabled", "run",
    "big",    "ahead",  "closed",  "set",     "turned",   "failed",  "drained",  "busy"};

/// Opens a pinned map and compares the value's size with the ABI's.
Result<bpf::RawMap> open_map(const bpf::PinDir& dir, const std::string& name, std::size_t size) {
    bpf::RawMap map = NETCTL_TRY(dir.open_map(name));
    const bpf::MapInfo info = NETCTL_TRY(bpf::map_info(map.fd()));
    if (info.value_size != size)
        return Error::failed(
            fmt::format("map {} has values of {} bytes, not {}", map.name(), info.value_size, size),
            "it was made by another version of netctl");
    return map;
}

Result<> run_program(const bpf::Program& program, const char* name, std::uint32_t mark = 0) {
    auto answer = bpf::run_skb(program, mark);
    if (!answer)
        return std::move(answer).error().within(name);
    if (*answer != 0)
        return Error::failed(fmt::format("the program {} cannot find its maps", name));
    return {};
}

/// The programs of cgroups, and where they are attached. Connections are announced by the last.
struct HookedProgram {
    const char* program;
    bpf::CgroupHook hook;
};
constexpr std::array hooks{HookedProgram{"rd_connect4", bpf::CgroupHook::connect4},
                           HookedProgram{"rd_connect6", bpf::CgroupHook::connect6},
                           HookedProgram{"rd_peername4", bpf::CgroupHook::getpeername4},
                           HookedProgram{"rd_peername6", bpf::CgroupHook::getpeername6},
                           HookedProgram{"rd_recvmsg4", bpf::CgroupHook::recvmsg4},
                           HookedProgram{"rd_recvmsg6", bpf::CgroupHook::recvmsg6},
                           HookedProgram{"rd_getsockopt", bpf::CgroupHook::getsockopt},
                           HookedProgram{"rd_setsockopt", bpf::CgroupHook::setsockopt},
                           HookedProgram{"rd_sockops", bpf::CgroupHook::sock_ops}};

/// Those that are attached while a rule of `to` is about UDP: each datagram of a socket that is not connected asks
/// them. Their programs are pinned beside the links.
constexpr std::array datagram_hooks{HookedProgram{"rd_sendmsg4", bpf::CgroupHook::sendmsg4},
                                    HookedProgram{"rd_sendmsg6", bpf::CgroupHook::sendmsg6}};

/// Programs of redirect_ioctl.bpf.c.
constexpr std::array ioctl_programs{"rd_ioctl4", "rd_ioctl6"};

/// What the link of a program is pinned as.
std::string link_name(const char* program) {
    return fmt::format("link_{}", program + std::strlen("rd_"));
}

/// What a program is pinned as that is attached later.
std::string program_name(const char* program) {
    return fmt::format("prog_{}", program + std::strlen("rd_"));
}

} // namespace

std::string reason_name(std::uint32_t reason) {
    return reason < reason_names.size() ? reason_names[reason] : fmt::format("#{}", reason);
}

void wait_for_programs() {
    if (syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) != 0)
        std::this_thread::sleep_for(std::chrono::milliseconds(200));
}

Result<Datapath> Datapath::load(const Tuning& tuning) {
    const Skeleton skeleton = NETCTL_TRY(Skeleton::open());
    const bpf::Object object = skeleton.object();
    const auto set = [&](const char* name, const auto& value) {
        return object.set_rodata(name, std::as_bytes(std::span(&value, 1)));
    };
    const std::uint32_t blocking = tuning.allow_blocking ? 1 : 0;
    NETCTL_TRY(set("rd_turns", tuning.turns));
    NETCTL_TRY(set("rd_max_message", tuning.max_message));
    NETCTL_TRY(set("rd_max_run", tuning.max_run));
    NETCTL_TRY(set("rd_max_ahead", tuning.max_ahead));
    NETCTL_TRY(set("rd_grace_ns", tuning.grace_ns));
    NETCTL_TRY(set("rd_allow_blocking", blocking));
    NETCTL_TRY(object.load());

    Datapath made;
    made.socks_ = NETCTL_TRY(object.map("rd_socks"));
    made.pairs_ = NETCTL_TRY(object.map("rd_pairs"));
    made.events_ = NETCTL_TRY(object.map("rd_events"));
    made.request_ = NETCTL_TRY(object.map("rd_request"));
    made.stats_ = NETCTL_TRY(object.map("rd_stats"));
    made.rules_.rules = NETCTL_TRY(object.map("rd_rules"));
    made.rules_.texts = NETCTL_TRY(object.map("rd_rule_text"));
    made.conf_ = NETCTL_TRY(object.map("rd_conf"));
    made.recent_ = NETCTL_TRY(object.map("rd_recent"));
    made.mine_ = NETCTL_TRY(object.map("rd_mine"));
    made.to_.rules = NETCTL_TRY(object.map("rd_to"));
    made.to_.texts = NETCTL_TRY(object.map("rd_to_text"));
    made.to_stats_ = NETCTL_TRY(object.map("rd_to_stats"));
    made.to_targets_ = NETCTL_TRY(object.map("rd_to_targets"));
    made.to_health_ = NETCTL_TRY(object.map("rd_to_health"));
    made.to_failed_ = NETCTL_TRY(object.map("rd_to_failed"));
    made.to_mine_ = NETCTL_TRY(object.map("rd_to_mine"));
    for (const HookedProgram& hooked : hooks)
        made.hooks_.push_back(NETCTL_TRY(object.program(hooked.program)));
    for (const HookedProgram& hooked : datagram_hooks)
        made.datagram_hooks_.push_back(NETCTL_TRY(object.program(hooked.program)));
    made.join_ = NETCTL_TRY(object.program("rd_join"));
    made.leave_ = NETCTL_TRY(object.program("rd_leave"));
    made.nudge_ = NETCTL_TRY(object.program("rd_nudge"));

    // The map holds the program from here on: a socket in the map always has it.
    NETCTL_TRY(bpf::attach_msg_verdict(NETCTL_TRY(object.program("rd_msg")), made.socks_));
    if (tuning.mend_fionread)
        NETCTL_TRY(made.mend_fionread());
    return made;
}

Result<> Datapath::mend_fionread() {
    const auto skeleton = NETCTL_TRY(bpf::Skeleton<::redirect_ioctl>::open());
    const bpf::Object object = skeleton.object();
    NETCTL_TRY(object.reuse("rd_mine", mine_));
    NETCTL_TRY(object.reuse("rd_pairs", pairs_));
    NETCTL_TRY(object.load());
    for (const char* name : ioctl_programs)
        ioctl_links_.push_back(NETCTL_TRY(object.attach(name)));
    return {};
}

Result<Datapath> Datapath::open(const bpf::PinDir& dir) {
    Datapath made;
    made.pairs_ = NETCTL_TRY(open_map(dir, "pairs", sizeof(nc_rd_pair)));
    made.request_ = NETCTL_TRY(open_map(dir, "request", sizeof(nc_rd_request)));
    made.stats_ = NETCTL_TRY(open_map(dir, "stats", sizeof(nc_rd_stats)));
    made.rules_.rules = NETCTL_TRY(open_map(dir, "rules", sizeof(nc_rd_rule)));
    made.rules_.texts = NETCTL_TRY(open_map(dir, "rule_text", sizeof(Bank::texts[0])));
    made.conf_ = NETCTL_TRY(open_map(dir, "conf", sizeof(nc_rd_conf)));
    made.recent_ = NETCTL_TRY(open_map(dir, "recent", sizeof(nc_rd_recent)));
    made.to_.rules = NETCTL_TRY(open_map(dir, "to", sizeof(nc_rd_to)));
    made.to_.texts = NETCTL_TRY(open_map(dir, "to_text", sizeof(Bank::texts[0])));
    if (NETCTL_TRY(dir.look_for("to_stats"))) // an older netctl had none
        made.to_stats_ = NETCTL_TRY(open_map(dir, "to_stats", sizeof(nc_rd_to_stats)));
    if (NETCTL_TRY(dir.look_for("to_targets"))) // nor these
        made.to_targets_ = NETCTL_TRY(open_map(dir, "to_targets", sizeof(nc_rd_to_target)));
    if (NETCTL_TRY(dir.look_for("to_health"))) { // nor these
        made.to_health_ = NETCTL_TRY(open_map(dir, "to_health", sizeof(nc_rd_to_health)));
        made.to_failed_ = NETCTL_TRY(open_map(dir, "to_failed", sizeof(nc_rd_to_failed)));
        made.to_mine_ = NETCTL_TRY(open_map(dir, "to_mine", sizeof(nc_rd_to_mine)));
    }
    made.socks_ = NETCTL_TRY(dir.open_map("socks"));
    made.events_ = NETCTL_TRY(dir.open_map("events"));
    made.join_ = NETCTL_TRY(dir.open_program("prog_join"));
    made.leave_ = NETCTL_TRY(dir.open_program("prog_leave"));
    made.nudge_ = NETCTL_TRY(dir.open_program("prog_nudge"));
    return made;
}

Result<> Datapath::attach(const sys::Cgroup& cgroup) {
    const Fd fd = NETCTL_TRY(sys::open_cgroup(cgroup));
    for (std::size_t i = 0; i < hooks.size(); i++) {
        auto link = bpf::attach_to_cgroup(fd.get(), hooks_[i], hooks[i].hook);
        if (!link)
            return std::move(link).error().within(cgroup.path);
        hook_links_.push_back(std::move(link).value());
    }
    return {};
}

Result<> Datapath::pin(const bpf::PinDir& dir) const {
    NETCTL_TRY(dir.create());
    NETCTL_TRY(dir.pin("socks", socks_));
    NETCTL_TRY(dir.pin("pairs", pairs_));
    NETCTL_TRY(dir.pin("events", events_));
    NETCTL_TRY(dir.pin("request", request_));
    NETCTL_TRY(dir.pin("stats", stats_));
    NETCTL_TRY(dir.pin("rules", rules_.rules));
    NETCTL_TRY(dir.pin("rule_text", rules_.texts));
    NETCTL_TRY(dir.pin("conf", conf_));
    NETCTL_TRY(dir.pin("recent", recent_));
    NETCTL_TRY(dir.pin("prog_join", join_));
    NETCTL_TRY(dir.pin("prog_leave", leave_));
    NETCTL_TRY(dir.pin("prog_nudge", nudge_));
    NETCTL_TRY(dir.pin("to", to_.rules));
    NETCTL_TRY(dir.pin("to_text", to_.texts));
    NETCTL_TRY(dir.pin("to_stats", to_stats_));
    NETCTL_TRY(dir.pin("to_targets", to_targets_));
    NETCTL_TRY(dir.pin("to_health", to_health_));
    NETCTL_TRY(dir.pin("to_failed", to_failed_));
    NETCTL_TRY(dir.pin("to_mine", to_mine_));
    for (std::size_t i = 0; i < datagram_hooks.size(); i++)
        NETCTL_TRY(dir.pin(program_name(datagram_hooks[i].program), datagram_hooks_[i]));
    for (std::size_t i = 0; i < hooks.size(); i++)
        NETCTL_TRY(dir.pin(link_name(hooks[i].program), hook_links_[i]));
    for (std::size_t i = 0; i < ioctl_links_.size(); i++)
        NETCTL_TRY(dir.pin(link_name(ioctl_programs[i]), ioctl_links_[i]));
    return {};
}

Result<> Datapath::attach_anew(const bpf::PinDir& dir, const sys::Cgroup& cgroup) {
    const Fd fd = NETCTL_TRY(sys::open_cgroup(cgroup));
    std::vector<HookedProgram> attached(hooks.begin(), hooks.end());
    for (const HookedProgram& hooked : datagram_hooks)
        if (NETCTL_TRY(dir.look_for(link_name(hooked.program))))
            attached.push_back(hooked);
    for (const HookedProgram& hooked : attached) {
        const std::string name = link_name(hooked.program);
        const bpf::LinkInfo info = NETCTL_TRY(NETCTL_TRY(dir.open_link(name)).info());
        const bpf::Program program = NETCTL_TRY(bpf::Program::open_id(info.program_id));
        auto link = bpf::attach_to_cgroup(fd.get(), program, hooked.hook);
        if (!link)
            return std::move(link).error().within(cgroup.path);
        NETCTL_TRY(dir.replace(name, *link));
    }
    return {};
}

Result<bool> Datapath::can_serve_datagrams(const bpf::PinDir& dir) {
    for (const HookedProgram& hooked : datagram_hooks)
        if (!NETCTL_TRY(dir.look_for(program_name(hooked.program))))
            return false;
    return true;
}

Result<> Datapath::serve_datagrams(const bpf::PinDir& dir,
                                   const std::optional<sys::Cgroup>& cgroup) {
    for (const HookedProgram& hooked : datagram_hooks) {
        const std::string name = link_name(hooked.program);
        if (NETCTL_TRY(dir.look_for(name)) == cgroup.has_value())
            continue;
        if (!cgroup) {
            NETCTL_TRY(dir.unpin(name));
            continue;
        }
        const bpf::Program program = NETCTL_TRY(dir.open_program(program_name(hooked.program)));
        const Fd fd = NETCTL_TRY(sys::open_cgroup(*cgroup));
        auto link = bpf::attach_to_cgroup(fd.get(), program, hooked.hook);
        if (!link)
            return std::move(link).error().within(cgroup->path);
        NETCTL_TRY(dir.pin(name, *link));
    }
    return {};
}

Result<> Datapath::unpin_hooks(const bpf::PinDir& dir) {
    NETCTL_TRY(serve_datagrams(dir, std::nullopt));
    for (auto hooked = hooks.rbegin(); hooked != hooks.rend(); ++hooked)
        NETCTL_TRY(dir.unpin(link_name(hooked->program)));
    return {};
}

Result<nc_rd_conf> Datapath::conf() const {
    const std::uint32_t zero = 0;
    nc_rd_conf conf{};
    NETCTL_TRY(conf_.lookup(&zero, &conf));
    return conf;
}

Result<> Datapath::set_conf(const nc_rd_conf& conf) const {
    const std::uint32_t zero = 0;
    return conf_.update(&zero, &conf);
}

Result<Datapath::Answer> Datapath::join(const nc_rd_event& event, const Peer& peer, bool tentative,
                                        bool final) {
    // Each run looks at this many slots; see find_room() in redirect.bpf.c.
    constexpr std::uint32_t slots_a_run = 16;
    const std::uint32_t zero = 0;
    for (std::uint32_t searched = 0;; searched += slots_a_run) {
        nc_rd_request request{};
        request.event = event;
        request.peer_netns = peer.netns;
        request.peer_nsid = peer.number;
        request.tentative = tentative ? 1 : 0;
        request.final = final ? 1 : 0;
        request.slot = cursor_;
        request.state = searched + slots_a_run >= NC_RD_SLOTS; // the last try: count it
        NETCTL_TRY(request_.update(&zero, &request));
        NETCTL_TRY(run_program(join_, "rd_join"));
        NETCTL_TRY(request_.lookup(&zero, &request));
        // Kernels since 6.18 refuse a program memory when just then somebody holds the allocator's lock.
        if (request.error == -ENOMEM && request.state == 0) {
            std::this_thread::yield();
            continue;
        }
        if (request.reason != NC_RD_REASON_FULL) {
            if (request.reason == NC_RD_REASON_NONE)
                cursor_ = (request.slot + 1) % NC_RD_SLOTS;
            return Answer{request.reason, request.slot, request.error, request.unheard,
                          request.key};
        }
        cursor_ = (cursor_ + slots_a_run) % NC_RD_SLOTS;
        if (request.state != 0)
            return Answer{request.reason};
    }
}

Result<nc_rd_nudged> Datapath::nudge(const nc_rd_behind& behind) const {
    const std::uint32_t zero = 0;
    nc_rd_request request{};
    request.slot = behind.slot;
    request.reason = behind.end;
    NETCTL_TRY(request_.update(&zero, &request));
    auto run = bpf::run_iterator(nudge_);
    if (!run)
        return std::move(run).error().within("rd_nudge");
    NETCTL_TRY(request_.lookup(&zero, &request));
    return static_cast<nc_rd_nudged>(request.state);
}

Result<std::uint32_t> Datapath::leave(std::uint32_t slot, std::uint32_t reason,
                                      LeaveRequest which) const {
    const auto index = static_cast<std::uint32_t>(which);
    nc_rd_request request{};
    request.slot = slot;
    request.reason = reason;
    NETCTL_TRY(request_.update(&index, &request));
    NETCTL_TRY(run_program(leave_, "rd_leave", index));
    NETCTL_TRY(request_.lookup(&index, &request));
    return request.state;
}

Result<std::size_t> Datapath::leave_all(std::uint32_t reason, unsigned timeout_ms) const {
    const std::uint64_t end = sys::now_ms() + timeout_ms;
    for (unsigned pause = 1;; pause = std::min(2 * pause, 50U)) {
        const std::vector<nc_rd_pair> all = NETCTL_TRY(pairs());
        std::size_t left = 0;
        for (std::uint32_t slot = 0; slot < all.size(); slot++)
            if (alive(all[slot]) &&
                NETCTL_TRY(leave(slot, reason, LeaveRequest::locked)) != NC_RD_FREE)
                left++;
        if (left == 0 || sys::now_ms() >= end)
            return left;
        std::this_thread::sleep_for(std::chrono::milliseconds(pause));
    }
}

Result<std::vector<nc_rd_pair>> Datapath::pairs() const {
    std::vector<nc_rd_pair> all(NC_RD_SLOTS);
    NETCTL_TRY(pairs_.read_array(all.data(), sizeof(nc_rd_pair), NC_RD_SLOTS));
    return all;
}

Result<nc_rd_pair> Datapath::pair(std::uint32_t slot) const {
    nc_rd_pair pair{};
    NETCTL_TRY(pairs_.lookup(&slot, &pair));
    return pair;
}

Result<nc_rd_stats> Datapath::stats() const {
    nc_rd_stats sum = NETCTL_TRY(bpf::sum_per_cpu<nc_rd_stats>(stats_));
    for (const nc_rd_pair& pair : NETCTL_TRY(pairs()))
        if (alive(pair))
            for (int i = 0; i < 2; i++) {
                sum.redirected_messages += pair.redirected_messages[i];
                sum.redirected_bytes += pair.redirected_bytes[i];
                sum.passed_messages += pair.passed_messages[i];
                sum.passed_bytes += pair.passed_bytes[i];
            }
    return sum;
}

Result<nc_rd_to_stats> Datapath::to_stats() const {
    return to_stats_ ? bpf::sum_per_cpu<nc_rd_to_stats>(to_stats_)
                     : Result<nc_rd_to_stats>(nc_rd_to_stats{});
}

Result<std::vector<std::pair<nc_rd_event, nc_rd_recent>>> Datapath::recent() const {
    std::vector<std::pair<nc_rd_event, nc_rd_recent>> all;
    const bpf::MapKeys keys = NETCTL_TRY(recent_.keys());
    for (const std::uint8_t* bytes : keys) {
        nc_rd_event key{};
        std::memcpy(&key, bytes, sizeof key);
        nc_rd_recent value{};
        if (NETCTL_TRY(recent_.lookup(&key, &value)))
            all.emplace_back(key, value);
    }
    return all;
}

template <class R> Result<Datapath::BankOf<R>> Datapath::read_bank() const {
    const auto first = static_cast<std::uint32_t>((NETCTL_TRY(conf()).*ListConf<R>::bank & 1) *
                                                  BankOf<R>{}.rules.size());
    BankOf<R> all;
    for (std::uint32_t i = 0; i < all.rules.size(); i++) {
        const std::uint32_t index = first + i;
        NETCTL_TRY(list<R>().rules.lookup(&index, &all.rules[i]));
        NETCTL_TRY(list<R>().texts.lookup(&index, all.texts[i].data()));
    }
    return all;
}

template <class R> Result<> Datapath::commit_bank(const BankOf<R>& bank, nc_rd_conf next) const {
    auto& live = next.*ListConf<R>::bank;
    live = (live & 1) ^ 1;
    for (std::uint32_t i = 0; i < bank.rules.size(); i++) {
        const auto index = static_cast<std::uint32_t>(live * bank.rules.size() + i);
        NETCTL_TRY(list<R>().rules.update(&index, &bank.rules[i]));
        NETCTL_TRY(list<R>().texts.update(&index, bank.texts[i].data()));
    }
    if constexpr (std::is_same_v<R, nc_rd_rule>)
        next.generation++; // joined connections were judged by the former
    NETCTL_TRY(set_conf(next));
    wait_for_programs(); // the former bank may be written again now
    return {};
}

template Result<Datapath::BankOf<nc_rd_rule>> Datapath::read_bank() const;
template Result<Datapath::BankOf<nc_rd_to>> Datapath::read_bank() const;
template <class R> Result<> Datapath::commit_bank(const BankOf<R>& bank) const {
    return commit_bank(bank, NETCTL_TRY(conf()));
}

template Result<> Datapath::commit_bank(const BankOf<nc_rd_rule>& bank, nc_rd_conf next) const;
template Result<> Datapath::commit_bank(const BankOf<nc_rd_to>& bank, nc_rd_conf next) const;
template Result<> Datapath::commit_bank(const BankOf<nc_rd_rule>& bank) const;
template Result<> Datapath::commit_bank(const BankOf<nc_rd_to>& bank) const;

} // namespace netctl::redirect
