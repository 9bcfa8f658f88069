// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/http/packet_session.hpp"

#include <arpa/inet.h>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <optional>
#include <span>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <utility>

#include <fmt/format.h>

#include "bpf/map.hpp"
#include "bpf/object.hpp"
#include "core/fd.hpp"
#include "core/log.hpp"
#include "features/trace/http/capture_file.hpp"
#include "features/trace/http/kernel_side.hpp"
#include "features/trace/http/packet_tracer.hpp"
#include "http_socket.skel.h"
#include "sys/clock.hpp"
#include "sys/netns.hpp"

namespace netctl::trace {

namespace {

/// How much of a packet is wanted; the largest there are.
constexpr std::uint32_t default_packet_bytes = 65535;

class PacketSession : public Session {
  public:
    static Result<std::unique_ptr<Session>> open(const Request& request, const RootOptions& root,
                                                 const Emit& emit) {
        auto skeleton = NETCTL_TRY(bpf::Skeleton<http_socket>::open());
        std::unique_ptr<PacketSession> session(
            new PacketSession(request, std::move(skeleton), emit));
        NETCTL_TRY(session->start(request, root));
        return std::unique_ptr<Session>(std::move(session));
    }

    Result<bool> poll() override {
        NETCTL_TRY(kernel_->reader().read());
        tracer_.tick(now());
        if (capture_)
            capture_->flush_at_times();
        return true;
    }
    void rest() override { kernel_->reader().rest(); }

    Result<> stop() override {
        socket_.reset();
        NETCTL_TRY(kernel_->reader().drain());
        tracer_.finish(now());
        if (capture_)
            capture_->flush();
        return {};
    }

    Result<Counters> counters() const override {
        Counters counters = NETCTL_TRY(kernel_->counters());
        counters.parser = parser_;
        counters.packets = packets_;
        return counters;
    }

    std::string description() const override {
        return interface_.empty() ? std::string("packets of all interfaces")
                                  : "packets of " + interface_;
    }
    std::string pins() const override { return kernel_->pins(); }
    std::optional<Error> write_error() override {
        return capture_ ? capture_->take_error() : std::nullopt;
    }

  private:
    PacketSession(const Request& request, bpf::Skeleton<http_socket> skeleton, Emit emit)
        : options_(request.parser),
          emit_(std::move(emit)),
          skeleton_(std::move(skeleton)),
          offset_(static_cast<Time>(sys::monotonic_offset())),
          tracer_(
              options_, parser_, packets_, [this](Transaction& transaction) { emit_(transaction); },
              [this](const Endpoint& sender, const Endpoint& receiver, std::uint32_t until,
                     std::optional<std::uint32_t> back) { skip(sender, receiver, until, back); },
              packet_options(request)) {}

    static PacketOptions packet_options(const Request& request) {
        PacketOptions options;
        // The kernel's program does not look into tunnels; and with a VLAN's interface beside its parent each
        // packet is seen twice, once without its tag.
        options.layers = {.tunnels = false, .vlans = false, .checksums = true};
        options.checksums_may_be_unfilled = false; // who vouches for them is told with each packet
        options.stalled = request.stalled;
        return options;
    }
    Time now() const { return static_cast<Time>(sys::monotonic_now()) + offset_; }

    Result<> start(const Request& request, const RootOptions& root) {
        // The file comes first: if it cannot be written, that is told before anything is traced.
        if (!request.write.empty())
            capture_.emplace(NETCTL_TRY(CaptureFile::create(request.write)));
        nc_http_config config{};
        config.turn_bytes = request.turn_bytes ? request.turn_bytes : default_packet_bytes;
        if (capture_)
            config.flags |= NC_HTTP_WHOLE_FLOWS;
        const auto inside = NETCTL_TRY(sys::NetnsGuard::enter(request.netns));
        NETCTL_TRY(open_socket(request.interface));
        config.loopback = if_nametoindex("lo");
        const bpf::Object object = skeleton_.object();
        constexpr const char* pinned[] = {"settings", "ports", "counters"};
        kernel_.emplace(NETCTL_TRY(
            KernelSide::load(object, config, pinned, request, root,
                             [this](std::span<const std::byte> bytes) { record(bytes); })));
        flows_ = NETCTL_TRY(object.map("flows"));
        return attach(object);
    }

    /// A body's bytes are not wanted; that they come nevertheless is no harm.
    void skip(const Endpoint& sender, const Endpoint& receiver, std::uint32_t until,
              std::optional<std::uint32_t> back) const {
        if (capture_)
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
        const auto told = flows_.update(&key, &flow, BPF_EXIST);
        if (!told)
            debug(told.error().what);
    }

    /// A socket that listens to nothing yet, and where it will: `address_`.
    Result<> open_socket(const std::string& interface) {
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
            debug(fmt::format("PACKET_IGNORE_OUTGOING: {}", error_text(errno)));
        return {};
    }

    Result<> attach(const bpf::Object& object) {
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
        tracer_.frame(last_, FrameStart::ip, frame, packet.length, packet.verify != 0);
        if (capture_)
            capture_->write(last_, packet.length, frame);
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
    bpf::RawMap flows_;
    std::optional<CaptureFile> capture_;
    std::optional<KernelSide> kernel_;
};

} // namespace

Result<std::unique_ptr<Session>>
open_packet_session(const Request& request, const RootOptions& root, const Session::Emit& emit) {
    return PacketSession::open(request, root, emit);
}

} // namespace netctl::trace
