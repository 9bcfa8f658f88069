// SPDX-License-Identifier: GPL-2.0-only
#include "datapath/log_capture.hpp"

#include <fmt/format.h>

namespace netctl::datapath {

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

sys::LinkType link_type_of(FrameForm form) {
    return form == FrameForm::ip ? sys::LinkType::raw_ip : sys::LinkType::ethernet;
}

LogCapture::LogCapture(PacketFileOptions options, FrameForm form, FilterPoint& point)
    : PacketFile(std::move(options), link_type_of(form)), point_(&point) {}

Result<LogCapture> LogCapture::create(PacketFileOptions options, FrameForm form,
                                      FilterPoint& point) {
    LogCapture capture(std::move(options), form, point);
    NETCTL_TRY(capture.begin());
    return capture;
}

PacketFile::Head LogCapture::head() {
    read_rules();
    const std::string interface = shown(point_->interface());
    std::string comment = fmt::format("rules of {} {}:", point_->direction(), interface);
    for (const auto& [id, text] : rules_)
        comment += fmt::format("\n{}: {}", id, text);
    const auto unlogged = point_->unlogged();
    unlogged_ = unlogged ? std::optional(*unlogged) : std::nullopt;
    return {interface, point_->direction(), comment};
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

std::optional<PacketFile::Missing> LogCapture::missing() {
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
    return Missing{lost + left_out, comment};
}

Result<bool> LogCapture::write(const nc_event& event, std::uint64_t time_ns) {
    const std::string comment = comment_of(event);
    using Direction = sys::PcapngPacket::Direction;
    if (!NETCTL_TRY(
            PacketFile::write({time_ns,
                               event.len,
                               {event.headers, event.captured},
                               comment,
                               point_->is_egress() ? Direction::outbound : Direction::inbound,
                               answer_of(point_->hook(), static_cast<nc_verdict>(event.verdict))})))
        return false;
    return flush();
}

} // namespace netctl::datapath
