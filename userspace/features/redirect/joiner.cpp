// SPDX-License-Identifier: GPL-2.0-only
#include "features/redirect/joiner.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <sched.h>
#include <set>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include "core/log.hpp"
#include "features/redirect/rule_text.hpp"
#include "sys/clock.hpp"

namespace netctl::redirect {

std::uint64_t current_netns_cookie() {
    constexpr int so_netns_cookie = 71;
    const Fd fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    std::uint64_t cookie = 0;
    socklen_t size = sizeof(cookie);
    if (!fd || getsockopt(fd.get(), SOL_SOCKET, so_netns_cookie, &cookie, &size) != 0)
        return 0;
    return cookie;
}

nc_rd_end turned(nc_rd_end end) {
    std::swap(end.local_port, end.remote_port);
    std::swap_ranges(std::begin(end.local), std::end(end.local), std::begin(end.remote));
    return end;
}

namespace {

constexpr int nudge_ms = 20; ///< between looks whether a reader has caught up
constexpr int nudge_max_ms = 500;

/// How long a connection that is not at rest is tried, and the longest pause between two tries.
constexpr std::uint64_t busy_ms = 10'000, busy_pause_ms = 64;

/// Until the next try, by how long it has been tried: often at first, some hundred times in all.
std::uint64_t busy_pause(std::uint64_t age_ms) {
    return std::clamp<std::uint64_t>(age_ms / 16, 1, busy_pause_ms);
}
constexpr std::size_t max_busy = 4096;
constexpr std::uint64_t busy_max_ms = 500; ///< between two rounds, however many there are

/// How long an end waits for its peer, or for its namespace to be found.
constexpr std::uint64_t other_end_ms = 2000;
constexpr std::size_t max_waiting = 4096;

std::string name_of(const nc_rd_end& end) {
    return std::string(reinterpret_cast<const char*>(&end), sizeof(end));
}

/// Not this one, but there may be another of the same addresses.
bool is_open(std::uint32_t reason) {
    return reason == NC_RD_REASON_NO_PEER || reason == NC_RD_REASON_IDENTITY;
}

/**
 * While it lives, this thread runs on another of its CPUs than it did before, where it has several.
 * Where the two ends take turns on one CPU, and the kernel lets us run when one of them goes to sleep
 * (without preemption in the kernel, or with a lazy one), it always sleeps for what the other has not
 * read yet: they are never seen at rest from that CPU.
 */
class OtherCpu {
  public:
    OtherCpu() {
        const int here = sched_getcpu();
        if (here < 0 || here >= CPU_SETSIZE ||
            sched_getaffinity(0, sizeof(allowed_), &allowed_) != 0 || CPU_COUNT(&allowed_) < 2)
            return;
        int next = (here + 1) % CPU_SETSIZE;
        while (!CPU_ISSET(next, &allowed_))
            next = (next + 1) % CPU_SETSIZE;
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(next, &one);
        moved_ = sched_setaffinity(0, sizeof(one), &one) == 0;
    }
    ~OtherCpu() {
        if (moved_)
            (void)sched_setaffinity(0, sizeof(allowed_), &allowed_);
    }
    OtherCpu(const OtherCpu&) = delete;
    OtherCpu& operator=(const OtherCpu&) = delete;

  private:
    cpu_set_t allowed_{};
    bool moved_ = false;
};

/// Of this thread, on a CPU.
std::uint64_t cpu_us() {
    timespec time{};
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return static_cast<std::uint64_t>(time.tv_sec) * 1000000 +
           static_cast<std::uint64_t>(time.tv_nsec) / 1000;
}

} // namespace

Result<Joiner> Joiner::open(Datapath& datapath) {
    const nc_rd_conf conf = NETCTL_TRY(datapath.conf());
    Joiner joiner(datapath, current_netns_cookie(), (conf.flags & NC_RD_CROSS_NETNS) != 0);
    joiner.own_ = Fd(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
    if (!joiner.own_)
        return Error::system(errno, "cannot open the own network namespace");
    joiner.inbox_ = std::make_unique<Inbox>();
    Inbox* inbox = joiner.inbox_.get();
    joiner.ring_ = NETCTL_TRY(bpf::RingBuffer::open(
        NETCTL_TRY(datapath.events()), [inbox](std::span<const std::byte> record) {
            nc_rd_event event{};
            nc_rd_behind behind{};
            if (record.size() == sizeof(event)) {
                std::memcpy(&event, record.data(), sizeof(event));
                inbox->events.push_back(event);
            } else if (record.size() == sizeof(behind)) {
                std::memcpy(&behind, record.data(), sizeof(behind));
                inbox->behind.push_back(behind);
            }
            return true;
        }));
    // Those whom a joiner before us has left behind.
    const std::vector<nc_rd_pair> pairs = NETCTL_TRY(datapath.pairs());
    for (std::uint32_t slot = 0; slot < pairs.size(); slot++)
        for (const std::uint32_t end : {0U, 1U})
            if (alive(pairs[slot]) && (pairs[slot].behind & 1U << end) != 0)
                inbox->behind.push_back({pairs[slot].key, slot, end});
    return joiner;
}

Result<> Joiner::poll(int timeout_ms) {
    if (!inbox_->behind.empty())
        timeout_ms = std::min(timeout_ms, nudge_ms);
    const std::uint64_t now = sys::now_ms();
    for (const Busy& busy : busy_) {
        const std::uint64_t next = std::max(busy.next_ms, next_try_ms_);
        timeout_ms = std::min(timeout_ms, next <= now ? 0 : static_cast<int>(next - now));
    }
    NETCTL_TRY(ring_->poll(timeout_ms));
    for (const Announced& announced : std::exchange(unplaced_, {}))
        NETCTL_TRY(on_event(announced));
    for (const nc_rd_event& event : std::exchange(inbox_->events, {}))
        NETCTL_TRY(on_event({event, sys::now_ms()}));
    NETCTL_TRY(try_again());
    NETCTL_TRY(nudge());
    return expire();
}

Result<> Joiner::nudge() {
    if (inbox_->behind.empty() || sys::now_ms() < next_nudge_ms_)
        return {};
    const std::uint64_t begin = cpu_us();
    std::vector<nc_rd_behind> waiting;
    for (const nc_rd_behind& behind : std::exchange(inbox_->behind, {})) {
        const nc_rd_pair pair = NETCTL_TRY(datapath_->pair(behind.slot));
        if (pair.key != behind.key)
            continue; // long closed
        const std::uint64_t netns = behind.end == 0 ? pair.netns : pair.peer_netns;
        const auto guard = enter(netns);
        if (!guard) {
            if (alive(pair))
                waiting.push_back(behind);
            continue;
        }
        if (pair.state == NC_RD_LEAVING) // it may be out before it is woken
            NETCTL_TRY(datapath_->leave(behind.slot, pair.reason, Datapath::LeaveRequest::joiner));
        const nc_rd_nudged done = NETCTL_TRY(datapath_->nudge(behind));
        if (done == NC_RD_NUDGE_UNREAD || done == NC_RD_NUDGE_AGAIN)
            waiting.push_back(behind);
    }
    inbox_->behind.insert(inbox_->behind.end(), waiting.begin(), waiting.end());
    // Each looks at all sockets: a tenth of a CPU at most. Time on a CPU: where others have it, looking
    // is not what costs. And with an end to it: readers wait.
    next_nudge_ms_ =
        sys::now_ms() + std::clamp<std::uint64_t>((cpu_us() - begin) / 100, nudge_ms, nudge_max_ms);
    return {};
}

std::string Joiner::netns_path(std::uint64_t cookie) {
    if (const auto known = paths_.find(cookie); known != paths_.end())
        return known->second;
    if (sys::now_ms() - scanned_ms_ <
        1000) // scanning is dear; connections can wait, or stay on TCP
        return {};
    scanned_ms_ = sys::now_ms();
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
    const std::string ourselves = std::to_string(getpid()); // wherever we are just now
    for (const auto& entry : std::filesystem::directory_iterator("/proc", failure))
        if (entry.path().filename() != ourselves)
            look_at(entry.path().string() + "/ns/net");
    for (const auto& entry : std::filesystem::directory_iterator("/run/netns", failure))
        look_at(entry.path().string()); // named ones, with sockets but no process of their own
    const auto there = [&](std::uint64_t one) { return one == netns_ || paths_.contains(one); };
    std::erase_if(numbers_, [&](const auto& number) {
        return !there(number.first.first) || !there(number.first.second);
    });
    const auto found = paths_.find(cookie);
    return found == paths_.end() ? std::string() : found->second;
}

std::optional<sys::NetnsGuard> Joiner::enter(std::uint64_t netns) {
    std::string path;
    if (netns != netns_ && (path = netns_path(netns)).empty())
        return {};
    auto guard = sys::NetnsGuard::enter(path);
    if (!guard || (netns != netns_ && current_netns_cookie() != netns)) {
        paths_.erase(netns); // its process ended
        return {};
    }
    return std::move(*guard);
}

Result<Datapath::Answer> Joiner::try_once(const nc_rd_event& event, const Datapath::Peer& peer,
                                          bool tentative, bool final) {
    const Datapath::Answer answer = NETCTL_TRY(datapath_->join(event, peer, tentative, final));
    for (const std::uint32_t end : {0U, 1U})
        if ((answer.unheard & 1U << end) != 0)
            inbox_->behind.push_back({answer.key, answer.slot, end});
    if (answer.error != 0)
        refusal_ = answer.error;
    debug(fmt::format(
        "{}:{} -> {}:{}{}: {}{}", to_address(event.end.family, event.end.local).to_string(),
        event.end.local_port, to_address(event.end.family, event.end.remote).to_string(),
        event.end.remote_port, peer.number >= 0 ? " in another namespace" : "",
        answer.reason == NC_RD_REASON_NONE ? "joined" : reason_name(answer.reason),
        answer.error != 0 ? fmt::format(" ({})", error_text(-answer.error)) : ""));
    return answer;
}

Result<Datapath::Answer> Joiner::join(const Announced& announced, const Datapath::Peer& peer,
                                      bool tentative) {
    const bool final = busy_.size() >= max_busy;
    const auto answer = NETCTL_TRY(try_once(announced.event, peer, tentative, final));
    if (answer.reason == NC_RD_REASON_BUSY && !final)
        busy_.push_back({announced, peer, sys::now_ms() + busy_pause(0)});
    return answer;
}

Result<> Joiner::try_again() {
    const std::uint64_t round = sys::now_ms();
    const auto is_due = [&](const Busy& busy) { return busy.next_ms <= round; };
    if (round < next_try_ms_ || std::ranges::none_of(busy_, is_due))
        return {};
    const std::uint64_t begin = cpu_us();
    const OtherCpu elsewhere;
    for (Busy& busy : std::exchange(busy_, {})) {
        const std::uint64_t now = sys::now_ms();
        if (now < busy.next_ms) {
            busy_.push_back(busy);
            continue;
        }
        const bool final = now - busy.announced.since_ms >= busy_ms;
        const bool open = now - busy.announced.since_ms < other_end_ms;
        if (const auto guard = enter(busy.announced.event.netns)) {
            const auto answer =
                NETCTL_TRY(try_once(busy.announced.event, busy.peer, open || cross_netns_, final));
            if (answer.reason != NC_RD_REASON_BUSY && !(open && is_open(answer.reason)))
                continue;
        }
        if (final)
            continue;
        busy.next_ms = sys::now_ms() + busy_pause(now - busy.announced.since_ms);
        busy_.push_back(busy);
    }
    // Each watches its connection for a while: a tenth of a CPU at most.
    next_try_ms_ = sys::now_ms() + std::min<std::uint64_t>((cpu_us() - begin) / 100, busy_max_ms);
    return {};
}

Result<bool> Joiner::join_across(const Announced& announced) {
    const nc_rd_event& event = announced.event;
    const auto [begin, end] = waiting_.equal_range(name_of(turned(event.end)));
    for (auto other = begin; other != end; ++other) {
        const std::uint64_t netns = other->second.event.netns;
        const std::string path = netns_path(netns);
        if (netns == event.netns || (path.empty() && netns != netns_))
            continue;
        const auto known = numbers_.find({event.netns, netns});
        int number = known == numbers_.end() ? -1 : known->second;
        if (number < 0) {
            auto given = sys::netns_number(
                netns == netns_ ? fmt::format("/proc/self/fd/{}", own_.get()) : path);
            if (!given) { // of no avail for any other, either
                if (!std::exchange(was_trouble_, true))
                    trouble_ = fmt::format("connections between network namespaces stay on TCP: a "
                                           "namespace gets no number in another: {}",
                                           given.error().what);
                continue;
            }
            number = *given;
            numbers_.emplace(std::pair(event.netns, netns), number);
        }
        const Datapath::Answer answer = NETCTL_TRY(join(announced, {netns, number}, true));
        if (is_open(answer.reason))
            continue;
        waiting_.erase(other);
        return true;
    }
    return false;
}

Result<> Joiner::on_event(const Announced& announced) {
    const nc_rd_event& event = announced.event;
    const auto guard = enter(event.netns);
    if (!guard) { // looked for again, but not too often
        if (sys::now_ms() - announced.since_ms < other_end_ms && unplaced_.size() < max_waiting)
            unplaced_.push_back(announced);
        return {};
    }
    // Counters of a connection that is alive may disagree for a moment: the first word is not the last.
    const Datapath::Peer here{event.netns, -1};
    const Datapath::Answer answer = NETCTL_TRY(join(announced, here, true));
    if (!is_open(answer.reason))
        return {};
    const bool again =
        busy_.size() < max_busy && (!cross_netns_ || answer.reason == NC_RD_REASON_IDENTITY);
    if (again)
        busy_.push_back({announced, here, sys::now_ms() + busy_pause(0)});
    if (!cross_netns_) {
        if (!again)
            NETCTL_TRY(join(announced, here, false));
        return {};
    }
    if (NETCTL_TRY(join_across(announced)))
        return {};
    if (waiting_.size() < max_waiting)
        waiting_.emplace(name_of(event.end), announced);
    return {};
}

Result<> Joiner::expire() {
    for (auto one = waiting_.begin(); one != waiting_.end();) {
        if (sys::now_ms() - one->second.since_ms < other_end_ms) {
            ++one;
            continue;
        }
        const Announced announced = one->second;
        one = waiting_.erase(one);
        // Once more in its own namespace, for the reason to be counted.
        if (const auto guard = enter(announced.event.netns))
            NETCTL_TRY(join(announced, {announced.event.netns, -1}, false));
    }
    return {};
}

} // namespace netctl::redirect
