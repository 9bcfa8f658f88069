// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/controller.hpp"

#include <algorithm>
#include <arpa/inet.h>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <ctime>
#include <fstream>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fmt/format.h>

#include "bpf/map.hpp"
#include "bpf/object.hpp"
#include "bpf/ring_buffer.hpp"
#include "core/log.hpp"
#include "datapath/root.hpp"
#include "http_socket.skel.h"
#include "http_syscall.skel.h"
#include "sys/netns.hpp"
#include "sys/pcap.hpp"

namespace netctl::trace {

namespace {

constexpr std::uint32_t default_turn_bytes = 128 * 1024;
constexpr std::uint32_t default_ring_bytes = 16 * 1024 * 1024;
/// How much of a packet is wanted; the largest there are.
constexpr std::uint32_t packet_turn_bytes = 65535;

/// Nanoseconds to add to CLOCK_MONOTONIC for the time since the epoch.
Time clock_offset() {
    timespec monotonic{}, real{};
    clock_gettime(CLOCK_MONOTONIC, &monotonic);
    clock_gettime(CLOCK_REALTIME, &real);
    const auto ns = [](const timespec& time) {
        return static_cast<Time>(time.tv_sec) * 1'000'000'000 + static_cast<Time>(time.tv_nsec);
    };
    return ns(real) - ns(monotonic);
}

/// The cgroup v2 hierarchy's mount point.
Result<std::string> cgroup_mount() {
    std::ifstream mounts("/proc/self/mounts");
    std::string device, path, type, rest;
    while (mounts >> device >> path >> type && std::getline(mounts, rest))
        if (type == "cgroup2")
            return path;
    return Error::unsupported("no cgroup v2 hierarchy is mounted", "--cgroup needs one");
}

struct CgroupPlace {
    std::uint64_t id = 0;
    std::uint32_t level = 0;
};

/// `path` as a path in the file system, or below the hierarchy's root.
Result<CgroupPlace> find_cgroup(const std::string& path) {
    const std::string mount = NETCTL_TRY(cgroup_mount());
    std::string full = path;
    if (full.rfind(mount, 0) != 0)
        full = mount + (path.starts_with('/') ? "" : "/") + path;
    while (full.size() > 1 && full.ends_with('/'))
        full.pop_back();
    struct stat info {};
    if (stat(full.c_str(), &info) != 0)
        return Error::system(errno, fmt::format("cannot find the cgroup {}", full),
                             fmt::format("give a directory below {}", mount));
    if (!S_ISDIR(info.st_mode))
        return Error::usage(fmt::format("{} is no cgroup", full));
    // A cgroup's id is its directory's inode number.
    const auto below = full.substr(std::min(full.size(), mount.size()));
    return CgroupPlace{info.st_ino,
                       static_cast<std::uint32_t>(std::count(below.begin(), below.end(), '/'))};
}

/// Settings and counters under <root>/trace/PID, for whoever wants to change or read them. Its lock
/// tells that the tracer lives: process ids are used again, and differ between PID namespaces.
class Pins {
  public:
    static Result<Pins> make(const std::string& root, std::vector<std::string>& notes) {
        auto locked = NETCTL_TRY(datapath::LockedRoot::acquire(root, notes));
        const bpf::PinDir all = locked.dir().sub("trace");
        for (const std::string& name : all.list())
            if (bpf::DirLock::try_acquire(all.path_of(name)))
                NETCTL_TRY(all.sub(name).remove_all()); // of a tracer that was killed
        std::string name = std::to_string(getpid());
        for (int i = 2; all.has(name); ++i)
            name = fmt::format("{}-{}", getpid(), i);
        const bpf::PinDir own = all.sub(name);
        NETCTL_TRY(own.create());
        return Pins(root, own.path(), NETCTL_TRY(bpf::DirLock::try_acquire(own.path())));
    }
    Pins(Pins&& other) noexcept
        : root_(std::move(other.root_)),
          path_(std::exchange(other.path_, {})),
          lock_(std::move(other.lock_)) {}
    Pins& operator=(Pins&&) = delete;
    ~Pins() {
        if (path_.empty())
            return;
        std::vector<std::string> notes;
        const auto locked = datapath::LockedRoot::acquire(root_, notes);
        const auto removed = bpf::PinDir(path_).remove_all();
        if (!removed)
            debug(removed.error().what);
    }

    const std::string& path() const { return path_; }
    Result<> pin(const bpf::Object& object, std::initializer_list<const char*> names) const {
        for (const char* name : names) {
            const bpf::RawMap map = NETCTL_TRY(object.map(name));
            NETCTL_TRY(map.pin(bpf::PinDir(path_).path_of(name)));
        }
        return {};
    }

  private:
    Pins(std::string root, std::string path, bpf::DirLock lock)
        : root_(std::move(root)), path_(std::move(path)), lock_(std::move(lock)) {}
    std::string root_;
    std::string path_;
    bpf::DirLock lock_;
};

Result<> fill_settings(const bpf::Object& object, const nc_http_config& config,
                       const Request& request) {
    const std::uint8_t one = 1;
    const bpf::RawMap ports = NETCTL_TRY(object.map("ports"));
    for (const std::uint32_t port : request.ports)
        NETCTL_TRY(ports.update(&port, &one));
    const std::uint32_t zero = 0;
    return NETCTL_TRY(object.map("settings")).update(&zero, &config);
}

Result<nc_http_counters> read_counters(const bpf::RawMap& map) {
    // All members are of one type: add them up as an array.
    using Words = std::array<__u64, sizeof(nc_http_counters) / sizeof(__u64)>;
    Words sum{};
    const std::vector<Words> cpus = NETCTL_TRY((bpf::lookup_per_cpu<std::uint32_t, Words>(map, 0)));
    for (const Words& cpu : cpus)
        for (std::size_t i = 0; i < sum.size(); ++i)
            sum[i] += cpu[i];
    nc_http_counters counters{};
    std::memcpy(&counters, sum.data(), sizeof counters);
    return counters;
}

/// Reads a ring. The kernel side wakes nobody, as that costs the traced processes more than all the
/// rest: this looks by itself, and the more it finds, the sooner again. To take a CPU from a busy server for
/// more than some hundred microseconds at a time lets its clients run dry, which costs more than to come often.
class Reader {
  public:
    using Handler = std::function<void(std::span<const std::byte>)>;

    static Result<std::unique_ptr<Reader>> open(bpf::RawMap map, Handler handler) {
        auto reader = std::make_unique<Reader>();
        reader->handler_ = std::move(handler);
        reader->ring_ = NETCTL_TRY(bpf::RingBuffer::open(
            std::move(map), [self = reader.get()](std::span<const std::byte> bytes) {
                ++self->received_;
                self->handler_(bytes);
                return --self->budget_ > 0;
            }));
        return reader;
    }
    /// What there is, up to a limit, so that the caller gets a word in when it never ends.
    Result<> read() {
        budget_ = limit;
        NETCTL_TRY(ring_->consume());
        return {};
    }
    /// Until about `portion` records are there, if as many come as before.
    void rest() {
        const int found = limit - budget_;
        if (found == limit)
            return;
        rest_ = std::clamp(rest_ * portion / std::max(found, 1), shortest_rest, longest_rest);
        const timespec rest{0, static_cast<long>(rest_.count())};
        nanosleep(&rest, nullptr);
    }
    /// All that there is; the programs must be gone, or it may not end.
    Result<> drain() {
        do {
            budget_ = limit;
            NETCTL_TRY(ring_->consume());
        } while (budget_ < limit);
        return {};
    }
    std::uint64_t received() const { return received_; }

  private:
    using Rest = std::chrono::nanoseconds;
    static constexpr int limit = 32768;
    static constexpr int portion = 400;
    static constexpr Rest shortest_rest = std::chrono::milliseconds(1);
    /// Shorter than anybody notices; at a few thousand transactions a second most of what netctl costs is to
    /// be woken.
    static constexpr Rest longest_rest = std::chrono::milliseconds(20);
    Handler handler_;
    std::optional<bpf::RingBuffer> ring_;
    std::uint64_t received_ = 0;
    int budget_ = 0;
    Rest rest_ = longest_rest;
};

// ---- system calls ----

enum class ProbePoint { tracepoints, functions };

const std::vector<const char*>& programs_of(ProbePoint point) {
    static const std::vector<const char*> tracepoints{"http_send", "http_recv"};
    static const std::vector<const char*> functions{"http_send4", "http_send6", "http_recv4",
                                                    "http_recv6"};
    return point == ProbePoint::tracepoints ? tracepoints : functions;
}

class CallSession : public Session {
  public:
    static Result<std::unique_ptr<Session>> open(const Request& request, const std::string& root,
                                                 const Emit& emit,
                                                 std::vector<std::string>& notes) {
        const nc_http_config config = NETCTL_TRY(make_config(request));
        Error first = Error::failed("");
        for (const ProbePoint point : {ProbePoint::tracepoints, ProbePoint::functions}) {
            auto session = try_open(point, config, request, root, emit, notes);
            if (session)
                return session;
            debug(session.error().what);
            if (point == ProbePoint::tracepoints)
                first = std::move(session).error();
        }
        // What fails without privileges is not the kernel's fault.
        if (first.code == EPERM || first.code == EACCES)
            return first;
        return Error::unsupported(
            "this kernel reports no socket calls: it has neither the tracepoints "
            "sock_send_length and sock_recv_length (6.3) nor lets fexit programs attach to "
            "inet_sendmsg",
            "use --source socket");
    }

    ~CallSession() override { tracer_.finish(); }

    Result<bool> poll() override {
        NETCTL_TRY(reader_->read());
        return true;
    }
    void rest() override { reader_->rest(); }

    Result<> stop() override {
        links_.clear();
        NETCTL_TRY(reader_->drain());
        tracer_.finish();
        return {};
    }

    Result<Counters> counters() const override {
        Counters counters;
        counters.kernel = NETCTL_TRY(read_counters(counters_map_));
        counters.received = reader_->received();
        counters.parser = parser_;
        counters.calls = calls_;
        for (const int fd : program_fds_) {
            bpf_prog_info info{};
            __u32 size = sizeof info;
            if (bpf_prog_get_info_by_fd(fd, &info, &size) == 0)
                counters.recursions += info.recursion_misses;
        }
        return counters;
    }

    std::string description() const override {
        return point_ == ProbePoint::tracepoints ? "system calls (socket tracepoints)"
                                                 : "system calls (fexit of inet_sendmsg)";
    }
    std::string pins() const override { return pins_ ? pins_->path() : std::string(); }

  private:
    struct DestroyLink {
        void operator()(bpf_link* link) const { bpf_link__destroy(link); }
    };
    using LinkHandle = std::unique_ptr<bpf_link, DestroyLink>;

    CallSession(ProbePoint point, const Request& request, bpf::Skeleton<http_syscall> skeleton,
                Emit emit)
        : point_(point),
          options_(request.parser),
          emit_(std::move(emit)),
          skeleton_(std::move(skeleton)),
          offset_(clock_offset()),
          tracer_(options_, parser_, calls_, request.both_sides,
                  [this](Transaction& transaction) { emit_(transaction); }) {}

    static Result<nc_http_config> make_config(const Request& request) {
        nc_http_config config{};
        config.abi_version = NC_ABI_VERSION;
        config.turn_bytes = request.turn_bytes ? request.turn_bytes : default_turn_bytes;
        config.body_bytes = std::min(request.parser.body_limit, config.turn_bytes);
        if (request.both_sides)
            config.flags |= NC_HTTP_BOTH_SIDES;
        if (!request.ports.empty())
            config.select |= NC_HTTP_SELECT_PORT;
        if (request.pid != 0)
            config.select |= NC_HTTP_SELECT_PID;
        if (!request.comm.empty()) {
            config.select |= NC_HTTP_SELECT_COMM;
            std::memcpy(config.comm, request.comm.data(),
                        std::min(request.comm.size(), sizeof config.comm - 1));
        }
        if (!request.cgroup.empty()) {
            const CgroupPlace place = NETCTL_TRY(find_cgroup(request.cgroup));
            config.select |= NC_HTTP_SELECT_CGROUP;
            config.cgroup_id = place.id;
            config.cgroup_level = place.level;
        }
        if (request.only_netns) {
            const auto inside = NETCTL_TRY(sys::NetnsGuard::enter(request.netns));
            config.select |= NC_HTTP_SELECT_NETNS;
            config.netns = static_cast<__u32>(NETCTL_TRY(sys::current_netns_inode()));
        }
        return config;
    }

    static Result<std::unique_ptr<Session>> try_open(ProbePoint point, const nc_http_config& config,
                                                     const Request& request,
                                                     const std::string& root, const Emit& emit,
                                                     std::vector<std::string>& notes) {
        auto skeleton = NETCTL_TRY(bpf::Skeleton<http_syscall>::open());
        std::vector<const char*> wanted = programs_of(point);
        wanted.push_back("http_state");
        bpf_program* program = nullptr;
        bpf_object__for_each_program(program, skeleton->obj) {
            const std::string name = bpf_program__name(program);
            bpf_program__set_autoload(program, std::find(wanted.begin(), wanted.end(), name) !=
                                                   wanted.end());
        }
        // Only kernels before 6.5 have a path of its own for sendfile.
        if (point == ProbePoint::functions &&
            libbpf_find_vmlinux_btf_id("inet_sendpage", BPF_TRACE_FEXIT) > 0) {
            bpf_program__set_autoload(skeleton->progs.http_sendpage, true);
            wanted.push_back("http_sendpage");
        }
        const bpf::Object object = skeleton.object();
        NETCTL_TRY(object.set_max_entries("events", request.ring_bytes ? request.ring_bytes
                                                                       : default_ring_bytes));
        NETCTL_TRY(object.load());
        NETCTL_TRY(fill_settings(object, config, request));
        if (request.pid != 0) {
            const std::uint8_t one = 1;
            NETCTL_TRY(NETCTL_TRY(object.map("pids")).update(&request.pid, &one));
        }
        std::unique_ptr<CallSession> session(
            new CallSession(point, request, std::move(skeleton), emit));
        session->counters_map_ = NETCTL_TRY(object.map("counters"));
        session->reader_ =
            NETCTL_TRY(Reader::open(NETCTL_TRY(object.map("events")),
                                    [self = session.get()](std::span<const std::byte> bytes) {
                                        self->tracer_.record(bytes, self->offset_);
                                    }));
        session->pins_.emplace(NETCTL_TRY(Pins::make(root, notes)));
        NETCTL_TRY(session->pins_->pin(object, {"settings", "ports", "pids", "counters"}));
        for (const char* name : wanted) {
            bpf_program* one = bpf_object__find_program_by_name(session->skeleton_->obj, name);
            bpf::libbpf_complaint();
            LinkHandle link(bpf_program__attach(one));
            if (!link)
                return Error::system(errno, fmt::format("cannot attach {}", name),
                                     bpf::libbpf_complaint());
            session->program_fds_.push_back(bpf_program__fd(one));
            session->links_.push_back(std::move(link));
        }
        return std::unique_ptr<Session>(std::move(session));
    }

    ProbePoint point_;
    ParserOptions options_;
    Emit emit_;
    bpf::Skeleton<http_syscall> skeleton_;
    Time offset_;
    ParserCounters parser_;
    CallCounters calls_;
    CallTracer tracer_;
    bpf::RawMap counters_map_;
    std::unique_ptr<Reader> reader_;
    std::optional<Pins> pins_;
    std::vector<int> program_fds_;
    std::vector<LinkHandle> links_;
};

// ---- packets ----

class PacketSession : public Session {
  public:
    static Result<std::unique_ptr<Session>> open(const Request& request, const std::string& root,
                                                 Emit emit, std::vector<std::string>& notes) {
        auto skeleton = NETCTL_TRY(bpf::Skeleton<http_socket>::open());
        const bpf::Object object = skeleton.object();
        NETCTL_TRY(object.set_max_entries("events", request.ring_bytes ? request.ring_bytes
                                                                       : default_ring_bytes));
        std::unique_ptr<PacketSession> session(
            new PacketSession(request, std::move(skeleton), std::move(emit)));

        // The writer comes first: a file that cannot be written is told before anything is traced.
        if (!request.write.empty())
            session->writer_.emplace(
                NETCTL_TRY(sys::PcapWriter::create(request.write, sys::LinkType::raw_ip)));
        nc_http_config config{};
        config.abi_version = NC_ABI_VERSION;
        config.turn_bytes = request.turn_bytes ? request.turn_bytes : packet_turn_bytes;
        if (!request.ports.empty())
            config.select |= NC_HTTP_SELECT_PORT;
        if (session->writer_)
            config.flags |= NC_HTTP_WHOLE_FLOWS;
        const auto inside = NETCTL_TRY(sys::NetnsGuard::enter(request.netns));
        NETCTL_TRY(session->open_socket(request.interface, config));
        NETCTL_TRY(object.load());
        NETCTL_TRY(fill_settings(object, config, request));
        session->counters_map_ = NETCTL_TRY(object.map("counters"));
        session->flows_map_ = NETCTL_TRY(object.map("flows"));
        session->reader_ = NETCTL_TRY(Reader::open(
            NETCTL_TRY(object.map("events")),
            [self = session.get()](std::span<const std::byte> bytes) { self->record(bytes); }));
        session->pins_.emplace(NETCTL_TRY(Pins::make(root, notes)));
        NETCTL_TRY(session->pins_->pin(object, {"settings", "ports", "counters"}));
        NETCTL_TRY(session->start(object));
        return std::unique_ptr<Session>(std::move(session));
    }

    Result<bool> poll() override {
        NETCTL_TRY(reader_->read());
        // For whoever reads the file while it grows.
        const auto now = std::chrono::steady_clock::now();
        if (unflushed_ && now >= flushed_ + std::chrono::seconds(1)) {
            flushed_ = now;
            flush();
        }
        return true;
    }
    void rest() override { reader_->rest(); }

    Result<> stop() override {
        socket_.reset();
        NETCTL_TRY(reader_->drain());
        tracer_.finish(last_);
        flush();
        return {};
    }

    Result<Counters> counters() const override {
        Counters counters;
        counters.kernel = NETCTL_TRY(read_counters(counters_map_));
        counters.received = reader_->received();
        counters.parser = parser_;
        counters.packets = packets_;
        return counters;
    }

    std::string description() const override {
        return interface_.empty() ? std::string("packets of all interfaces")
                                  : "packets of " + interface_;
    }
    std::string pins() const override { return pins_ ? pins_->path() : std::string(); }
    std::optional<Error> write_error() override { return std::exchange(untold_, std::nullopt); }

  private:
    PacketSession(const Request& request, bpf::Skeleton<http_socket> skeleton, Emit emit)
        : options_(request.parser),
          emit_(std::move(emit)),
          skeleton_(std::move(skeleton)),
          offset_(clock_offset()),
          tracer_(
              options_, parser_, packets_, [this](Transaction& transaction) { emit_(transaction); },
              [this](const Endpoint& sender, const Endpoint& receiver, std::uint32_t until,
                     std::optional<std::uint32_t> back) { skip(sender, receiver, until, back); }) {}

    /// A body's bytes are not wanted; that they come nevertheless is no harm.
    void skip(const Endpoint& sender, const Endpoint& receiver, std::uint32_t until,
              std::optional<std::uint32_t> back) const {
        if (writer_)
            return;
        const auto order = [](const Endpoint& end) {
            std::array<std::uint32_t, 5> words{};
            std::memcpy(words.data(), end.address.bytes.data(), 16);
            words[4] = end.port;
            return words;
        };
        const bool lower = order(sender) < order(receiver);
        const Endpoint& low = lower ? sender : receiver;
        const Endpoint& high = lower ? receiver : sender;
        nc_http_flow_key key{};
        std::memcpy(key.low, low.address.bytes.data(), sizeof key.low);
        std::memcpy(key.high, high.address.bytes.data(), sizeof key.high);
        key.low_port = low.port;
        key.high_port = high.port;
        nc_http_flow flow{};
        flow.until[lower ? 0 : 1] = until;
        flow.skip[lower ? 0 : 1] = 1;
        if (back) {
            flow.until[lower ? 1 : 0] = *back;
            flow.skip[lower ? 1 : 0] = 1;
        }
        const auto told = flows_map_.update(&key, &flow, BPF_EXIST);
        if (!told)
            debug(told.error().what);
    }

    Result<> open_socket(const std::string& interface, nc_http_config& config) {
        address_.sll_family = AF_PACKET;
        address_.sll_protocol = htons(ETH_P_ALL);
        bool loopback = false;
        if (!interface.empty() && interface != "any") {
            interface_ = interface;
            const unsigned index = if_nametoindex(interface.c_str());
            if (index == 0)
                return Error::system(errno, fmt::format("no interface '{}'", interface),
                                     "`ip link` lists what there is, --netns looks elsewhere");
            address_.sll_ifindex = static_cast<int>(index);
        }
        // Protocol 0: nothing comes before the filter is in place.
        socket_ = Fd(::socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
        if (!socket_)
            return Error::system(errno, "cannot open a packet socket",
                                 errno == EPERM ? "run as root, or with CAP_NET_RAW" : "");
        config.loopback = if_nametoindex("lo");
        ifreq query{};
        if (!interface_.empty() && interface_.size() < sizeof query.ifr_name) {
            std::memcpy(query.ifr_name, interface_.c_str(), interface_.size());
            loopback = ioctl(socket_.get(), SIOCGIFFLAGS, &query) == 0 &&
                       (query.ifr_flags & IFF_LOOPBACK) != 0;
        }
        // Then the kernel does not even copy the frame's head for us on the way out.
        const int one = 1;
        if (loopback &&
            setsockopt(socket_.get(), SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof one) != 0)
            debug(fmt::format("PACKET_IGNORE_OUTGOING: {}", std::strerror(errno)));
        return {};
    }

    Result<> start(const bpf::Object& object) {
        const bpf::Program program = NETCTL_TRY(object.program("http_packets"));
        const int fd = program.fd();
        if (setsockopt(socket_.get(), SOL_SOCKET, SO_ATTACH_BPF, &fd, sizeof fd) != 0)
            return Error::system(errno, "cannot attach the socket filter");
        if (bind(socket_.get(), reinterpret_cast<const sockaddr*>(&address_), sizeof address_) != 0)
            return Error::system(
                errno, fmt::format("cannot listen on {}", interface_.empty() ? "any" : interface_));
        return {};
    }

    void record(std::span<const std::byte> bytes) {
        nc_http_packet packet;
        if (bytes.size() < sizeof packet)
            return;
        std::memcpy(&packet, bytes.data(), sizeof packet);
        if (packet.kind != NC_HTTP_PACKET || packet.captured > bytes.size() - sizeof packet)
            return;
        last_ = packet.time_ns + offset_;
        const std::span<const std::uint8_t> frame(
            reinterpret_cast<const std::uint8_t*>(bytes.data() + sizeof packet), packet.captured);
        tracer_.frame(last_, FrameStart::ip, frame, packet.length);
        if (writer_ && !write_failed_) {
            unflushed_ = true;
            const auto written = writer_->write(last_, packet.length, frame);
            if (!written)
                fail_writing(written.error());
        }
    }

    void flush() {
        if (!std::exchange(unflushed_, false) || write_failed_)
            return;
        const auto flushed = writer_->flush();
        if (!flushed)
            fail_writing(flushed.error());
    }

    void fail_writing(const Error& error) {
        write_failed_ = true;
        untold_ = error;
    }

    ParserOptions options_;
    Emit emit_;
    bpf::Skeleton<http_socket> skeleton_;
    Time offset_;
    Time last_ = 0;
    ParserCounters parser_;
    PacketCounters packets_;
    PacketTracer tracer_;
    std::string interface_;
    sockaddr_ll address_{};
    Fd socket_;
    bpf::RawMap counters_map_;
    bpf::RawMap flows_map_;
    std::unique_ptr<Reader> reader_;
    std::optional<sys::PcapWriter> writer_;
    bool unflushed_ = false;
    std::chrono::steady_clock::time_point flushed_;
    bool write_failed_ = false;
    std::optional<Error> untold_;
    std::optional<Pins> pins_;
};

// ---- capture files ----

class FileSession : public Session {
  public:
    static Result<std::unique_ptr<Session>> open(const Request& request, Emit emit) {
        auto reader = NETCTL_TRY(sys::PcapReader::open(request.read));
        FrameStart start = FrameStart::ethernet;
        switch (reader.link_type()) {
        case sys::LinkType::ethernet: break;
        case sys::LinkType::raw_ip: start = FrameStart::ip; break;
        case sys::LinkType::linux_sll: start = FrameStart::linux_cooked; break;
        case sys::LinkType::other:
            return Error::failed(
                fmt::format("{} holds {} frames", request.read, reader.link_type_name()),
                "Ethernet, raw IP and Linux cooked captures can be read");
        }
        return std::unique_ptr<Session>(
            new FileSession(request, std::move(reader), start, std::move(emit)));
    }

    Result<bool> poll() override {
        // A bite at a time, so that a signal is heeded.
        for (int i = 0; i < 1024; ++i) {
            const auto frame = NETCTL_TRY(reader_.next());
            if (!frame)
                return false;
            last_ = frame->time_ns;
            ++received_;
            tracer_.frame(last_, start_, frame->bytes, frame->length);
        }
        return true;
    }

    Result<> stop() override {
        tracer_.finish(last_);
        return {};
    }

    Result<Counters> counters() const override {
        Counters counters;
        counters.received = received_;
        counters.parser = parser_;
        counters.packets = packets_;
        return counters;
    }
    std::string description() const override { return path_; }

  private:
    FileSession(const Request& request, sys::PcapReader reader, FrameStart start, Emit emit)
        : options_(request.parser),
          emit_(std::move(emit)),
          reader_(std::move(reader)),
          start_(start),
          path_(request.read),
          ports_(request.ports),
          tracer_(options_, parser_, packets_, [this](Transaction& transaction) {
              const auto wanted = [&](std::uint16_t port) {
                  return std::binary_search(ports_.begin(), ports_.end(), port);
              };
              if (ports_.empty() || wanted(transaction.client.port) ||
                  wanted(transaction.server.port))
                  emit_(transaction);
          }) {}

    ParserOptions options_;
    Emit emit_;
    sys::PcapReader reader_;
    FrameStart start_;
    std::string path_;
    std::vector<std::uint16_t> ports_;
    Time last_ = 0;
    std::uint64_t received_ = 0;
    ParserCounters parser_;
    PacketCounters packets_;
    PacketTracer tracer_;
};

} // namespace

Result<std::unique_ptr<Session>> Session::open(const Request& request, const std::string& root,
                                               Emit emit, std::vector<std::string>& notes) {
    bpf::capture_libbpf_messages();
    switch (request.source) {
    case Source::file: return FileSession::open(request, std::move(emit));
    case Source::socket: return PacketSession::open(request, root, std::move(emit), notes);
    case Source::syscall: return CallSession::open(request, root, emit, notes);
    case Source::automatic: break;
    }
    if (!request.interface.empty() || !request.write.empty())
        return PacketSession::open(request, root, std::move(emit), notes);
    auto session = CallSession::open(request, root, emit, notes);
    const bool about_processes =
        request.pid != 0 || !request.comm.empty() || !request.cgroup.empty();
    if (session || session.error().kind != ErrorKind::unsupported || about_processes)
        return session;
    notes.push_back(session.error().what + "; tracing packets instead");
    return PacketSession::open(request, root, std::move(emit), notes);
}

} // namespace netctl::trace
