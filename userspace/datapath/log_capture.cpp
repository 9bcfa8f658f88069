// SPDX-License-Identifier: GPL-2.0-only
#include "datapath/log_capture.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdio>

#include <fmt/format.h>

#include "sys/clock.hpp"

namespace netctl::datapath {

namespace {

/// What the hook's program answers for a verdict (enum xdp_action; linux/pkt_cls.h).
std::optional<sys::BpfVerdict> answer_of(Hook hook, nc_verdict verdict) {
    using enum sys::BpfVerdict::Hook;
    const bool is_xdp = hook == Hook::xdp;
    switch (verdict) {
    case NC_VERDICT_PASS: return sys::BpfVerdict{is_xdp ? xdp : tc, is_xdp ? 2 : 0};
    case NC_VERDICT_DROP: return sys::BpfVerdict{is_xdp ? xdp : tc, is_xdp ? 1 : 2};
    case NC_VERDICT_TX: return sys::BpfVerdict{xdp, 3};
    case NC_VERDICT_REDIRECT: return sys::BpfVerdict{is_xdp ? xdp : tc, is_xdp ? 4 : 7};
    case NC_VERDICT_NEXT: return sys::BpfVerdict{tc, -1};
    case NC_VERDICT_REJECT: // whether there is an answer is not known yet when it is logged
    case NC_VERDICT_SYNCOOKIE:
    case NC_VERDICTS: break;
    }
    return {};
}

} // namespace

Result<LogCapture> LogCapture::create(LogCaptureOptions options, FrameForm form,
                                      FilterPoint& point) {
    LogCapture capture(std::move(options), form, point);
    NETCTL_TRY(capture.begin());
    return capture;
}

Result<> LogCapture::begin() {
    const bool raw = form_ == FrameForm::ip;
    const auto link = raw ? sys::LinkType::raw_ip : sys::LinkType::ethernet;
    written_ = 0;
    plain_size_ = 0;
    if (options_.path != "-" && !options_.path.ends_with(".pcapng")) {
        writer_ = NETCTL_TRY(sys::PcapWriter::create(options_.path, link));
        return {};
    }
    read_rules();
    const std::string interface = shown(point_->interface());
    std::string comment = fmt::format("rules of {} {}:", point_->direction(), interface);
    for (const auto& [id, text] : rules_)
        comment += fmt::format("\n{}: {}", id, text);
    const std::uint32_t most = options_.snaplen == 0
                                   ? NC_EVENT_HEADERS
                                   : std::min<std::uint32_t>(options_.snaplen, NC_EVENT_HEADERS);
    writer_ = NETCTL_TRY(sys::PcapngWriter::create(
        options_.path, {link, interface, point_->direction(), most}, comment));
    const auto unlogged = point_->unlogged();
    unlogged_ = unlogged ? std::optional(*unlogged) : std::nullopt;
    return {};
}

void LogCapture::read_rules() {
    const auto rules = point_->rules();
    if (!rules)
        return;
    rules_.clear();
    for (const RuleStatus& rule : *rules)
        rules_.emplace(
            rule.rule.id,
            Text(rule.unreadable.empty() ? to_string(rule.rule) : rule.unreadable).string());
}

std::string LogCapture::comment_of(const nc_event& event) {
    if (event.generation != generation_) {
        read_rules();
        generation_ = event.generation;
    }
    const auto verdict = static_cast<nc_verdict>(event.verdict);
    const auto reason = static_cast<nc_reason>(event.reason);
    std::string text = fmt::format("{} by rule {}", to_string(verdict), event.rule_id);
    if (reason != NC_REASON_RULE)
        text += fmt::format(" ({})", to_string(reason));
    if (const auto rule = rules_.find(event.rule_id); rule != rules_.end())
        text += fmt::format(": {}", rule->second);
    return text;
}

std::uint64_t LogCapture::size() const {
    const auto* const named = std::get_if<sys::PcapngWriter>(&*writer_);
    return named ? named->size() : plain_size_;
}

Result<> LogCapture::write_packet(const nc_event& event, std::uint64_t time_ns) {
    if (options_.file_size && written_ != 0 && size() >= *options_.file_size)
        NETCTL_TRY(rotate());
    std::span<const std::uint8_t> bytes(event.headers, event.captured);
    if (options_.snaplen != 0)
        bytes = bytes.first(std::min<std::size_t>(bytes.size(), options_.snaplen));
    written_++;
    if (auto* const plain = std::get_if<sys::PcapWriter>(&*writer_)) {
        plain_size_ += bytes.size() + 16; // a packet's header in pcap
        NETCTL_TRY(plain->write(time_ns, event.len, bytes));
        return plain->flush();
    }
    auto& named = std::get<sys::PcapngWriter>(*writer_);
    const std::string comment = comment_of(event);
    using Direction = sys::PcapngPacket::Direction;
    NETCTL_TRY(named.write(
        sys::PcapngPacket{time_ns, event.len, bytes, comment,
                          point_->is_egress() ? Direction::outbound : Direction::inbound,
                          answer_of(point_->hook(), static_cast<nc_verdict>(event.verdict))}));
    return named.flush();
}

Result<> LogCapture::write_statistics() {
    auto* const named = std::get_if<sys::PcapngWriter>(&*writer_);
    if (!named)
        return {};
    // Of a filter that is detached, what it counted is gone as well.
    const auto now = point_->unlogged();
    if (!now || !unlogged_)
        return {};
    const std::uint64_t lost = now->lost - unlogged_->lost,
                        left_out = now->left_out - unlogged_->left_out;
    std::string comment;
    if (lost + left_out != 0)
        comment = fmt::format("{} lost: the buffer was full; {} left out: above the log's rate",
                              lost, left_out);
    NETCTL_TRY(
        named->write(sys::PcapngStatistics{sys::wall_ns(), written_, lost + left_out, comment}));
    return named->flush();
}

Result<> LogCapture::rotate() {
    NETCTL_TRY(write_statistics());
    writer_.reset();
    const auto name = [&](std::uint32_t back) {
        return back == 0 ? options_.path : fmt::format("{}.{}", options_.path, back);
    };
    for (std::uint32_t back = options_.files - 1; back > 0; back--)
        if (std::rename(name(back - 1).c_str(), name(back).c_str()) != 0 && errno != ENOENT)
            return Error::system(errno, fmt::format("cannot rename capture {}", name(back - 1)));
    return begin();
}

Result<bool> LogCapture::readable(Result<> written) const {
    if (written)
        return true;
    if (options_.path == "-" && written.error().code == EPIPE)
        return false;
    return Error(written.error());
}

Result<bool> LogCapture::write(const nc_event& event, std::uint64_t time_ns) {
    return readable(write_packet(event, time_ns));
}

Result<bool> LogCapture::finish() {
    return readable(write_statistics());
}

} // namespace netctl::datapath
