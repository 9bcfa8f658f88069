// SPDX-License-Identifier: GPL-2.0-only
#include "features/redirect/controller.hpp"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <fcntl.h>
#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <thread>
#include <unistd.h>

#include <bpf/bpf.h>
#include <fmt/format.h>

#include "core/log.hpp"
#include "core/transaction.hpp"
#include "datapath/root.hpp"
#include "features/redirect/joiner.hpp"
#include "redirect.skel.h"
#include "redirect_ioctl.skel.h"
#include "sys/clock.hpp"

namespace netctl::redirect {

namespace {

using Skeleton = bpf::Skeleton<::redirect>;

/// Readers of a pin directory see all of it or nothing: it is filled under this name.
const std::string staging = "redirect%2enew";
const std::string directory = "redirect";

constexpr std::array<const char*, NC_RD_REASONS> reason_names{
    "none",   "stream", "lost",    "no-peer", "identity", "outside", "rule",     "blocking",
    "option", "ulp",    "closing", "full",    "kernel",   "again",   "disabled", "run",
    "big",    "ahead",  "closed",  "set",     "turned",   "failed",  "drained",  "busy"};

/// Afterwards no program runs that began before.
void wait_for_programs() {
    if (syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) != 0)
        std::this_thread::sleep_for(std::chrono::milliseconds(200));
}

Result<Fd> duplicate(int fd) {
    Fd copy(fcntl(fd, F_DUPFD_CLOEXEC, 0));
    if (!copy)
        return Error::system(errno, "cannot duplicate a handle");
    return copy;
}

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

Result<bpf::Link> attach_program(int program, int cgroup, bpf_attach_type type,
                                 const std::string& path) {
    const int link = bpf_link_create(program, cgroup, type, nullptr);
    if (link < 0)
        return Error::system(errno, fmt::format("cannot attach to the cgroup {}", path),
                             "a program attached above without BPF_F_ALLOW_MULTI forbids it; see "
                             "bpftool cgroup tree");
    return bpf::Link(Fd(link));
}

Result<> run_on_frame(int program, const char* name, std::uint32_t mark = 0) {
    std::array<std::uint8_t, 64> frame{};
    __sk_buff context{};
    context.mark = mark;
    LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = frame.data(),
                .data_size_in = static_cast<__u32>(frame.size()), .ctx_in = &context,
                .ctx_size_in = sizeof(context));
    if (bpf_prog_test_run_opts(program, &options) != 0)
        return Error::system(errno, fmt::format("cannot run the program {}", name));
    if (options.retval != 0)
        return Error::failed(fmt::format("the program {} cannot find its maps", name));
    return {};
}

/// The programs of cgroups besides rd_sockops, and where they are attached.
struct Hook {
    const char* program;
    bpf_attach_type type;
};
constexpr std::array hooks{Hook{"rd_connect4", BPF_CGROUP_INET4_CONNECT},
                           Hook{"rd_connect6", BPF_CGROUP_INET6_CONNECT},
                           Hook{"rd_peername4", BPF_CGROUP_INET4_GETPEERNAME},
                           Hook{"rd_peername6", BPF_CGROUP_INET6_GETPEERNAME},
                           Hook{"rd_recvmsg4", BPF_CGROUP_UDP4_RECVMSG},
                           Hook{"rd_recvmsg6", BPF_CGROUP_UDP6_RECVMSG},
                           Hook{"rd_getsockopt", BPF_CGROUP_GETSOCKOPT},
                           Hook{"rd_setsockopt", BPF_CGROUP_SETSOCKOPT}};

/// Programs of redirect_ioctl.bpf.c.
constexpr std::array ioctl_programs{"rd_ioctl4", "rd_ioctl6"};

std::string link_name(const Hook& hook) {
    return fmt::format("link_{}", hook.program + std::strlen("rd_"));
}

} // namespace

std::string reason_name(std::uint32_t reason) {
    return reason < reason_names.size() ? reason_names[reason] : fmt::format("#{}", reason);
}

// ---- Datapath ----

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
    const auto program = [&](const char* name) -> Result<Fd> {
        const bpf::Program found = NETCTL_TRY(object.program(name));
        return duplicate(found.fd());
    };
    made.sockops_ = NETCTL_TRY(program("rd_sockops"));
    for (const Hook& hook : hooks)
        made.hooks_.push_back(NETCTL_TRY(program(hook.program)));
    made.join_ = NETCTL_TRY(object.program("rd_join"));
    made.leave_ = NETCTL_TRY(object.program("rd_leave"));
    made.nudge_ = NETCTL_TRY(object.program("rd_nudge"));

    // The map holds the program from here on: a socket in the map always has it.
    const bpf::Program verdict = NETCTL_TRY(object.program("rd_msg"));
    if (bpf_prog_attach(verdict.fd(), made.socks_.fd(), BPF_SK_MSG_VERDICT, 0) != 0)
        return Error::system(errno, "cannot attach the sk_msg program to its map");
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
    for (const char* name : ioctl_programs) {
        const bpf::Program program = NETCTL_TRY(object.program(name));
        const int link = bpf_link_create(program.fd(), 0, BPF_TRACE_FEXIT, nullptr);
        if (link < 0)
            return Error::system(errno, fmt::format("cannot attach {}", name));
        ioctl_links_.emplace_back(Fd(link));
    }
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
    made.socks_ = NETCTL_TRY(dir.open_map("socks"));
    made.events_ = NETCTL_TRY(dir.open_map("events"));
    made.join_ = NETCTL_TRY(dir.open_program("prog_join"));
    made.leave_ = NETCTL_TRY(dir.open_program("prog_leave"));
    made.nudge_ = NETCTL_TRY(dir.open_program("prog_nudge"));
    return made;
}

Result<> Datapath::attach(const sys::Cgroup& cgroup) {
    const Fd fd = NETCTL_TRY(sys::open_cgroup(cgroup));
    for (std::size_t i = 0; i < hooks.size(); i++)
        hook_links_.push_back(
            NETCTL_TRY(attach_program(hooks_[i].get(), fd.get(), hooks[i].type, cgroup.path)));
    sockops_link_ =
        NETCTL_TRY(attach_program(sockops_.get(), fd.get(), BPF_CGROUP_SOCK_OPS, cgroup.path));
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
    for (std::size_t i = 0; i < hooks.size(); i++)
        NETCTL_TRY(dir.pin(link_name(hooks[i]), hook_links_[i]));
    for (std::size_t i = 0; i < ioctl_links_.size(); i++)
        NETCTL_TRY(dir.pin(fmt::format("link_{}", ioctl_programs[i] + std::strlen("rd_")),
                           ioctl_links_[i]));
    return dir.pin("link_sockops", sockops_link_);
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
        NETCTL_TRY(run_on_frame(join_.fd(), "rd_join"));
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
    const Fd link(bpf_link_create(nudge_.fd(), 0, BPF_TRACE_ITER, nullptr));
    const Fd sockets(link ? bpf_iter_create(link.get()) : -1);
    if (!sockets)
        return Error::system(errno, "cannot run the program rd_nudge");
    std::array<char, 64> nothing;
    ssize_t got = 0;
    do
        got = ::read(sockets.get(), nothing.data(), nothing.size());
    while (got > 0 || (got < 0 && (errno == EAGAIN || errno == EINTR)));
    if (got < 0)
        return Error::system(errno, "cannot run the program rd_nudge");
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
    NETCTL_TRY(run_on_frame(leave_.fd(), "rd_leave", index));
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
    const std::uint32_t zero = 0;
    nc_rd_stats sum{};
    constexpr std::size_t words = sizeof(sum) / sizeof(__u64);
    const auto values = NETCTL_TRY((bpf::lookup_per_cpu<std::uint32_t, nc_rd_stats>(stats_, zero)));
    std::array<__u64, words> total{};
    for (const nc_rd_stats& value : values) {
        std::array<__u64, words> one{};
        std::memcpy(one.data(), &value, sizeof(value));
        for (std::size_t i = 0; i < words; i++)
            total[i] += one[i];
    }
    std::memcpy(&sum, total.data(), sizeof(sum));
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

template <class R> Result<> Datapath::commit_bank(const BankOf<R>& bank) const {
    nc_rd_conf next = NETCTL_TRY(conf());
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
template Result<> Datapath::commit_bank(const BankOf<nc_rd_rule>& bank) const;
template Result<> Datapath::commit_bank(const BankOf<nc_rd_to>& bank) const;

// ---- Controller ----

bpf::PinDir redirect_dir(const datapath::Root& root) {
    return root.dir().sub(directory);
}

Result<Datapath> open_enabled(const datapath::Root& root) {
    const bpf::PinDir dir = redirect_dir(root);
    if (!dir.has("link_sockops"))
        return Error::failed("redirection is not enabled", "netctl redirect enable");
    return Datapath::open(dir);
}

namespace {

Result<> check_not_enabled(const datapath::Root& root) {
    if (!redirect_dir(root).has("link_sockops"))
        return {};
    const nc_rd_conf conf = NETCTL_TRY(NETCTL_TRY(open_enabled(root)).conf());
    return Error::failed(fmt::format("redirection is enabled already, on the cgroup {}",
                                     sys::cgroup_name(conf.cgroup).value_or("(gone)")),
                         (conf.flags & NC_RD_DRAINING) != 0
                             ? "it is being disabled: netctl redirect disable"
                             : "netctl redirect disable comes first");
}

} // namespace

Result<Controller::Enabled> Controller::enable(const EnableOptions& options) {
    NETCTL_TRY(check_cases(options.force)); // what is wrong with the words comes first
    Enabled enabled;
    const sys::Cgroup cgroup = NETCTL_TRY(sys::find_cgroup(options.cgroup));
    NETCTL_TRY(check_not_enabled(NETCTL_TRY(datapath::Root::open(root_))));
    // Takes seconds, and nothing of the root: nobody waits for it.
    const Fitness fitness = NETCTL_TRY(prove_fit(options));
    enabled.notes.insert(enabled.notes.end(), fitness.notes.begin(), fitness.notes.end());
    const auto root = NETCTL_TRY(datapath::LockedRoot::acquire(root_));
    NETCTL_TRY(check_not_enabled(root));

    Datapath datapath = NETCTL_TRY(Datapath::load(fitness.tuning));
    nc_rd_conf conf{};
    conf.abi_version = NC_ABI_VERSION;
    conf.flags = fitness.flags;
    conf.next_rule_id = conf.next_to_id = 1;
    conf.cgroup = cgroup.id;
    conf.generation = 1;
    NETCTL_TRY(datapath.set_conf(conf));

    const bpf::PinDir& parent = root.dir();
    const bpf::PinDir aside = parent.sub(staging);
    NETCTL_TRY(aside.remove_all()); // of one that was killed half way
    Transaction transaction(enabled.notes);
    transaction.or_else(aside.path(), [aside] { return aside.remove_all(); });
    NETCTL_TRY(datapath.attach(cgroup));
    NETCTL_TRY(datapath.pin(aside));
    NETCTL_TRY(parent.rename(staging, directory));
    return std::move(transaction).commit([&](Aftermath& after) {
        after.value("the root's generation", root.next_generation(), std::uint64_t{0});
        enabled.cgroup = cgroup.name;
        return enabled;
    });
}

Result<bool> Controller::disable(unsigned timeout_ms) {
    std::optional<Datapath> draining;
    {
        const auto root = NETCTL_TRY(datapath::LockedRoot::open(root_));
        NETCTL_TRY(root.dir().sub(staging).remove_all());
        const bpf::PinDir dir = redirect_dir(root);
        if (!dir.exists())
            return false;
        if (dir.has("conf")) { // else the last disable was killed behind the draining
            draining = NETCTL_TRY(Datapath::open(dir));
            nc_rd_conf conf = NETCTL_TRY(draining->conf());
            conf.flags |= NC_RD_DRAINING;
            NETCTL_TRY(draining->set_conf(conf));
        }
    }
    // It takes as long as readers take, and meanwhile nobody has to wait for the root.
    if (draining) {
        wait_for_programs(); // nothing joins any more
        const std::size_t left = NETCTL_TRY(draining->leave_all(NC_RD_REASON_DRAINED, timeout_ms));
        if (left != 0)
            return Error::failed(
                fmt::format("{} connection{} hold{} redirected data that {} reader has not read "
                            "yet; all others are on TCP, and nothing joins any more",
                            left, left == 1 ? "" : "s", left == 1 ? "s" : "",
                            left == 1 ? "its" : "their"),
                "netctl redirect list names them; run netctl redirect disable again when they have "
                "read or are closed");
    }
    const auto root = NETCTL_TRY(datapath::LockedRoot::open(root_));
    const bpf::PinDir dir = redirect_dir(root);
    if (!dir.exists())
        return true; // somebody else has disabled it, too
    if (dir.has("conf")) {
        const nc_rd_conf conf = NETCTL_TRY(NETCTL_TRY(Datapath::open(dir)).conf());
        if ((conf.flags & NC_RD_DRAINING) == 0)
            return true; // and it was enabled again
        // The order keeps a killed disable repeatable: `conf` last but for the rest.
        NETCTL_TRY(dir.unpin("link_sockops"));
    }
    std::vector<std::string> notes;
    Aftermath after(notes);
    for (const Hook& hook : hooks)
        after.tidy(link_name(hook), dir.unpin(link_name(hook)));
    for (const char* name : {"prog_join", "conf"})
        after.tidy(name, dir.unpin(name));
    after.tidy(dir.path(), dir.remove_all());
    after.value("the root's generation", root.next_generation(), std::uint64_t{0});
    for (const std::string& note : notes)
        warn(note);
    return true;
}

Result<bool> Controller::joiner_runs() const {
    const auto root = NETCTL_TRY(datapath::Root::open(root_));
    return bpf::DirLock::is_held(redirect_dir(root));
}

Result<Status> Controller::status() const {
    const auto root = NETCTL_TRY(datapath::Root::open(root_));
    Status status;
    if (!redirect_dir(root).has("link_sockops"))
        return status;
    const Datapath datapath = NETCTL_TRY(open_enabled(root));
    const nc_rd_conf conf = NETCTL_TRY(datapath.conf());
    status.enabled = true;
    status.draining = (conf.flags & NC_RD_DRAINING) != 0;
    status.allow_blocking = (conf.flags & NC_RD_ALLOW_BLOCKING) != 0;
    status.cross_netns = (conf.flags & NC_RD_CROSS_NETNS) != 0;
    status.forced = (conf.flags & NC_RD_FORCED) != 0;
    status.mends_fionread = (conf.flags & NC_RD_MENDS_FIONREAD) != 0;
    status.joiner = bpf::DirLock::is_held(redirect_dir(root));
    status.cgroup = sys::cgroup_name(conf.cgroup).value_or(fmt::format("#{}", conf.cgroup));
    status.rules = rules_in(NETCTL_TRY(datapath.read_bank<nc_rd_rule>()));
    status.to_rules = rules_in(NETCTL_TRY(datapath.read_bank<nc_rd_to>()));
    for (const nc_rd_pair& pair : NETCTL_TRY(datapath.pairs())) {
        status.joined += pair.state == NC_RD_JOINED;
        status.leaving += pair.state == NC_RD_LEAVING;
    }
    status.stats = NETCTL_TRY(datapath.stats());
    return status;
}

Result<> Controller::run(bool wait, const std::function<bool()>& stop,
                         const std::function<void()>& ready,
                         const std::function<void(const std::string&)>& tell) {
    const auto pause = [] { std::this_thread::sleep_for(std::chrono::milliseconds(200)); };
    while (!stop()) {
        std::optional<datapath::Root> root = NETCTL_TRY(datapath::Root::open(root_));
        const bpf::PinDir dir = redirect_dir(*root);
        if (!dir.has("link_sockops")) {
            root.reset();
            if (!wait)
                return Error::failed("redirection is not enabled", "netctl redirect enable");
            pause();
            continue;
        }
        auto lock = bpf::DirLock::try_acquire(dir);
        if (!lock) {
            root.reset();
            if (lock.error().code == EWOULDBLOCK && !wait)
                return Error::failed("another joiner is running for this root");
            if (lock.error().code != EWOULDBLOCK)
                return std::move(lock).error();
            pause();
            continue;
        }
        Datapath datapath = NETCTL_TRY(Datapath::open(dir));
        root.reset(); // it goes on for long
        Joiner joiner = NETCTL_TRY(Joiner::open(datapath));
        ready();
        while (!stop() && lock->still_at(dir)) {
            NETCTL_TRY(joiner.poll(200));
            if (const std::string trouble = joiner.take_trouble(); !trouble.empty())
                tell(trouble);
        }
        if (!stop() && !wait)
            return {}; // disabled: our work is done
    }
    return {};
}

} // namespace netctl::redirect
