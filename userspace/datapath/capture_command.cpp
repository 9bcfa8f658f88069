// SPDX-License-Identifier: GPL-2.0-only
#include "datapath/capture_command.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <optional>

#include <fmt/format.h>

#include "classifier/packet.hpp"
#include "classifier/packet_text.hpp"
#include "core/duration.hpp"
#include "core/json.hpp"
#include "core/rule_parser.hpp"
#include "datapath/log_capture.hpp"
#include "datapath/packet_file.hpp"
#include "sys/clock.hpp"
#include "sys/stop.hpp"

namespace netctl::datapath {

namespace {

/// Of each packet, where nothing but a line is made of it: more than its headers have.
constexpr std::uint32_t line_snaplen = 512;

/// What was captured, in a file. In pcapng the section has the rule, the last block what was lost.
class CaptureFile : public PacketFile {
  public:
    /// `capture` and `point` outlive it.
    static Result<CaptureFile> create(PacketFileOptions options, const Capture& capture,
                                      const FilterPoint& point, const std::string& rule) {
        CaptureFile file(std::move(options), capture, point, rule);
        NETCTL_TRY(file.begin());
        return file;
    }

  private:
    CaptureFile(PacketFileOptions options, const Capture& capture, const FilterPoint& point,
                const std::string& rule)
        : PacketFile(std::move(options),
                     link_type_of(capture.ether() ? FrameForm::ethernet : FrameForm::ip)),
          capture_(&capture),
          point_(&point),
          rule_(rule) {}

    Head head() override {
        if (const auto counts = capture_->counts())
            lost_ = counts->lost;
        const std::string interface = shown(point_->interface());
        return {interface, point_->direction(),
                fmt::format("captured at {} {}: {}", point_->direction(), interface, rule_)};
    }
    std::optional<Missing> missing() override {
        const auto counts = capture_->counts();
        if (!counts)
            return {};
        return Missing{counts->lost - lost_,
                       counts->lost == lost_ ? "" : "lost: the buffer was full"};
    }

    const Capture* capture_;
    const FilterPoint* point_;
    std::string rule_;
    std::uint64_t lost_ = 0; ///< when the file began
};

nc_packet fields_of(const CapturedPacket& captured, bool ether) {
    std::vector<std::uint8_t> frame(captured.bytes.begin(), captured.bytes.end());
    // What the IP header says about its length must agree with the frame.
    frame.resize(std::max<std::size_t>(captured.length, frame.size()));
    return ether ? classifier::parse_ethernet(frame).packet : classifier::parse_ip(frame).packet;
}

/// What a program of XDP has answered (enum xdp_action).
std::string answer_text(std::int32_t answer) {
    constexpr std::array names{"aborted", "drop", "pass", "tx", "redirect"};
    const auto place = static_cast<std::uint32_t>(answer);
    return place < names.size() ? names[place] : fmt::format("answer {}", answer);
}

Result<int> run_capture(const Arguments& arguments, Context& context, const FilterPoint& point,
                        const StartCapture& start) {
    using std::chrono::nanoseconds;
    CaptureRequest request;
    request.rule = NETCTL_TRY(parse_filter(rule_text(arguments.rest()), point.hook()));
    const std::string text = request.rule.matches.empty() ? "all packets" : to_string(request.rule);
    const auto wanted = NETCTL_TRY(packet_file_of(arguments, NC_CAPTURE_MOST));
    request.snaplen = wanted ? wanted->snaplen : line_snaplen;
    const std::uint64_t most = NETCTL_TRY(arguments.number("count", 0, 1, std::uint64_t{1} << 62));
    std::optional<nanoseconds> span;
    if (arguments.has("duration"))
        span = NETCTL_TRY(parse_duration("duration", arguments.get("duration"),
                                         std::chrono::milliseconds(1), std::chrono::hours(24 * 7)));

    Capture capture = NETCTL_TRY(start(arguments, context, request));
    std::optional<CaptureFile> file;
    if (wanted)
        file.emplace(NETCTL_TRY(CaptureFile::create(*wanted, capture, point, text)));
    else
        context.out.note(fmt::format("capturing at {} {}: {}", point.direction(),
                                     shown(point.interface()), text));

    sys::catch_stop_signals();
    const std::int64_t offset = sys::boottime_offset();
    const std::int64_t begun = sys::monotonic_now();
    std::uint64_t seen = 0;
    bool readable = true; // nobody is there to read standard output any more
    Result<> failure;
    const auto writable = [&](Result<bool> written) {
        if (!written.has_value())
            failure = Error(written.error());
        return readable = written.has_value() && *written;
    };
    using Direction = sys::PcapngPacket::Direction;
    const Direction direction = point.is_egress() ? Direction::outbound : Direction::inbound;
    const auto handle = [&](const CapturedPacket& packet) {
        const std::uint64_t time = packet.time_ns + static_cast<std::uint64_t>(offset);
        const std::string verdict = packet.answer ? answer_text(*packet.answer) : "";
        seen++;
        if (file) {
            std::optional<sys::BpfVerdict> answer;
            if (packet.answer)
                answer = sys::BpfVerdict{sys::BpfVerdict::Hook::xdp, *packet.answer};
            if (!writable(
                    file->write({time, packet.length, packet.bytes, verdict, direction, answer})))
                return false;
        } else {
            const nc_packet fields = fields_of(packet, capture.ether());
            readable = context.out.line({{"time", sys::iso_time(time)},
                                         {"interface", point.interface()},
                                         {"verdict", verdict.empty() ? Json() : Json(verdict)},
                                         {"packet", classifier::packet_json(fields)}},
                                        fmt::format("{} {}{}{}", sys::time_text(time), verdict,
                                                    verdict.empty() ? "" : ": ",
                                                    classifier::packet_text(fields)));
            if (!readable)
                return false;
        }
        return seen != most;
    };
    const auto go_on = [&] {
        return !sys::stop_requested() && (!span || sys::monotonic_now() - begun < span->count());
    };
    const auto idle = [&] { return !file || writable(file->flush()); };
    auto followed = capture.follow(handle, go_on, idle);
    NETCTL_TRY(std::move(failure));
    if (file && readable)
        NETCTL_TRY(file->finish());
    NETCTL_TRY(std::move(followed));
    const nc_capture_counts counts = NETCTL_TRY(capture.counts());
    context.out.note(fmt::format(
        "{} packets captured, {} lost, of {} that came by{}", seen, counts.lost, counts.looked_at,
        counts.unparsed == 0
            ? ""
            : fmt::format("; {} of these cannot be parsed, and no rule matches them",
                          counts.unparsed)));
    if (counts.unseen != 0)
        context.out.note(
            fmt::format("{} more went by unseen while the rules changed", counts.unseen));
    return 0;
}

} // namespace

Command capture_command(std::vector<Positional> place, const OpenPoint& open,
                        const StartCapture& start) {
    place.push_back({"RULE", Positional::Count::rest});
    std::vector<Option> options = packet_file_options("them");
    options.push_back({"count", "N", "stop after so many", {}});
    options.push_back({"duration", "TIME", "stop after this time: 500ms, 10s, 5m", {}});
    return {.name = "capture",
            .summary = "capture the packets that a rule would match, without adding it",
            .description = "RULE needs no action; without RULE all packets are captured. Nothing "
                           "that is in force changes, and nothing stays behind, however the "
                           "command ends.",
            .positionals = std::move(place),
            .options = std::move(options),
            .run = [=](const Arguments& arguments, Context& context) -> Result<int> {
                return run_capture(arguments, context, *open(arguments, context), start);
            }};
}

} // namespace netctl::datapath
