// SPDX-License-Identifier: GPL-2.0-only
#include "features/redirect/controller.hpp"

#include <algorithm>
#include <arpa/inet.h>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <linux/membarrier.h>
#include <set>
#include <sstream>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <thread>
#include <unistd.h>

#include <bpf/bpf.h>
#include <fmt/format.h>

#include "core/log.hpp"
#include "datapath/root.hpp"
#include "features/redirect/selftest.hpp"
#include "redirect.skel.h"
#include "sys/netns.hpp"

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

std::uint64_t now_ms() {
    return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(
                                          std::chrono::steady_clock::now().time_since_epoch())
                                          .count());
}

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

Result<Fd> open_pin(const std::string& path) {
    Fd fd(bpf_obj_get(path.c_str()));
    if (!fd)
        return Error::system(errno, fmt::format("cannot open {}", path));
    return fd;
}

Result<> pin_fd(int fd, const std::string& path) {
    if (bpf_obj_pin(fd, path.c_str()) != 0)
        return Error::system(errno, fmt::format("cannot pin {}", path));
    return {};
}

/// Opens a pinned map and compares the value's size with the ABI's.
Result<bpf::RawMap> open_map(const bpf::PinDir& dir, const std::string& name, std::size_t size) {
    bpf::RawMap map = NETCTL_TRY(bpf::RawMap::open(dir.path_of(name)));
    const bpf::MapInfo info = NETCTL_TRY(bpf::map_info(map.fd()));
    if (info.value_size != size)
        return Error::failed(fmt::format("map {} has values of {} bytes, not {}", dir.path_of(name),
                                         info.value_size, size),
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

Result<> run_on_frame(int program, const char* name) {
    std::array<std::uint8_t, 64> frame{};
    LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = frame.data(),
                .data_size_in = static_cast<__u32>(frame.size()));
    if (bpf_prog_test_run_opts(program, &options) != 0)
        return Error::system(errno, fmt::format("cannot run the program {}", name));
    if (options.retval != 0)
        return Error::failed(fmt::format("the program {} cannot find its maps", name));
    return {};
}

/// The cookie of the current network namespace; 0 if it cannot be had.
std::uint64_t current_netns_cookie() {
    constexpr int so_netns_cookie = 71;
    const Fd fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    std::uint64_t cookie = 0;
    socklen_t size = sizeof(cookie);
    if (!fd || getsockopt(fd.get(), SOL_SOCKET, so_netns_cookie, &cookie, &size) != 0)
        return 0;
    return cookie;
}

Address to_address(std::uint32_t family, const __be32* words) {
    Address address;
    address.family = family == 4 ? Family::ipv4 : Family::ipv6;
    std::memcpy(address.bytes.data(), words, family == 4 ? 4 : 16);
    return address;
}

bool alive(const nc_rd_pair& pair) {
    return pair.state != NC_RD_FREE;
}

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

bool is_end(const nc_rd_rule& rule) {
    return rule.action == NC_RD_END;
}
bool is_end(const nc_rd_to& rule) {
    return rule.used == 0;
}

template <class R> std::size_t used(const Datapath::BankOf<R>& bank) {
    const auto end = std::find_if(bank.rules.begin(), bank.rules.end(),
                                  [](const R& rule) { return is_end(rule); });
    return static_cast<std::size_t>(end - bank.rules.begin());
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

template <class R> std::vector<Controller::ListedRule> listed(const Datapath::BankOf<R>& bank) {
    std::vector<Controller::ListedRule> all;
    for (std::size_t i = 0; i < used(bank); i++) {
        const auto& text = bank.texts[i];
        const std::string ours(text.data(), strnlen(text.data(), text.size()));
        all.push_back({bank.rules[i].id, ours.empty() ? describe(bank.rules[i]) : ours});
    }
    return all;
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
    const std::uint32_t never_pass = tuning.never_pass ? 1 : 0;
    NETCTL_TRY(set("rd_turns", tuning.turns));
    NETCTL_TRY(set("rd_max_message", tuning.max_message));
    NETCTL_TRY(set("rd_max_run", tuning.max_run));
    NETCTL_TRY(set("rd_max_ahead", tuning.max_ahead));
    NETCTL_TRY(set("rd_grace_ns", tuning.grace_ns));
    NETCTL_TRY(set("rd_allow_blocking", blocking));
    NETCTL_TRY(set("rd_never_pass", never_pass));
    NETCTL_TRY(object.load());

    Datapath made;
    made.socks_ = NETCTL_TRY(object.map("rd_socks"));
    made.pairs_ = NETCTL_TRY(object.map("rd_pairs"));
    made.events_ = NETCTL_TRY(object.map("rd_events"));
    made.request_ = NETCTL_TRY(object.map("rd_request"));
    made.stats_ = NETCTL_TRY(object.map("rd_stats"));
    made.rules_ = NETCTL_TRY(object.map("rd_rules"));
    made.texts_ = NETCTL_TRY(object.map("rd_rule_text"));
    made.conf_ = NETCTL_TRY(object.map("rd_conf"));
    made.recent_ = NETCTL_TRY(object.map("rd_recent"));
    made.to_ = NETCTL_TRY(object.map("rd_to"));
    made.to_texts_ = NETCTL_TRY(object.map("rd_to_text"));
    const auto program = [&](const char* name) -> Result<Fd> {
        const bpf::Program found = NETCTL_TRY(object.program(name));
        return duplicate(found.fd());
    };
    made.sockops_ = NETCTL_TRY(program("rd_sockops"));
    for (const Hook& hook : hooks)
        made.hooks_.push_back(NETCTL_TRY(program(hook.program)));
    made.join_ = NETCTL_TRY(program("rd_join"));
    made.leave_ = NETCTL_TRY(program("rd_leave"));

    // The map holds the program from here on: a socket in the map always has it.
    const bpf::Program verdict = NETCTL_TRY(object.program("rd_msg"));
    if (bpf_prog_attach(verdict.fd(), made.socks_.fd(), BPF_SK_MSG_VERDICT, 0) != 0)
        return Error::system(errno, "cannot attach the sk_msg program to its map");
    return made;
}

Result<Datapath> Datapath::open(const bpf::PinDir& dir) {
    Datapath made;
    made.pairs_ = NETCTL_TRY(open_map(dir, "pairs", sizeof(nc_rd_pair)));
    made.request_ = NETCTL_TRY(open_map(dir, "request", sizeof(nc_rd_request)));
    made.stats_ = NETCTL_TRY(open_map(dir, "stats", sizeof(nc_rd_stats)));
    made.rules_ = NETCTL_TRY(open_map(dir, "rules", sizeof(nc_rd_rule)));
    made.texts_ = NETCTL_TRY(open_map(dir, "rule_text", sizeof(Bank::texts[0])));
    made.conf_ = NETCTL_TRY(open_map(dir, "conf", sizeof(nc_rd_conf)));
    made.recent_ = NETCTL_TRY(open_map(dir, "recent", sizeof(nc_rd_recent)));
    made.to_ = NETCTL_TRY(open_map(dir, "to", sizeof(nc_rd_to)));
    made.to_texts_ = NETCTL_TRY(open_map(dir, "to_text", sizeof(Bank::texts[0])));
    made.socks_ = NETCTL_TRY(bpf::RawMap::open(dir.path_of("socks")));
    made.events_ = NETCTL_TRY(bpf::RawMap::open(dir.path_of("events")));
    made.join_ = NETCTL_TRY(open_pin(dir.path_of("prog_join")));
    made.leave_ = NETCTL_TRY(open_pin(dir.path_of("prog_leave")));
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
    NETCTL_TRY(socks_.pin(dir.path_of("socks")));
    NETCTL_TRY(pairs_.pin(dir.path_of("pairs")));
    NETCTL_TRY(events_.pin(dir.path_of("events")));
    NETCTL_TRY(request_.pin(dir.path_of("request")));
    NETCTL_TRY(stats_.pin(dir.path_of("stats")));
    NETCTL_TRY(rules_.pin(dir.path_of("rules")));
    NETCTL_TRY(texts_.pin(dir.path_of("rule_text")));
    NETCTL_TRY(conf_.pin(dir.path_of("conf")));
    NETCTL_TRY(recent_.pin(dir.path_of("recent")));
    NETCTL_TRY(pin_fd(join_.get(), dir.path_of("prog_join")));
    NETCTL_TRY(pin_fd(leave_.get(), dir.path_of("prog_leave")));
    NETCTL_TRY(to_.pin(dir.path_of("to")));
    NETCTL_TRY(to_texts_.pin(dir.path_of("to_text")));
    for (std::size_t i = 0; i < hooks.size(); i++)
        NETCTL_TRY(hook_links_[i].pin(dir.path_of(link_name(hooks[i]))));
    return sockops_link_.pin(dir.path_of("link_sockops"));
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

Result<Datapath::Answer> Datapath::join(const nc_rd_event& event, const Peer& peer,
                                        bool tentative) {
    // Each run looks at this many slots; see find_room() in redirect.bpf.c.
    constexpr std::uint32_t slots_a_run = 16;
    const std::uint32_t zero = 0;
    for (std::uint32_t searched = 0;; searched += slots_a_run) {
        nc_rd_request request{};
        request.event = event;
        request.peer_netns = peer.netns;
        request.peer_nsid = peer.number;
        request.tentative = tentative ? 1 : 0;
        request.slot = cursor_;
        request.state = searched + slots_a_run >= NC_RD_SLOTS; // the last try: count it
        NETCTL_TRY(request_.update(&zero, &request));
        NETCTL_TRY(run_on_frame(join_.get(), "rd_join"));
        NETCTL_TRY(request_.lookup(&zero, &request));
        if (request.reason != NC_RD_REASON_FULL) {
            if (request.reason == NC_RD_REASON_NONE)
                cursor_ = (request.slot + 1) % NC_RD_SLOTS;
            return Answer{request.reason, request.slot, request.error};
        }
        cursor_ = (cursor_ + slots_a_run) % NC_RD_SLOTS;
        if (request.state != 0)
            return Answer{request.reason, 0, 0};
    }
}

Result<std::uint32_t> Datapath::leave(std::uint32_t slot, std::uint32_t reason) const {
    const std::uint32_t one = 1;
    nc_rd_request request{};
    request.slot = slot;
    request.reason = reason;
    NETCTL_TRY(request_.update(&one, &request));
    NETCTL_TRY(run_on_frame(leave_.get(), "rd_leave"));
    NETCTL_TRY(request_.lookup(&one, &request));
    return request.state;
}

Result<std::size_t> Datapath::leave_all(std::uint32_t reason, unsigned timeout_ms) const {
    const std::uint64_t end = now_ms() + timeout_ms;
    for (unsigned pause = 1;; pause = std::min(2 * pause, 50U)) {
        const std::vector<nc_rd_pair> all = NETCTL_TRY(pairs());
        std::size_t left = 0;
        for (std::uint32_t slot = 0; slot < all.size(); slot++)
            if (alive(all[slot]) && NETCTL_TRY(leave(slot, reason)) != NC_RD_FREE)
                left++;
        if (left == 0 || now_ms() >= end)
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
    nc_rd_event key{};
    // The map changes while it is read: stop after as many as it holds.
    for (bool more = NETCTL_TRY(recent_.next_key(nullptr, &key)); more && all.size() < 4096;
         more = NETCTL_TRY(recent_.next_key(&key, &key))) {
        nc_rd_recent value{};
        if (NETCTL_TRY(recent_.lookup(&key, &value)))
            all.emplace_back(key, value);
    }
    return all;
}

namespace {

template <class R>
Result<Datapath::BankOf<R>> read(const bpf::RawMap& rules, const bpf::RawMap& texts,
                                 std::uint32_t bank) {
    Datapath::BankOf<R> all;
    for (std::uint32_t i = 0; i < all.rules.size(); i++) {
        const auto index = static_cast<std::uint32_t>(bank * all.rules.size() + i);
        NETCTL_TRY(rules.lookup(&index, &all.rules[i]));
        NETCTL_TRY(texts.lookup(&index, all.texts[i].data()));
    }
    return all;
}

template <class R>
Result<> write(const bpf::RawMap& rules, const bpf::RawMap& texts, std::uint32_t bank,
               const Datapath::BankOf<R>& all) {
    for (std::uint32_t i = 0; i < all.rules.size(); i++) {
        const auto index = static_cast<std::uint32_t>(bank * all.rules.size() + i);
        NETCTL_TRY(rules.update(&index, &all.rules[i]));
        NETCTL_TRY(texts.update(&index, all.texts[i].data()));
    }
    return {};
}

} // namespace

Result<Datapath::Bank> Datapath::read_bank(std::uint32_t bank) const {
    return read<nc_rd_rule>(rules_, texts_, bank);
}

Result<Datapath::ToBank> Datapath::read_to_bank(std::uint32_t bank) const {
    return read<nc_rd_to>(to_, to_texts_, bank);
}

Result<> Datapath::commit_to_bank(const ToBank& bank) const {
    nc_rd_conf next = NETCTL_TRY(conf());
    next.to_bank = (next.to_bank & 1) ^ 1;
    NETCTL_TRY(write(to_, to_texts_, next.to_bank, bank));
    NETCTL_TRY(set_conf(next));
    wait_for_programs();
    return {};
}

Result<> Datapath::commit_bank(const Bank& bank) const {
    nc_rd_conf next = NETCTL_TRY(conf());
    const std::uint32_t other = (next.bank & 1) ^ 1;
    NETCTL_TRY(write(rules_, texts_, other, bank));
    next.bank = other;
    next.generation++;
    NETCTL_TRY(set_conf(next));
    wait_for_programs(); // the former bank may be written again now
    return {};
}

// ---- Joiner ----

Result<Joiner> Joiner::open(Datapath& datapath) {
    const nc_rd_conf conf = NETCTL_TRY(datapath.conf());
    Joiner joiner(datapath, current_netns_cookie(), (conf.flags & NC_RD_CROSS_NETNS) != 0);
    if (joiner.cross_netns_) // as seen from wherever we are then
        joiner.own_path_ = fmt::format("/proc/{}/ns/net", getpid());
    joiner.inbox_ = std::make_unique<Inbox>();
    Inbox* inbox = joiner.inbox_.get();
    joiner.ring_ = NETCTL_TRY(bpf::RingBuffer::open(
        NETCTL_TRY(datapath.events()), [inbox](std::span<const std::byte> record) {
            nc_rd_event event{};
            if (record.size() == sizeof(event)) {
                std::memcpy(&event, record.data(), sizeof(event));
                inbox->events.push_back(event);
            }
            return true;
        }));
    return joiner;
}

Result<> Joiner::poll(int timeout_ms) {
    NETCTL_TRY(ring_->poll(timeout_ms));
    for (const Announced& announced : std::exchange(unplaced_, {}))
        NETCTL_TRY(on_event(announced));
    for (const nc_rd_event& event : std::exchange(inbox_->events, {}))
        NETCTL_TRY(on_event({event, now_ms()}));
    return expire();
}

std::string Joiner::netns_path(std::uint64_t cookie) {
    if (const auto known = paths_.find(cookie); known != paths_.end())
        return known->second;
    if (now_ms() - scanned_ms_ < 1000) // scanning is dear; connections can wait, or stay on TCP
        return {};
    scanned_ms_ = now_ms();
    paths_.clear();
    std::set<std::uint64_t> inodes;
    std::error_code failure;
    const auto look_at = [&](const std::string& path) {
        struct stat status {};
        if (stat(path.c_str(), &status) != 0 || !inodes.insert(status.st_ino).second)
            return;
        const auto guard = sys::NetnsGuard::enter(path);
        if (guard)
            paths_.emplace(current_netns_cookie(), path);
    };
    for (const auto& entry : std::filesystem::directory_iterator("/proc", failure))
        look_at(entry.path().string() + "/ns/net");
    for (const auto& entry : std::filesystem::directory_iterator("/run/netns", failure))
        look_at(entry.path().string()); // named ones, with sockets but no process of their own
    const auto found = paths_.find(cookie);
    return found == paths_.end() ? std::string() : found->second;
}

namespace {

/// How long an end waits for its peer, or for its namespace to be found.
constexpr std::uint64_t patience_ms = 2000;
constexpr std::size_t max_waiting = 4096;

std::string name_of(const nc_rd_end& end) {
    return std::string(reinterpret_cast<const char*>(&end), sizeof(end));
}

/// The same connection, seen from its other end.
nc_rd_end turned(nc_rd_end end) {
    std::swap(end.local_port, end.remote_port);
    std::swap_ranges(std::begin(end.local), std::end(end.local), std::begin(end.remote));
    return end;
}

/// Not this one, but there may be another of the same addresses.
bool is_open(std::uint32_t reason) {
    return reason == NC_RD_REASON_NO_PEER || reason == NC_RD_REASON_IDENTITY;
}

} // namespace

Result<Datapath::Answer> Joiner::join(const nc_rd_event& event, const Datapath::Peer& peer,
                                      bool tentative) {
    const Datapath::Answer answer = NETCTL_TRY(datapath_->join(event, peer, tentative));
    debug(fmt::format(
        "{}:{} -> {}:{}{}: {}{}", to_address(event.end.family, event.end.local).to_string(),
        event.end.local_port, to_address(event.end.family, event.end.remote).to_string(),
        event.end.remote_port, peer.number >= 0 ? " in another namespace" : "",
        answer.reason == NC_RD_REASON_NONE ? "joined" : reason_name(answer.reason),
        answer.error != 0 ? fmt::format(" ({})", strerror(-answer.error)) : ""));
    return answer;
}

Result<bool> Joiner::join_across(const nc_rd_event& event) {
    const auto [begin, end] = waiting_.equal_range(name_of(turned(event.end)));
    for (auto other = begin; other != end; ++other) {
        const std::uint64_t netns = other->second.event.netns;
        const std::string path = netns_path(netns);
        if (netns == event.netns || (path.empty() && netns != netns_))
            continue;
        const auto known = numbers_.find({event.netns, netns});
        int number = known == numbers_.end() ? -1 : known->second;
        if (number < 0) {
            auto given = sys::netns_number(netns == netns_ ? own_path_ : path);
            if (!given) {
                debug(given.error().what);
                continue;
            }
            number = *given;
            numbers_.emplace(std::pair(event.netns, netns), number);
        }
        const Datapath::Answer answer = NETCTL_TRY(join(event, {netns, number}, true));
        if (is_open(answer.reason))
            continue;
        waiting_.erase(other);
        return true;
    }
    return false;
}

Result<> Joiner::on_event(const Announced& announced) {
    const nc_rd_event& event = announced.event;
    std::string path;
    if (event.netns != netns_) {
        path = netns_path(event.netns);
        if (path.empty()) { // looked for again, but not too often
            if (now_ms() - announced.since_ms < patience_ms && unplaced_.size() < max_waiting)
                unplaced_.push_back(announced);
            return {};
        }
    }
    const auto guard = sys::NetnsGuard::enter(path);
    if (!guard || (!path.empty() && current_netns_cookie() != event.netns)) {
        paths_.erase(event.netns); // its process ended
        return {};
    }
    const Datapath::Answer answer = NETCTL_TRY(join(event, {event.netns, -1}, cross_netns_));
    if (!cross_netns_ || !is_open(answer.reason) || NETCTL_TRY(join_across(event)))
        return {};
    if (waiting_.size() < max_waiting)
        waiting_.emplace(name_of(event.end), announced);
    return {};
}

Result<> Joiner::expire() {
    for (auto one = waiting_.begin(); one != waiting_.end();) {
        if (now_ms() - one->second.since_ms < patience_ms) {
            ++one;
            continue;
        }
        const nc_rd_event event = one->second.event;
        one = waiting_.erase(one);
        // Once more in its own namespace, for the reason to be counted.
        const std::string path = event.netns == netns_ ? std::string() : netns_path(event.netns);
        const auto guard = sys::NetnsGuard::enter(path);
        if (guard && (path.empty() ? event.netns == netns_ : current_netns_cookie() == event.netns))
            NETCTL_TRY(join(event, {event.netns, -1}, false));
    }
    return {};
}

// ---- Controller ----

bpf::PinDir Controller::dir() const {
    return bpf::PinDir(root_).sub(directory);
}

Result<Datapath> Controller::open() const {
    if (!dir().has("link_sockops"))
        return Error::failed("redirection is not enabled", "netctl redirect enable");
    return Datapath::open(dir());
}

Result<Fitness> prove_fit(const EnableOptions& options) {
    const std::vector<std::string> known = selftest_names();
    for (const std::string& name : options.force)
        if (name != "all" && std::find(known.begin(), known.end(), name) == known.end())
            return Error::usage(fmt::format("--force: the self-test has no case '{}'", name),
                                fmt::format("one of: all, {}", fmt::join(known, ", ")));
    Fitness fitness;
    const bool untested =
        std::find(options.force.begin(), options.force.end(), "all") != options.force.end();
    bool forced = untested, never_pass = false;
    std::vector<SelftestCase> outcomes;
    if (!untested)
        outcomes = NETCTL_TRY(run_selftest());
    for (const SelftestCase& one : outcomes) {
        if (one.passed)
            continue;
        const bool forces =
            std::find(options.force.begin(), options.force.end(), one.name) != options.force.end();
        if (!forces && one.avoided && !options.allow_blocking) {
            never_pass = true;
            continue;
        }
        if (!forces)
            return Error::unsupported(
                fmt::format("this kernel would break applications: {}: {}: {}", one.name, one.about,
                            one.detail),
                fmt::format("netctl redirect selftest shows all; if no application minds: "
                            "--force {}",
                            one.name));
        forced = true;
        fitness.notes.push_back(fmt::format("forced although {} failed: {}", one.name, one.about));
    }

    Tuning& tuning = fitness.tuning;
    tuning.allow_blocking = options.allow_blocking;
    tuning.never_pass = never_pass;
    if (options.allow_blocking) // a recv that began before joining must be over
        tuning.grace_ns = 5'000'000;
    if (options.allow_blocking)
        fitness.flags |= NC_RD_ALLOW_BLOCKING;
    if (options.cross_netns)
        fitness.flags |= NC_RD_CROSS_NETNS;
    if (forced)
        fitness.flags |= NC_RD_FORCED;
    if (never_pass)
        fitness.flags |= NC_RD_NEVER_PASS;
    return fitness;
}

Result<Controller::Enabled> Controller::enable(const EnableOptions& options) {
    Enabled enabled;
    const sys::Cgroup cgroup = NETCTL_TRY(sys::find_cgroup(options.cgroup));
    const auto root = NETCTL_TRY(datapath::LockedRoot::acquire(root_, enabled.notes));
    if (dir().has("link_sockops")) {
        const nc_rd_conf conf = NETCTL_TRY(NETCTL_TRY(open()).conf());
        return Error::failed(fmt::format("redirection is enabled already, on the cgroup {}",
                                         sys::cgroup_name(conf.cgroup).value_or("(gone)")),
                             (conf.flags & NC_RD_DRAINING) != 0
                                 ? "it is being disabled: netctl redirect disable"
                                 : "netctl redirect disable comes first");
    }
    const Fitness fitness = NETCTL_TRY(prove_fit(options));
    enabled.notes.insert(enabled.notes.end(), fitness.notes.begin(), fitness.notes.end());

    Datapath datapath = NETCTL_TRY(Datapath::load(fitness.tuning));
    nc_rd_conf conf{};
    conf.abi_version = NC_ABI_VERSION;
    conf.flags = fitness.flags;
    conf.next_rule_id = conf.next_to_id = 1;
    conf.cgroup = cgroup.id;
    conf.generation = 1;
    NETCTL_TRY(datapath.set_conf(conf));

    const bpf::PinDir parent(root_);
    const bpf::PinDir aside = parent.sub(staging);
    NETCTL_TRY(aside.remove_all()); // of one that was killed half way
    Result<> done = datapath.attach(cgroup);
    if (done)
        done = datapath.pin(aside);
    if (done)
        done = parent.rename(staging, directory);
    if (!done) {
        (void)aside.remove_all();
        return std::move(done).error();
    }
    NETCTL_TRY(root.next_generation());
    enabled.cgroup = cgroup.name;
    return enabled;
}

Result<bool> Controller::disable(unsigned timeout_ms) {
    std::vector<std::string> notes;
    const auto root = NETCTL_TRY(datapath::LockedRoot::acquire(root_, notes));
    NETCTL_TRY(bpf::PinDir(root_).sub(staging).remove_all());
    if (!dir().exists())
        return false;
    if (dir().has("conf")) { // else the last disable was killed behind the draining
        const Datapath datapath = NETCTL_TRY(Datapath::open(dir()));
        nc_rd_conf conf = NETCTL_TRY(datapath.conf());
        conf.flags |= NC_RD_DRAINING;
        NETCTL_TRY(datapath.set_conf(conf));
        wait_for_programs(); // nothing joins any more
        const std::size_t left = NETCTL_TRY(datapath.leave_all(NC_RD_REASON_DRAINED, timeout_ms));
        if (left != 0)
            return Error::failed(
                fmt::format("{} connection{} hold{} redirected data that {} reader has not read "
                            "yet; all others are on TCP, and nothing joins any more",
                            left, left == 1 ? "" : "s", left == 1 ? "s" : "",
                            left == 1 ? "its" : "their"),
                "netctl redirect list names them; run netctl redirect disable again when they have "
                "read or are closed");
        // The order keeps a killed disable repeatable: `conf` last but for the rest.
        NETCTL_TRY(dir().unpin("link_sockops"));
        for (const Hook& hook : hooks)
            NETCTL_TRY(dir().unpin(link_name(hook)));
        for (const char* name : {"prog_join", "conf"})
            NETCTL_TRY(dir().unpin(name));
    }
    NETCTL_TRY(dir().remove_all());
    NETCTL_TRY(root.next_generation());
    return true;
}

bool Controller::joiner_runs() const {
    const auto lock = bpf::DirLock::try_acquire(dir().path());
    return !lock && lock.error().code == EWOULDBLOCK;
}

Result<Status> Controller::status() const {
    NETCTL_TRY(datapath::Root::open(root_));
    Status status;
    if (!dir().has("link_sockops"))
        return status;
    const Datapath datapath = NETCTL_TRY(open());
    const nc_rd_conf conf = NETCTL_TRY(datapath.conf());
    status.enabled = true;
    status.draining = (conf.flags & NC_RD_DRAINING) != 0;
    status.allow_blocking = (conf.flags & NC_RD_ALLOW_BLOCKING) != 0;
    status.cross_netns = (conf.flags & NC_RD_CROSS_NETNS) != 0;
    status.forced = (conf.flags & NC_RD_FORCED) != 0;
    status.joiner = joiner_runs();
    status.cgroup = sys::cgroup_name(conf.cgroup).value_or(fmt::format("#{}", conf.cgroup));
    status.rules = used(NETCTL_TRY(datapath.read_bank(conf.bank & 1)));
    status.to_rules = used(NETCTL_TRY(datapath.read_to_bank(conf.to_bank & 1)));
    for (const nc_rd_pair& pair : NETCTL_TRY(datapath.pairs())) {
        status.joined += pair.state == NC_RD_JOINED;
        status.leaving += pair.state == NC_RD_LEAVING;
    }
    status.stats = NETCTL_TRY(datapath.stats());
    return status;
}

namespace {

/// Live TCP connections of this network namespace as (local port, remote port) pairs.
std::set<std::pair<std::uint16_t, std::uint16_t>> live_ports() {
    std::set<std::pair<std::uint16_t, std::uint16_t>> ports;
    for (const char* path : {"/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"}) {
        std::ifstream file(path);
        std::string line;
        std::getline(file, line);
        while (std::getline(file, line)) {
            std::istringstream words(line);
            std::string index, local, remote, state;
            words >> index >> local >> remote >> state;
            const auto port = [](const std::string& text) {
                const std::size_t colon = text.rfind(':');
                return static_cast<std::uint16_t>(
                    std::strtoul(text.c_str() + colon + 1, nullptr, 16));
            };
            if (state == "01" && local.find(':') != std::string::npos &&
                remote.find(':') != std::string::npos)
                ports.emplace(port(local), port(remote));
        }
    }
    return ports;
}

Connection describe(const nc_rd_end& end) {
    Connection connection;
    connection.family = end.family == 4 ? Family::ipv4 : Family::ipv6;
    connection.local = to_address(end.family, end.local);
    connection.remote = to_address(end.family, end.remote);
    connection.local_port = end.local_port;
    connection.remote_port = end.remote_port;
    return connection;
}

std::string process_name(const nc_rd_process& process) {
    return std::string(process.name, strnlen(process.name, sizeof(process.name)));
}

} // namespace

Result<std::vector<Connection>> Controller::list() const {
    NETCTL_TRY(datapath::Root::open(root_));
    const Datapath datapath = NETCTL_TRY(open());
    std::vector<Connection> all;
    std::set<std::string> seen;
    const auto name_of = [](const nc_rd_event& event) {
        return std::string(reinterpret_cast<const char*>(&event), sizeof(event));
    };
    for (const nc_rd_pair& pair : NETCTL_TRY(datapath.pairs())) {
        if (!alive(pair))
            continue;
        Connection connection = describe(pair.end);
        const bool redirecting = pair.redirecting[0] != 0 || pair.redirecting[1] != 0;
        connection.state = pair.state == NC_RD_LEAVING ? "leaving"
                           : redirecting               ? "redirecting"
                                                       : "joined";
        if (pair.reason != NC_RD_REASON_NONE)
            connection.reason = reason_name(pair.reason);
        for (std::size_t i = 0; i < 2; i++)
            connection.ends[i] = {pair.process[i].pid,         process_name(pair.process[i]),
                                  pair.redirected_messages[i], pair.redirected_bytes[i],
                                  pair.passed_messages[i],     pair.passed_bytes[i]};
        connection.cross_netns = pair.netns != pair.peer_netns;
        seen.insert(name_of({pair.netns, pair.end}));
        seen.insert(name_of({pair.peer_netns, turned(pair.end)}));
        all.push_back(std::move(connection));
    }
    const std::uint64_t netns = current_netns_cookie();
    const auto live = live_ports();
    for (const auto& [event, recent] : NETCTL_TRY(datapath.recent())) {
        const nc_rd_event other{event.netns, turned(event.end)}; // both ends may have an entry
        if (event.netns != netns || !live.contains({event.end.local_port, event.end.remote_port}) ||
            seen.contains(name_of(other)) || !seen.insert(name_of(event)).second)
            continue;
        Connection connection = describe(event.end);
        connection.state = "tcp";
        connection.reason = reason_name(recent.reason);
        for (std::size_t i = 0; i < 2; i++)
            connection.ends[i] = {recent.process[i].pid,
                                  process_name(recent.process[i]),
                                  recent.redirected_messages[i],
                                  recent.redirected_bytes[i],
                                  0,
                                  0};
        all.push_back(std::move(connection));
    }
    return all;
}

Result<> Controller::run(bool wait, const std::function<bool()>& stop,
                         const std::function<void()>& ready) {
    const auto pause = [] { std::this_thread::sleep_for(std::chrono::milliseconds(200)); };
    while (!stop()) {
        if (!dir().has("link_sockops")) {
            if (!wait)
                return Error::failed("redirection is not enabled", "netctl redirect enable");
            pause();
            continue;
        }
        auto lock = bpf::DirLock::try_acquire(dir().path());
        if (!lock) {
            if (lock.error().code == EWOULDBLOCK && !wait)
                return Error::failed("another joiner is running for this root");
            if (lock.error().code != EWOULDBLOCK && lock.error().code != ENOENT)
                return std::move(lock).error();
            pause();
            continue;
        }
        auto datapath = Datapath::open(dir());
        if (!datapath) {
            if (!dir().has("link_sockops"))
                continue; // disabled in this moment
            return std::move(datapath).error();
        }
        Joiner joiner = NETCTL_TRY(Joiner::open(*datapath));
        ready();
        while (!stop() && lock->still_at(dir().path()))
            NETCTL_TRY(joiner.poll(200));
        if (!stop() && !wait)
            return {}; // disabled: our work is done
    }
    return {};
}

Result<std::vector<Controller::ListedRule>> Controller::rules() const {
    NETCTL_TRY(datapath::Root::open(root_));
    const Datapath datapath = NETCTL_TRY(open());
    const nc_rd_conf conf = NETCTL_TRY(datapath.conf());
    return listed(NETCTL_TRY(datapath.read_bank(conf.bank & 1)));
}

Result<std::uint32_t> Controller::add_rule(const Rule& rule, bool first) {
    std::vector<std::string> notes;
    Rule added = rule;
    nc_rd_rule kernel = NETCTL_TRY(to_kernel(rule));
    const std::string text = to_string(rule);
    Datapath::Bank bank;
    if (text.size() >= bank.texts[0].size())
        return Error::usage(
            fmt::format("the rule is longer than {} characters", bank.texts[0].size() - 1));
    const auto root = NETCTL_TRY(datapath::LockedRoot::acquire(root_, notes));
    const Datapath datapath = NETCTL_TRY(open());
    nc_rd_conf conf = NETCTL_TRY(datapath.conf());
    bank = NETCTL_TRY(datapath.read_bank(conf.bank & 1));
    const std::size_t count = used(bank);
    if (!rule.exe.empty() && (conf.flags & NC_RD_NEVER_PASS) != 0)
        return Error::unsupported(
            "this kernel's FIONREAD miscounts what passes while a joined connection's executables "
            "are being learnt (self-test: fionread-passed), so rules cannot ask for 'exe'",
            "use dport, dst or cgroup; or enable with --force fionread-passed");
    if (count == NC_RD_RULES)
        return Error::failed(fmt::format("there are {} rules, and no room for more", count));
    kernel.id = conf.next_rule_id++;
    NETCTL_TRY(datapath.set_conf(conf));
    insert(bank, first ? 0 : count, kernel, text);
    NETCTL_TRY(datapath.commit_bank(bank));
    if (first && count != 0)
        NETCTL_TRY(datapath.leave_all(NC_RD_REASON_DRAINED, 0));
    NETCTL_TRY(root.next_generation());
    return kernel.id;
}

Result<> Controller::delete_rule(std::uint32_t id) {
    std::vector<std::string> notes;
    const auto root = NETCTL_TRY(datapath::LockedRoot::acquire(root_, notes));
    const Datapath datapath = NETCTL_TRY(open());
    const nc_rd_conf conf = NETCTL_TRY(datapath.conf());
    Datapath::Bank bank = NETCTL_TRY(datapath.read_bank(conf.bank & 1));
    if (!erase(bank, id))
        return Error::failed(fmt::format("there is no rule {}", id), "netctl redirect rule list");
    NETCTL_TRY(datapath.commit_bank(bank));
    NETCTL_TRY(datapath.leave_all(NC_RD_REASON_DRAINED, 0));
    NETCTL_TRY(root.next_generation());
    return {};
}

Result<std::vector<Controller::ListedRule>> Controller::to_rules() const {
    NETCTL_TRY(datapath::Root::open(root_));
    const Datapath datapath = NETCTL_TRY(open());
    const nc_rd_conf conf = NETCTL_TRY(datapath.conf());
    return listed(NETCTL_TRY(datapath.read_to_bank(conf.to_bank & 1)));
}

Result<std::uint32_t> Controller::add_to(const ToRule& rule) {
    std::vector<std::string> notes;
    nc_rd_to kernel = NETCTL_TRY(to_kernel(rule));
    const std::string text = to_string(rule);
    if (text.size() >= 256)
        return Error::usage("the rule is longer than 255 characters");
    const auto root = NETCTL_TRY(datapath::LockedRoot::acquire(root_, notes));
    const Datapath datapath = NETCTL_TRY(open());
    nc_rd_conf conf = NETCTL_TRY(datapath.conf());
    Datapath::ToBank bank = NETCTL_TRY(datapath.read_to_bank(conf.to_bank & 1));
    const std::size_t count = used(bank);
    if (count == NC_RD_TO_RULES)
        return Error::failed(fmt::format("there are {} rules, and no room for more", count));
    kernel.id = conf.next_to_id++;
    NETCTL_TRY(datapath.set_conf(conf));
    insert(bank, count, kernel, text);
    NETCTL_TRY(datapath.commit_to_bank(bank));
    NETCTL_TRY(root.next_generation());
    return kernel.id;
}

Result<> Controller::delete_to(std::uint32_t id) {
    std::vector<std::string> notes;
    const auto root = NETCTL_TRY(datapath::LockedRoot::acquire(root_, notes));
    const Datapath datapath = NETCTL_TRY(open());
    const nc_rd_conf conf = NETCTL_TRY(datapath.conf());
    Datapath::ToBank bank = NETCTL_TRY(datapath.read_to_bank(conf.to_bank & 1));
    if (!erase(bank, id))
        return Error::failed(fmt::format("there is no rule {}", id), "netctl redirect to list");
    NETCTL_TRY(datapath.commit_to_bank(bank));
    NETCTL_TRY(root.next_generation());
    return {};
}

Result<> Controller::flush_rules() {
    std::vector<std::string> notes;
    const auto root = NETCTL_TRY(datapath::LockedRoot::acquire(root_, notes));
    const Datapath datapath = NETCTL_TRY(open());
    NETCTL_TRY(datapath.commit_bank({}));
    NETCTL_TRY(datapath.leave_all(NC_RD_REASON_DRAINED, 0));
    NETCTL_TRY(root.next_generation());
    return {};
}

} // namespace netctl::redirect
